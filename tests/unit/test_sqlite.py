# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite: a copy of one moment under a writing process, and an answer for every file that is no such database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import OwnDirectory
from ansible_collections.papermerge.backup.plugins.module_utils.database import sqlite
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DatabaseError,
    SettingError,
    SpaceError,
    TargetError,
    UnsupportedError,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.instances import MadeInstance
from tests.support.snapshots import changed_agent, local_agent, put_back, take, unprivileged_agent, verify

#: Adds a row to each of two tables in one transaction, as fast as it can, until it is ended.
WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
print("writing", flush=True)
while True:
    connection.execute("begin immediate")
    connection.execute("insert into core_tag (name) values (hex(randomblob(40)))")
    connection.execute("insert into auth_group (name) values (hex(randomblob(40)))")
    connection.execute("commit")
    time.sleep(float(sys.argv[2]))
"""
#: Takes a lock, says so, and keeps it.
LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin " + sys.argv[2])
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(program: str, *arguments: str) -> Iterator[None]:
    running = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline()
        yield
    finally:
        running.kill()
        running.communicate()


def fill(instance: MadeInstance, rows: int) -> None:
    with closing(instance.connect()) as connection:
        connection.execute("begin")
        connection.executemany(
            "insert into core_page (number, page_count, text, document_id) values (1, 1, ?, 1)",
            (("x" * 2000,) for _row in range(rows)),
        )
        connection.execute("commit")


def quick_check(path: Path) -> str:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return str(connection.execute("pragma quick_check").fetchone()[0])


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_copy_under_a_writing_process_is_of_one_moment(
    disk: Path, journal_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "STEP_PAGES", 50)
    instance = MadeInstance(disk / "busy", journal_mode=journal_mode)
    fill(instance, 2000)
    copy = disk / "copy.sqlite3"
    reported: list[tuple[int, int]] = []
    with process(WRITER, str(instance.database), "0.001"):
        while instance.count("core_tag") < 20:
            time.sleep(0.01)
        before = instance.count("core_tag")
        report = sqlite.copy_database(str(instance.database), str(copy), lambda *step: reported.append(step))
        after = instance.count("core_tag")
    assert report.journal_mode == journal_mode
    assert report.size == copy.stat().st_size
    assert quick_check(copy) == "ok"
    assert before <= count(copy, "core_tag") <= after
    assert count(copy, "core_tag") == count(copy, "auth_group")
    assert count(copy, "core_page") == 2000
    assert copy.stat().st_mode & 0o777 == 0o600
    assert reported[-1][0] == reported[-1][1]


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_copy_that_is_restarted_too_often_ends_in_one_locking_step(
    disk: Path, journal_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "STEP_PAGES", 50)
    instance = MadeInstance(disk / "busy", journal_mode=journal_mode)
    fill(instance, 200)
    with closing(instance.connect()) as writer:
        writer.execute("pragma synchronous = off")

        def write(done: int, total: int) -> None:
            if done < total:
                writer.execute("insert into core_tag (name) values ('between two steps')")

        report = sqlite.copy_database(str(instance.database), str(disk / "copy"), write)
    assert report.restarts == sqlite.RESTARTS + 1
    assert report.locked_seconds > 0
    assert quick_check(disk / "copy") == "ok"
    assert count(disk / "copy", "core_tag") == instance.count("core_tag")


def test_a_copy_of_a_resting_database_takes_no_lock_and_no_restart(instance: MadeInstance, disk: Path) -> None:
    fill(instance, 100)
    begun = time.time_ns()
    report = sqlite.copy_database(str(instance.database), str(disk / "copy"), lambda *_step: None)
    assert (report.restarts, report.locked_seconds) == (0, 0.0)
    assert begun <= report.moment_ns <= time.time_ns()
    assert quick_check(disk / "copy") == "ok"


def test_what_stands_in_the_write_ahead_log_only_is_copied(disk: Path) -> None:
    instance = MadeInstance(disk / "wal", journal_mode="wal")
    with closing(instance.connect()) as connection:
        connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute("insert into core_tag (name) values ('in the log')")
        assert (disk / "wal" / "db" / "db.sqlite3-wal").stat().st_size > 0
        sqlite.copy_database(str(instance.database), str(disk / "copy"), lambda *_step: None)
    assert count(disk / "copy", "core_tag") == 1


def test_the_whole_way_under_a_writing_process(disk: Path, place: InstanceDirectory) -> None:
    instance = MadeInstance(disk / "busy", journal_mode="wal")
    instance.add_document()
    fill(instance, 5000)
    with process(WRITER, str(instance.database), "0"):
        snapshot = take(instance, place)
    manifest = place.select("latest").require_manifest()
    assert manifest.database["restarts"] == snapshot["database_restarts"]
    assert manifest.database["locked_seconds"] == snapshot["database_locked_seconds"]
    verify(place, "deep")
    put_back(place, disk / "media", disk / "db.sqlite3")
    assert count(disk / "db.sqlite3", "core_tag") == manifest.row_counts["core_tag"]


@pytest.mark.parametrize("lock", ["exclusive", "immediate"])
def test_a_locked_database_is_waited_for_and_then_named(
    instance: MadeInstance, disk: Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_PATIENCE", 0.5)
    with process(LOCKER, str(instance.database), lock):
        begun = time.monotonic()
        if lock == "immediate":
            # Somebody who is about to write keeps nobody from reading.
            sqlite.copy_database(str(instance.database), str(disk / "copy"), lambda *_step: None)
            return
        with pytest.raises(DatabaseError, match="locked") as caught:
            sqlite.copy_database(str(instance.database), str(disk / "copy"), lambda *_step: None)
        assert str(instance.database) in caught.value.message
        assert 0.4 < time.monotonic() - begun < 10
        name = str(instance.database)
        with sqlite.DatabaseFile(name, name, live=True) as database, pytest.raises(DatabaseError, match="locked"):
            database.tables()


def test_a_lock_that_comes_between_two_steps_is_named_too(
    instance: MadeInstance, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_PATIENCE", 0.5)
    monkeypatch.setattr(sqlite, "STEP_PAGES", 20)
    fill(instance, 500)
    lockers = []

    def lock(_done: int, _total: int) -> None:
        if not lockers:
            lockers.append(process(LOCKER, str(instance.database), "exclusive"))
            lockers[0].__enter__()

    try:
        with pytest.raises(DatabaseError, match=r"locked by another process"):
            sqlite.copy_database(str(instance.database), str(disk / "copy"), lock)
    finally:
        lockers[0].__exit__(None, None, None)


def test_a_locked_database_fails_a_create_which_leaves_nothing(
    instance: MadeInstance, place: InstanceDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.add_document()
    with (
        process(LOCKER, str(instance.database), "exclusive"),
        changed_agent(monkeypatch, "database.sqlite", "LOCK_PATIENCE = 60.0", "LOCK_PATIENCE = 0.3"),
        local_agent() as session,
        pytest.raises(DatabaseError, match="locked by another process"),
    ):
        take(instance, place, session)
    assert place.snapshot_names() == []
    assert take(instance, place)["state"] == "complete"


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 100] = b"\xa5" * 100
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def miscount(path: Path) -> None:
    """Let the head of the file name free pages that are not there: every query still answers."""
    content = bytearray(path.read_bytes())
    content[36:40] = (7).to_bytes(4, "big")
    path.write_bytes(content)


WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "does not exist; set papermerge_backup_database_url"),
    "empty": (lambda path: os.truncate(path, 0), "is empty; set papermerge_backup_database_url"),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "is a directory; set papermerge_backup_database_url"),
    "text": (lambda path: path.write_text("text"), "is not an SQLite database"),
    "only a head": (lambda path: os.truncate(path, 16), "is damaged|cannot be read"),
    "malformed": (spoil, "is damaged"),
    "damaged where no query goes": (miscount, "is damaged: (?s:.*)[Ff]reelist"),
    "cut short": (cut, "is damaged"),
    "of something else": (
        lambda path: (path.unlink(), sqlite3.connect(path).executescript("create table x (a);").close()),
        "is not one of Papermerge 2.0: it has no table core_basetreenode, core_document, django_migrations",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_what_is_no_papermerge_database_is_named(instance: MadeInstance, place: InstanceDirectory, name: str) -> None:
    instance.add_document()
    fill(instance, 50)
    change, words = WRONG_FILES[name]
    change(instance.database)
    with pytest.raises(DatabaseError, match=words) as caught:
        take(instance, place)
    assert str(instance.database) in caught.value.message
    assert place.snapshot_names() == []
    assert not [entry for entry in os.listdir(instance.database.parent) if entry.startswith(".papermerge-backup.")]


def test_a_database_that_the_agent_may_not_read_is_named(open_disk: Path, place: InstanceDirectory) -> None:
    instance = MadeInstance(open_disk / "instance")
    instance.add_document()
    instance.database.chmod(0)
    with unprivileged_agent() as session, pytest.raises(DatabaseError, match=r"cannot be read: .*Permission denied"):
        take(instance, place, session)


def test_a_database_that_the_agent_may_only_read_is_copied_to_where_it_may_write(
    open_disk: Path, place: InstanceDirectory
) -> None:
    instance = MadeInstance(open_disk / "instance")
    instance.add_document()
    for path in (instance.database.parent, instance.database):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (open_disk / "copies").mkdir()
    (open_disk / "copies").chmod(0o777)
    with unprivileged_agent() as session, pytest.raises(SettingError, match="cannot make a directory in"):
        take(instance, place, session)
    with unprivileged_agent() as session:
        take(instance, place, session, copy_dir=str(open_disk / "copies"))
    assert list((open_disk / "copies").iterdir()) == []


def test_the_copy_of_a_killed_run_is_removed_by_the_next_and_that_of_a_running_one_is_not(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    instance.add_document()
    folder = instance.database.parent
    killed = OwnDirectory(str(folder), "copy")
    (Path(killed.path) / "database.sqlite3").write_bytes(b"x" * 10_000)
    killed.close()
    running = OwnDirectory(str(folder), "copy")
    stranger = folder / ".papermerge-backup.other"
    stranger.mkdir()
    take(instance, place)
    assert not os.path.exists(killed.path)
    assert os.path.isdir(running.path)
    assert stranger.is_dir()
    running.remove()
    assert not os.path.exists(running.path)


def test_the_copy_is_made_where_the_user_says_and_never_in_memory(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    instance.add_document()
    with pytest.raises(SettingError, match=r"papermerge_backup_copy_dir.* does not exist"):
        take(instance, place, copy_dir=str(disk / "nowhere"))
    if os.path.ismount("/dev/shm"):
        with pytest.raises(SpaceError, match=r"/dev/shm is on a tmpfs.*papermerge_backup_copy_dir"):
            take(instance, place, copy_dir="/dev/shm")
    (disk / "copies").mkdir()
    take(instance, place, copy_dir=str(disk / "copies"))
    assert list((disk / "copies").iterdir()) == []
    assert len(place.snapshot_names()) == 1


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////srv/pm/db.sqlite3", "/srv/pm/db.sqlite3"),
        ("sqlite:////srv/pm/a%20b%3F.sqlite3", "/srv/pm/a b?.sqlite3"),
        ("sqlite:////srv//pm/../db.sqlite3", "/srv/db.sqlite3"),
        ("sqlite+pysqlite:////srv/db.sqlite3", "/srv/db.sqlite3"),
    ],
)
def test_a_database_url_names_a_place(url: str, path: str) -> None:
    place = parse_database_url(url, "here")
    assert (place.engine, place.path) == ("sqlite", path)
    assert parse_database_url(place.url, "here").path == path or "%" in url


@pytest.mark.parametrize("url", ["sqlite:///relative.db", "sqlite://host/db", "sqlite:", "/srv/db", "", "oracle://x/y"])
def test_a_database_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match=r"papermerge\.conf\.py"):
        parse_database_url(url, "papermerge.conf.py")


def test_another_engine_is_refused_without_telling_its_password(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    with pytest.raises(UnsupportedError, match="does not run on mysql") as caught:
        take(instance, place, database_url="mysql://user:secret@host:5432/db", app_version="3.5.3")
    assert "secret" not in caught.value.message


def test_a_database_with_an_odd_name_is_copied(disk: Path, place: InstanceDirectory) -> None:
    instance = MadeInstance(disk / "odd ?#%41\n'name")
    instance.add_document()
    assert take(instance, place)["originals"] == 1
    assert place.select("latest").require_manifest().database["path"] == str(instance.database)


@pytest.mark.parametrize("what", ["a table", "not SQLite", "a hot journal", "a log"])
def test_a_restore_refuses_a_target_with_a_database(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, what: str
) -> None:
    instance.add_document()
    take(instance, place)
    target = disk / "target" / "db.sqlite3"
    target.parent.mkdir()
    if what == "a table":
        sqlite3.connect(target).executescript("create table x (a);").close()
    elif what == "not SQLite":
        target.write_bytes(b"notes")
    else:
        target.with_name(target.name + ("-journal" if what == "a hot journal" else "-wal")).write_bytes(b"x" * 600)
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    with pytest.raises(TargetError, match="is not empty"):
        put_back(place, disk / "target" / "media", target)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before


def test_a_restore_takes_a_place_with_an_empty_database(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    instance.add_document()
    take(instance, place)
    (disk / "media").mkdir()
    target = disk / "db.sqlite3"
    sqlite3.connect(target).executescript("pragma user_version = 1;").close()
    target.chmod(0o640)
    put_back(place, disk / "media", target)
    assert count(target, "core_document") == 1
    assert target.stat().st_mode & 0o777 == 0o640
