# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of Papermerge 3.5 on PostgreSQL: its order of writes for files and rows, while snapshots are taken.

Page operations, uploads over them, and deletions are the ones that a backup can trip over.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils import create, settling
from tests.support.generated.instance import GeneratedInstance, generate
from tests.support.hot import (
    PROCESSES,
    SNAPSHOTS,
    SOAK_SNAPSHOTS,
    InUse,
    a_tenth_of,
    report,
    require_explained,
    take_many,
)
from tests.support.model_writer import is_whole, path_of_version
from tests.support.playbooks import CHECKOUT
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import place_in, put_back
from tests.support.writers import Writers, running_writer

PASSWORD = "one of a test"


@pytest.fixture
def generated(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[GeneratedInstance]:
    name = "hot_model"
    made = generate("3.5", "postgresql", tmp_path / "model", server=postgres_server, name=name, password=PASSWORD)
    postgres_server.execute(f"alter role {name} createdb")
    yield made
    postgres_server.drop_database(name)
    postgres_server.execute(f"drop role {name}")


@pytest.fixture
def model_in_use(generated: GeneratedInstance, tmp_path: Path, rng: random.Random) -> Iterator[InUse]:
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
            generated.media,
            generated.database_url,
            generated.version,
            Writers(writers),
            place_in(tmp_path / "repository"),
        )
        in_use.writers.wait_for(more=10)
        yield in_use
        in_use.writers.stop()


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
    report("model of Papermerge 3.5", in_use, manifests, during, chosen)


def test_a_model_of_papermerge_3_5_in_use_by_four_processes_is_proved_and_opens(
    model_in_use: InUse,
    generated: GeneratedInstance,
    postgres_server: PostgresServer,
    tmp_path: Path,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Still longer than the model takes for anything.
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 1.0)
    use_model(model_in_use, generated, postgres_server, tmp_path, SNAPSHOTS, rng)


@pytest.mark.soak
def test_two_hundred_snapshots_of_the_model_in_use_are_proved_and_open(
    model_in_use: InUse,
    generated: GeneratedInstance,
    postgres_server: PostgresServer,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    use_model(model_in_use, generated, postgres_server, tmp_path, SOAK_SNAPSHOTS, rng)


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
