# SPDX-License-Identifier: GPL-3.0-or-later
"""A Papermerge that is being used while it is backed up: the snapshot is whole, and another one opens all of it."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.papermerge.install import installed_papermerge
from tests.support.papermerge.instance import PapermergeInstance
from tests.support.playbooks import PlaybookRun, Playbooks
from tests.support.writers import Writer, deleted_after, under_way

LOCAL: dict[str, Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
JOURNAL_MODES: tuple[Literal["wal", "delete"], ...] = ("wal", "delete")


@dataclasses.dataclass(frozen=True)
class Hot:
    """Two instances, one for each way SQLite keeps its journal, backed up twice while they were being used."""

    playbooks: Playbooks
    creates: list[PlaybookRun]
    verified: PlaybookRun
    restored: PlaybookRun
    before: dict[str, dict[str, Any]]
    operations: dict[str, list[dict[str, Any]]]
    done: dict[str, list[int]]
    directory: Path

    def place(self, journal_mode: str, number: int) -> Path:
        """Where the snapshot with this number was restored."""
        return self.directory / f"{journal_mode}-{number}"


def operations_until(writer: Writer, count: int) -> int:
    """Wait until the writer has done so many things, and return how many it has."""
    deadline = time.monotonic() + 60
    while len(writer.operations()) < count:
        assert time.monotonic() < deadline, "the writer does nothing"
        time.sleep(0.05)
    return len(writer.operations())


@pytest.fixture(scope="module")
def hot(tmp_path_factory: pytest.TempPathFactory) -> Hot:
    directory = tmp_path_factory.mktemp("hot")
    playbooks = Playbooks(directory / "home")
    before: dict[str, dict[str, Any]] = {}
    operations: dict[str, list[dict[str, Any]]] = {}
    done: dict[str, list[int]] = {}
    inventory: dict[str, dict[str, Any]] = {}
    targets: dict[str, dict[str, Any]] = {}
    creates = []
    with ExitStack() as stack:
        writers = {}
        for mode in JOURNAL_MODES:
            source = PapermergeInstance.create(directory / f"{mode}-source", installed_papermerge(), mode)
            source.populate(documents=10)
            before[mode] = source.contents()
            inventory[mode] = {**LOCAL, "papermerge_backup_project_dir": str(source.directory)}
            writers[mode] = stack.enter_context(source.writer(rate=20))
            done[mode] = [operations_until(writers[mode], 10)]
        for number in (1, 2):
            creates.append(playbooks.run("create", inventory))
            for mode, writer in writers.items():
                done[mode].append(operations_until(writer, done[mode][-1] + 1))
                place = directory / f"{mode}-{number}"
                place.mkdir()
                targets[place.name] = {
                    **LOCAL,
                    "papermerge_backup_source": mode,
                    "papermerge_backup_snapshot": str(number),
                    "papermerge_backup_media_root": str(place / "media"),
                    "papermerge_backup_database_url": f"sqlite:///{place}/db.sqlite3",
                    "papermerge_backup_app_version": "2.0.2",
                }
        for mode, writer in writers.items():
            assert writer.stop()["operations"]["upload"] > 0
            operations[mode] = writer.operations()
    verified = playbooks.run("verify", {}, extra={"papermerge_backup_verify_level": "deep"})
    restored = playbooks.run("restore", targets)
    return Hot(playbooks, creates, verified, restored, before, operations, done, directory)


def test_a_papermerge_in_use_is_backed_up_and_goes_on(hot: Hot) -> None:
    for run in hot.creates:
        assert (run.results(), run.status) == ({"wal": "ok", "delete": "ok"}, 0), str(run)
    for counts in hot.done.values():
        assert counts[0] < counts[1] < counts[2]


def test_its_snapshots_are_sound_and_can_be_restored(hot: Hot) -> None:
    assert {row["result"] for row in hot.verified.rows} == {"sound"}, str(hot.verified)
    assert set(hot.restored.results().values()) == {"ok"}, str(hot.restored)
    assert hot.verified.status == hot.restored.status == 0


@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
@pytest.mark.parametrize("number", [1, 2])
def test_papermerge_opens_every_document_of_its_snapshots(
    hot: Hot, tmp_path: Path, journal_mode: str, number: int
) -> None:
    manifest = json.loads((hot.playbooks.snapshots(journal_mode)[number - 1] / "manifest.json").read_bytes())
    assert manifest["database"]["journal_mode"] == journal_mode
    assert manifest["proof"]["classes"].get("missing", 0) == 0

    empty = PapermergeInstance.create(tmp_path / "opened", installed_papermerge())
    empty.media_root.rmdir()
    (hot.place(journal_mode, number) / "media").rename(empty.media_root)
    (hot.place(journal_mode, number) / "db.sqlite3").rename(empty.database)
    report = empty.open_every_document(check=False)
    operations, moment = hot.operations[journal_mode], manifest["database"]["dumped_at_ns"] / 1e9
    changing, deleted = under_way(operations, moment), deleted_after(operations, moment)
    lost = 0
    for failure in report.failures:
        if failure.problem.startswith("it has page rows"):
            assert failure.what.startswith(changing), (failure, changing)
        else:
            # The snapshot is of the moment of the dump, but nobody can read a file that was deleted since.
            assert failure.what.startswith(deleted), (failure, deleted)
            lost += "its file does not exist" in failure.problem
    assert lost == manifest["proof"]["classes"].get("deleted_during_backup", 0)
    found, before = empty.contents(), hot.before[journal_mode]
    assert report.documents == manifest["totals"]["documents"] > len(before["documents"])
    # Nobody touched these, so they are what they were.
    assert {name: found["documents"].get(name) for name in before["documents"]} == before["documents"]
    assert {name: found["files"].get(name) for name in before["files"]} == before["files"]
