# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Papermerge 2.0.2 on PostgreSQL, used by four processes through its own API while snapshots are taken."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.hot import PROCESSES, SNAPSHOTS, SOAK_SNAPSHOTS, InUse, a_tenth_of, report, take_many
from tests.support.papermerge.install import installed_papermerge
from tests.support.papermerge.instance import PapermergeInstance
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import place_in, put_back
from tests.support.writers import Writers, deleted_after, under_way

PASSWORD = "one of a test"


@pytest.fixture
def papermerge_in_use(postgres_server: PostgresServer, tmp_path: Path, rng: random.Random) -> Iterator[InUse]:
    name = "hot_papermerge"
    instance = PapermergeInstance.create_on_server(
        tmp_path / "papermerge", installed_papermerge(), postgres_server, name, PASSWORD
    )
    instance.populate(documents=10)
    url = postgres_server.url(name, name, PASSWORD)
    with ExitStack() as stack:
        stack.callback(postgres_server.execute, f"drop role {name}")
        stack.callback(postgres_server.drop_database, name)
        writers = [
            stack.enter_context(instance.writer(rate=2.5, seed=rng.randrange(1 << 30), documents=15))
            for _number in range(PROCESSES)
        ]
        in_use = InUse(instance.media_root, url, "2.0.2", Writers(writers), place_in(tmp_path / "repository"))
        in_use.writers.wait_for(more=5)
        yield in_use
        in_use.writers.stop()


def open_restored(in_use: InUse, server: PostgresServer, manifest: dict[str, Any], directory: Path) -> None:
    """Restore a snapshot beside the instance and let Papermerge open every document of it."""
    number = manifest["sequence"]
    name, role = f"hot_restored_{number}", "hot_papermerge"
    directory = directory / f"restored-{number}"
    directory.mkdir()
    operations, moment = in_use.writers.operations(), manifest["database"]["dumped_at_ns"] / 1e9
    try:
        url = server.url(name, role, PASSWORD)
        put_back(in_use.place, directory / "media", url, snapshot=str(number))
        instance = PapermergeInstance.create_on_server(
            directory / "papermerge",
            installed_papermerge(),
            server,
            name,
            PASSWORD,
            role=role,
            media_dir=directory / "media",
            restored=True,
        )
        opened = instance.open_every_document(check=False)
    finally:
        server.drop_database(name)
    changing, deleted = under_way(operations, moment), deleted_after(operations, moment)
    lost = 0
    for failure in opened.failures:
        if failure.problem.startswith("it has page rows"):
            # Papermerge commits a document and its pages one after the other.
            assert failure.what.startswith(changing), (failure, changing)
        else:
            assert failure.what.startswith(deleted), (failure, deleted)
            lost += "its file does not exist" in failure.problem
    assert lost == manifest["proof"]["classes"]["deleted_during_backup"]
    assert opened.documents == manifest["totals"]["documents"] > 10


def use_papermerge(in_use: InUse, server: PostgresServer, directory: Path, count: int, rng: random.Random) -> None:
    manifests, during = take_many(in_use, count)
    assert set(during) >= {"upload", "replace", "change_pages", "rename", "tag", "describe", "delete"}, during
    chosen = a_tenth_of(manifests, rng)
    for manifest in chosen:
        open_restored(in_use, server, manifest, directory)
    report("Papermerge 2.0.2", in_use, manifests, during, chosen)


def test_a_papermerge_in_use_by_four_processes_is_proved_and_opens(
    papermerge_in_use: InUse, postgres_server: PostgresServer, tmp_path: Path, rng: random.Random
) -> None:
    use_papermerge(papermerge_in_use, postgres_server, tmp_path, SNAPSHOTS, rng)


@pytest.mark.soak
def test_two_hundred_snapshots_of_a_papermerge_in_use_are_proved_and_open(
    papermerge_in_use: InUse, postgres_server: PostgresServer, tmp_path: Path, rng: random.Random
) -> None:
    use_papermerge(papermerge_in_use, postgres_server, tmp_path, SOAK_SNAPSHOTS, rng)
