# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge on PostgreSQL that is being used by four processes while snapshots are taken: every row is explained.

One is a real Papermerge 2.0.2, used through its own API, the other a model of Papermerge 3.5's order of writes.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils import create
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call
from tests.support.generated.instance import GeneratedInstance, generate
from tests.support.model_writer import is_whole, path_of_version
from tests.support.papermerge.install import installed_papermerge
from tests.support.papermerge.instance import PapermergeInstance
from tests.support.playbooks import CHECKOUT
from tests.support.servers.fixtures import postgres_server
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import WatchedSession, local_agent, place_in, put_back, take
from tests.support.writers import Writers, between, deleted_after, running_writer, under_way

__all__ = ["postgres_server"]

SNAPSHOTS, SOAK_SNAPSHOTS = 10, 200
PROCESSES = 4
PASSWORD = "one of a test"
#: Rows of these classes should have a file in the snapshot and have none, and nothing tells why.
UNEXPLAINED = ("missing", "unreadable", "empty")


@dataclass(frozen=True)
class InUse:
    """An instance on a server, its writers, and where its snapshots go."""

    media: Path
    database_url: str
    app_version: str
    writers: Writers
    place: InstanceDirectory

    def snapshot(self, session: Any = None) -> dict[str, Any]:
        """Take a snapshot during which each writer finishes something between the dump and the media."""
        waited: list[Call] = []

        def wait(call: Call) -> None:
            if call.operation == "scan_media":
                waited.append(call)
                self.writers.wait_for(more=1)

        with WatchedSession(local_agent(), wait) as watched:
            take(self, self.place, watched, app_version=self.app_version)
        assert waited
        return self.place.select("latest").require_manifest().fields


def require_explained(manifest: dict[str, Any]) -> None:
    """Fail unless every row of a snapshot has its file, or a reason why not."""
    proof = manifest["proof"]
    unexplained = {name: proof["classes"][name] for name in UNEXPLAINED if proof["classes"][name]}
    assert not unexplained, (unexplained, proof["damaged"][:5])
    assert manifest["state"] == "complete"
    assert proof["proved"] == proof["expected"] > 0


