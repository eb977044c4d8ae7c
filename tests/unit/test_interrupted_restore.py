# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that was killed between its renames: what the next one undoes, and what it must not touch."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent import placing
from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import OwnDirectory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import TargetError
from ansible_collections.papermerge.backup.plugins.module_utils.media.extract import Ownership
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.instances import MadeInstance
from tests.support.snapshots import WatchedSession, changed_agent, local_agent, put_back, take

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which only root can")


class Target:
    """A place for a restore; ``interrupt`` leaves it as a restore does that is killed between its renames."""

    def __init__(self, directory: Path) -> None:
        self.parent = directory
        self.media = directory / "media"
        self.database = directory / "db.sqlite3"
        directory.mkdir()

    def interrupt(self, files: dict[str, bytes]) -> Path:
        """Put media in place and leave the database in its directory of ours, which is returned."""
        database_stage = OwnDirectory(str(self.parent), placing.PURPOSE)
        rename = not self.media.exists()
        media_stage = OwnDirectory(str(self.parent if rename else self.media), placing.PURPOSE)
        Path(database_stage.inside(placing.DATABASE)).write_bytes(b"SQLite format 3\0")
        for name, content in files.items():
            path = Path(media_stage.inside(placing.MEDIA)) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        arguments: dict[str, Any] = {"directory_mode": 0o755, "directory_owner": [os.geteuid(), os.getegid(), "", ""]}
        journal = placing._dress_media(media_stage, rename, str(self.media), arguments, Ownership())
        # File systems count time in ticks of some milliseconds.
        time.sleep(0.02)
        Path(database_stage.inside(placing.JOURNAL)).write_text(json.dumps(journal))
        placing._place_media(media_stage, journal)
        time.sleep(0.02)
        database_stage.close()
        media_stage.close()
        return Path(database_stage.path)

    def ours(self) -> list[Path]:
        return list(self.parent.rglob(".papermerge-backup.*"))


@pytest.fixture
def target(disk: Path) -> Target:
    return Target(disk / "target")


@pytest.fixture
def stored(instance: MadeInstance, place: InstanceDirectory) -> InstanceDirectory:
    instance.add_document()
    take(instance, place)
    return place


def restore(stored: InstanceDirectory, target: Target) -> dict[str, Any]:
    return put_back(stored, target.media, target.database)


def make_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table mine (a)")
        connection.commit()


@pytest.mark.parametrize("kept", [False, True], ids=["renamed", "filled in place"])
def test_the_next_restore_undoes_it_and_succeeds(stored: InstanceDirectory, target: Target, kept: bool) -> None:
    if kept:
        target.media.mkdir()
    target.interrupt({"docs/old.pdf": b"old", "results/x.txt": b"x"})
    result = restore(stored, target)
    assert result["undone"] == [str(target.media)]
    assert not (target.media / "docs" / "old.pdf").exists()
    assert result["files"] == sum(path.is_file() for path in target.media.rglob("*"))
    assert target.ours() == []


def test_media_beside_which_a_database_has_appeared_stay(stored: InstanceDirectory, target: Target) -> None:
    target.interrupt({"docs/old.pdf": b"old"})
    make_database(target.database)
    (target.media / "docs" / "upload.pdf").write_bytes(b"new")
    with pytest.raises(TargetError, match=r"interrupted.*but database .* is not empty"):
        restore(stored, target)
    assert (target.media / "docs" / "upload.pdf").read_bytes() == b"new"
    assert (target.media / "docs" / "old.pdf").read_bytes() == b"old"


@pytest.mark.parametrize("kept", [False, True], ids=["renamed", "filled in place"])
def test_media_to_which_somebody_has_written_since_stay(stored: InstanceDirectory, target: Target, kept: bool) -> None:
    if kept:
        target.media.mkdir()
    target.interrupt({"docs/old.pdf": b"old"})
    (target.media / "docs" / "upload.pdf").write_bytes(b"new")
    with pytest.raises(TargetError, match=r"docs/upload\.pdf.*was written after that"):
        restore(stored, target)
    assert (target.media / "docs" / "upload.pdf").read_bytes() == b"new"


def test_media_that_are_not_those_of_the_journal_stay(stored: InstanceDirectory, target: Target) -> None:
    target.interrupt({"docs/old.pdf": b"old"})
    shutil.move(target.media, target.parent / "aside")
    (target.media / "docs").mkdir(parents=True)
    (target.media / "docs" / "other.pdf").write_bytes(b"other")
    with pytest.raises(TargetError, match="is not what it had put there"):
        restore(stored, target)
    assert (target.media / "docs" / "other.pdf").read_bytes() == b"other"


def test_a_restore_with_other_settings_does_not_touch_it(stored: InstanceDirectory, target: Target) -> None:
    target.interrupt({"docs/old.pdf": b"old"})
    with pytest.raises(TargetError, match="restore with the same settings first"):
        put_back(stored, target.parent / "elsewhere", target.database)
    assert (target.media / "docs" / "old.pdf").read_bytes() == b"old"


@ROOT_ONLY
def test_a_journal_that_another_user_has_planted_is_not_believed(stored: InstanceDirectory, target: Target) -> None:
    secret = target.parent.parent / "secret"
    secret.mkdir(mode=0o700)
    planted = target.parent / ".papermerge-backup.restore-planted"
    planted.mkdir(mode=0o700)
    (planted / placing.DATABASE).write_bytes(b"")
    (planted / placing.JOURNAL).write_text(
        json.dumps(
            {
                "media_root": str(target.media),
                "media_stage": str(secret),
                "rename": True,
                "media_existed": True,
                "media_mode": 0o777,
                "media_ids": [65534, 65534],
                "items": {"": [0, 0]},
            }
        )
    )
    for path in (planted, *planted.iterdir()):
        os.chown(path, 65534, 65534)
    restore(stored, target)
    assert (secret.stat().st_mode & 0o777, secret.stat().st_uid) == (0o700, 0)
    assert planted.exists()


def test_a_database_that_appears_while_data_is_synced_is_not_overwritten(
    stored: InstanceDirectory, target: Target
) -> None:
    def appear(call: Any) -> None:
        # As late as a test can be from outside: the agent looks once more after this.
        if call.operation == "place":
            make_database(target.database)

    with WatchedSession(local_agent(), appear) as session, pytest.raises(TargetError, match="is not empty"):
        put_back(stored, target.media, target.database, session)
    with closing(sqlite3.connect(target.database)) as connection:
        assert connection.execute("select count(*) from mine").fetchone() == (0,)
    assert not target.media.exists()


def test_a_database_that_appears_during_the_sync_itself_is_not_overwritten(
    stored: InstanceDirectory, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = f"import sqlite3; c = sqlite3.connect({str(target.database)!r})"
    program = f"{connect}; c.execute('create table if not exists mine (a)')"
    old = "    def sync_file_system(self) -> None:\n"
    new = f"    def sync_file_system(self) -> None:\n        {program}; c.commit(); c.close()\n        return\n"
    with changed_agent(monkeypatch, "agent.workspace", old, new), pytest.raises(TargetError, match="is not empty"):
        restore(stored, target)
    with closing(sqlite3.connect(target.database)) as connection:
        assert connection.execute("select count(*) from mine").fetchone() == (0,)
    assert not target.media.exists()
    assert target.ours() == []