def take_many(in_use: InUse, count: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Take snapshots that are all explained; returns the manifests and what was done between dumps and ends."""
    manifests = []
    during: Counter[str] = Counter()
    for number in range(count):
        manifest = in_use.snapshot()
        ended = time.time()
        require_explained(manifest)
        done = between(in_use.writers.operations(), manifest["database"]["dumped_at_ns"] / 1e9, ended)
        assert done.total() >= PROCESSES, (number, done)
        during += done
        manifests.append(manifest)
    return manifests, during


def a_tenth_of(manifests: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """The last of them, and others by chance."""
    chosen = rng.sample(manifests[:-1], max(0, len(manifests) // 10 - 1))
    return [*chosen, manifests[-1]]


def report(what: str, manifests: list[dict[str, Any]], during: Counter[str], opened: int) -> None:
    """Print what happened, for the log of a soak."""
    classes: Counter[str] = Counter()
    for manifest in manifests:
        classes.update(manifest["proof"]["classes"])
    changed = sum(manifest["proof"]["changed"] for manifest in manifests)
    print(f"\n{what}: {len(manifests)} snapshots, {opened} restored and opened; rows {dict(+classes)}")
    print(f"  {changed} changed originals reported; while they were taken: {dict(during)}")


@pytest.fixture
def rng() -> random.Random:
    return random.Random(int(os.environ["PAPERMERGE_BACKUP_SEED"]))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path


# -- Papermerge 2.0.2 -------------------------------------------------------------------------------------------------


@pytest.fixture
def papermerge_in_use(postgres_server: PostgresServer, disk: Path, rng: random.Random) -> Iterator[InUse]:
    name = "hot_papermerge"
    instance = PapermergeInstance.create_on_server(
        disk / "papermerge", installed_papermerge(), postgres_server, name, PASSWORD
    )
    instance.populate(documents=10)
    url = postgres_server.url(name, name, PASSWORD)
    with ExitStack() as stack:
        stack.callback(postgres_server.execute, f"drop role {name}")
        stack.callback(postgres_server.drop_database, name)
        writers = [
            stack.enter_context(instance.writer(rate=4, seed=rng.randrange(1 << 30), documents=15))
            for _number in range(PROCESSES)
        ]
        in_use = InUse(instance.media_root, url, "2.0.2", Writers(writers), place_in(disk / "repository"))
        in_use.writers.wait_for(more=5)
        yield in_use


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
    report("Papermerge 2.0.2", manifests, during, len(chosen))


def test_a_papermerge_in_use_by_four_processes_is_proved_and_opens(
    papermerge_in_use: InUse, postgres_server: PostgresServer, disk: Path, rng: random.Random
) -> None:
    use_papermerge(papermerge_in_use, postgres_server, disk, SNAPSHOTS, rng)


@pytest.mark.soak
def test_two_hundred_snapshots_of_a_papermerge_in_use_are_proved_and_open(
    papermerge_in_use: InUse, postgres_server: PostgresServer, disk: Path, rng: random.Random
) -> None:
    use_papermerge(papermerge_in_use, postgres_server, disk, SOAK_SNAPSHOTS, rng)


# -- the model of Papermerge 3.5 --------------------------------------------------------------------------------------


@pytest.fixture
def generated(postgres_server: PostgresServer, disk: Path) -> Iterator[GeneratedInstance]:
    name = "hot_model"
    made = generate("3.5", "postgresql", disk / "model", server=postgres_server, name=name, password=PASSWORD)
    postgres_server.execute(f"alter role {name} createdb")
    yield made
    postgres_server.drop_database(name)
    postgres_server.execute(f"drop role {name}")


@pytest.fixture
def model_in_use(generated: GeneratedInstance, disk: Path, rng: random.Random) -> Iterator[InUse]:
    environment = {**os.environ, "DATABASE_URL": generated.database_url}

    def command(log: Path, seed: int) -> list[str]:
        request = {"rate": 6, "seed": seed, "log": str(log), "media": str(generated.media), "documents": 15}
        return [sys.executable, "-m", "tests.support.model_writer", json.dumps(request)]

    with ExitStack() as stack:
        writers = []
        for _number in range(PROCESSES):
            seed = rng.randrange(1 << 30)
            writers.append(
                stack.enter_context(running_writer(lambda log, seed=seed: command(log, seed), CHECKOUT, environment))
            )
        in_use = InUse(
            generated.media, generated.database_url, generated.version, Writers(writers), place_in(disk / "repository")
        )
        in_use.writers.wait_for(more=10)
        yield in_use


def look_through_restored(
    in_use: InUse, generated: GeneratedInstance, server: PostgresServer, manifest: dict[str, Any], directory: Path
) -> None:
    """Restore a snapshot and look at every version as Papermerge would to open it: its file is there and whole."""
    number = manifest["sequence"]
    name, role = f"hot_model_restored_{number}", generated.database
    media = directory / f"restored-{number}" / "media"
    media.parent.mkdir()
    try:
        put_back(
            in_use.place,
            media,
            server.url(name, role, PASSWORD),
            snapshot=str(number),
            app_version=in_use.app_version,
        )
        rows = server.rows(
            "select v.id, v.file_name from document_versions v join nodes n on n.id = v.document_id"
            " where v.page_count > 0 and v.file_name is not null",
            name,
        )
    finally:
        server.drop_database(name)
    absent = [row for row in rows if not (media / path_of_version(*row)).is_file()]
    assert len(absent) == manifest["proof"]["classes"]["deleted_during_backup"]
    written = [row for row in rows if os.fsencode(path_of_version(*row)) not in generated.sha256 and row not in absent]
    assert len(written) > PROCESSES
    for version, file_name in written:
        path = media / path_of_version(version, file_name)
        assert is_whole(path.read_bytes(), version), path


def use_model(
    in_use: InUse,
    generated: GeneratedInstance,
    server: PostgresServer,
    directory: Path,
    count: int,
    rng: random.Random,
) -> None:
    manifests, during = take_many(in_use, count)
    wanted = {"create_only", "upload_pdf", "upload_image", "upload_again", "page_operation", "rename", "move", "delete"}
    assert set(during) >= wanted | {"interrupted_page_operation"}, during
    assert any(manifest["proof"]["classes"]["written_after_dump"] for manifest in manifests)
    assert any(manifest["proof"]["changed"] for manifest in manifests)
    chosen = a_tenth_of(manifests, rng)
    for manifest in chosen:
        look_through_restored(in_use, generated, server, manifest, directory)
    report("model of Papermerge 3.5", manifests, during, len(chosen))


def test_a_model_of_papermerge_3_5_in_use_by_four_processes_is_proved_and_opens(
    model_in_use: InUse, generated: GeneratedInstance, postgres_server: PostgresServer, disk: Path, rng: random.Random
) -> None:
    use_model(model_in_use, generated, postgres_server, disk, SNAPSHOTS, rng)


@pytest.mark.soak
def test_two_hundred_snapshots_of_the_model_in_use_are_proved_and_open(
    model_in_use: InUse, generated: GeneratedInstance, postgres_server: PostgresServer, disk: Path, rng: random.Random
) -> None:
    use_model(model_in_use, generated, postgres_server, disk, SOAK_SNAPSHOTS, rng)


def test_media_read_before_the_database_would_leave_rows_unexplained(
    model_in_use: InUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above rely on: the wrong order is seen."""
    require_explained(model_in_use.snapshot())

    def media_first(self: Any, found: Any, line: Any, archive: Any) -> Any:
        scan = self._read_media(line, archive)
        model_in_use.writers.wait_for(more=10)
        database, dump = self._read_database(found)
        return database, dump, scan

    monkeypatch.setattr(create._Create, "_read", media_first)
    manifest = model_in_use.snapshot()
    with pytest.raises(AssertionError, match="missing"):
        require_explained(manifest)
