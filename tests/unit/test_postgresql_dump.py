# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump of a PostgreSQL database and what is read beside it are of one moment, whatever others do meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql import dump as dumping
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DatabaseError
from tests.support.postgresql import (
    LINE,
    TAKE_DOCUMENT,
    OwnDatabase,
    connect,
    our_sessions,
    own_database,
    start_dump,
    write_dump,
)
from tests.support.servers.pgbouncer import PgBouncer
from tests.support.servers.postgres import PostgresServer


@pytest.fixture
def own(postgres_server: PostgresServer) -> Iterator[OwnDatabase]:
    with own_database(postgres_server) as made:
        yield made


def loaded(own: OwnDatabase, dump: Path, table: str, key: str) -> list[str]:
    """Return the keys of a table as a dump holds them, by loading it."""
    name = own.name + "_again"
    own.server.create_database(name, own.name)
    try:
        own.server.load(dump, name, own.name)
        return [row[0] for row in own.server.rows(f"select {key} from {table} order by 1", name)]
    finally:
        own.server.drop_database(name)


def test_what_is_written_after_the_moment_is_in_neither(own: OwnDatabase, tmp_path: Path) -> None:
    before = own.add_document()
    with start_dump(own) as dump:
        own.add_document()
        own.as_owner("delete from core_page; update core_document set file_name = 'other.pdf'")
        path = write_dump(dump, tmp_path / "dump")
        with dump.view() as view:
            assert view.row_counts(LINE)["core_document"] == 1
            assert [row.path for row in view.expected_rows(LINE)] == [b"docs/user_1/document_%d/scan.pdf" % before]
    assert loaded(own, path, "core_document", "basetreenode_ptr_id") == [str(before)]
    assert loaded(own, path, "core_document", "file_name") == ["scan.pdf"]


@contextmanager
def writing(own: OwnDatabase) -> Iterator[list[int]]:
    """Let somebody commit documents all the time. Yields a list whose length tells how many."""
    stop = threading.Event()
    made: list[int] = []

    def write() -> None:
        connection = connect(own)
        with connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(TAKE_DOCUMENT)
                made.append(int(cursor.fetchone()[0]))  # type: ignore[index]
                if not len(made) % 7:
                    cursor.execute("delete from core_document where basetreenode_ptr_id = %s", (made[-3],))
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(made) < 50:
            time.sleep(0.01)
        yield made
    finally:
        stop.set()
        writer.join()


def test_rows_and_counts_are_those_of_the_dump_while_others_write(own: OwnDatabase, tmp_path: Path) -> None:
    with writing(own) as made:
        for number in range(3):
            with start_dump(own) as dump:
                path = write_dump(dump, tmp_path / f"dump{number}")
                so_far = len(made)
                while len(made) < so_far + 20:
                    time.sleep(0.005)
                with dump.view() as view:
                    counts = view.row_counts(LINE)
                    keys = sorted(row.key for row in view.expected_rows(LINE))
            assert keys == sorted(loaded(own, path, "core_document", "basetreenode_ptr_id"))
            assert counts["core_document"] == len(keys)
            assert counts["core_basetreenode"] == len(loaded(own, path, "core_basetreenode", "id"))


def test_without_the_snapshot_option_the_same_test_fails(
    own: OwnDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = dumping.client_of

    class Forgetful:
        def __init__(self, client: object) -> None:
            self._client = client

        def __getattr__(self, name: str) -> object:
            return getattr(self._client, name)

        def start(self, argv: list[str]) -> object:
            return self._client.start([word for word in argv if not word.startswith("--snapshot=")])  # type: ignore[attr-defined]

    monkeypatch.setattr(dumping, "client_of", lambda place: Forgetful(start(place)))
    with pytest.raises(AssertionError):
        test_what_is_written_after_the_moment_is_in_neither(own, tmp_path)


@pytest.mark.parametrize(
    "change", ["truncate core_document cascade", "alter table core_document add column a int default random() * 9"]
)
def test_what_would_change_the_moment_itself_waits(own: OwnDatabase, change: str) -> None:
    own.add_document()
    with start_dump(own) as dump:
        with connect(own) as migration, migration.cursor() as cursor:
            cursor.execute("set lock_timeout = '200ms'")
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                cursor.execute(change)
        b"".join(dump.content())
        with dump.view() as view:
            assert view.row_counts(LINE)["core_document"] == 1
    own.as_owner(change)


def test_a_migration_that_waits_ends_a_dump_instead_of_both_waiting_forever(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumping, "LOCK_SECONDS", 1)
    migration = connect(own)

    def migrate() -> None:
        with suppress(psycopg2.Error), migration.cursor() as cursor:
            cursor.execute("alter table core_document add column a int")

    worker = threading.Thread(target=migrate)
    waits = "select count(*) from pg_locks where not granted"
    with start_dump(own) as dump:
        worker.start()
        while own.execute(waits).strip() == "0":
            time.sleep(0.01)
        with pytest.raises(DatabaseError, match="a table is being changed, as by a migration"):
            b"".join(dump.content())
    worker.join()
    migration.close()


def test_a_table_that_is_being_changed_is_not_waited_for_forever(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumping, "LOCK_SECONDS", 1)
    migration = connect(own)
    with migration.cursor() as cursor:
        cursor.execute("begin; lock table core_page in access exclusive mode")
        with pytest.raises(DatabaseError, match="a table is being changed"), start_dump(own):
            pass
    migration.close()
    assert our_sessions(own.server) == []


def test_timeouts_of_the_role_end_neither_session_nor_dump(own: OwnDatabase) -> None:
    own.as_owner("create table large as select n, repeat(md5(n::text), 60) as text from generate_series(1, 20000) n")
    names = ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"]
    names += ["idle_session_timeout"] if own.server.major >= 14 else []
    names += ["transaction_timeout"] if own.server.major >= 17 else []
    for name in names:
        own.alter_role(f"set {name} = '600ms'")
    with start_dump(own) as dump:
        time.sleep(1)
        pieces = dump.content()
        size = len(next(pieces))
        # pg_dump stands in the middle of a COPY now: what a pipe holds is far less than the table.
        time.sleep(1)
        size += sum(map(len, pieces))
        assert size > 30 << 20
        time.sleep(1)
        with dump.view() as view:
            assert view.row_counts(LINE)["core_user"] == 1


def test_rows_that_a_policy_hides_are_an_error_and_not_left_out(own: OwnDatabase) -> None:
    own.as_owner(
        "alter table core_user enable row level security; alter table core_user force row level security;"
        " create policy mine on core_user using (username = 'nobody')"
    )
    with own.database.view() as view, pytest.raises(DatabaseError, match=r"has not enough rights.*row-level security"):
        view.row_counts(LINE)
    with start_dump(own) as dump, pytest.raises(DatabaseError, match="has not enough rights"):
        b"".join(dump.content())


def test_tables_are_found_where_the_role_finds_them(postgres_server: PostgresServer) -> None:
    with own_database(postgres_server, "") as own:
        own.as_owner('create schema "My, app"; create table core_user (id int)')
        own.alter_role('set search_path = "My, app", public')
        connection = connect(own)
        with connection.cursor() as cursor:
            cursor.execute("create table core_user (id int); insert into core_user values (1), (2)")
        connection.close()
        with start_dump(own) as dump:
            b"".join(dump.content())
            with dump.view() as view:
                assert view.tables() == ("core_user",)
                assert view.row_counts(LINE) == {"core_user": 2}
            assert dump.facts["schemas"] == ["My, app", "public"]
            assert dump.facts["search_path"] == '"My, app", public'


def test_no_session_is_left_whatever_happened(own: OwnDatabase) -> None:
    with start_dump(own) as dump:
        b"".join(dump.content())
    assert our_sessions(own.server) == []
    own.as_owner("create table large as select n, repeat('x', 500) from generate_series(1, 20000) n")
    with start_dump(own) as dump:
        pieces = dump.content()
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    assert our_sessions(own.server) == []
    with pytest.raises(ZeroDivisionError), start_dump(own) as dump, dump.view() as view:
        for _row in view.rows("select n from generate_series(1, 100000) n"):
            raise ZeroDivisionError
    assert our_sessions(own.server) == []


@pytest.mark.parametrize("size", [1, 2, 20])
def test_a_transaction_pooler_is_refused(own: OwnDatabase, size: int) -> None:
    with pooled(own, "transaction", size) as url:
        place = dumping.PostgresDatabase(parse_database_url(url, "a test"), "a test")
        with pytest.raises(DatabaseError, match="connection pooler in transaction mode"):
            place.check()
        with pytest.raises(DatabaseError, match="connection pooler in transaction mode"):
            start = place.dump(LINE, lambda _parent, _size: str, lambda _done, _total: None)
            with start:
                pass


def test_a_session_pooler_serves_a_dump(own: OwnDatabase, tmp_path: Path) -> None:
    number = own.add_document()
    with pooled(own, "session", 5) as url:
        database = dumping.PostgresDatabase(parse_database_url(url, "a test"), "a test")
        database.check()
        with database.dump(LINE, lambda _parent, _size: str, lambda _done, _total: None) as dump:
            own.add_document()
            path = write_dump(dump, tmp_path / "dump")
            with dump.view() as view:
                assert [row.key for row in view.expected_rows(LINE)] == [str(number)]
    assert loaded(own, path, "core_document", "basetreenode_ptr_id") == [str(number)]


@contextmanager
def pooled(own: OwnDatabase, mode: str, size: int) -> Iterator[str]:
    with PgBouncer(own.server, {own.name: own.password}, mode, size) as bouncer:  # type: ignore[arg-type]
        yield bouncer.url(own.name, own.name)


def test_no_password_stands_in_an_argument_list(own: OwnDatabase) -> None:
    own.as_owner("create table large as select n, repeat('x', 500) from generate_series(1, 20000) n")
    seen = set()
    with start_dump(own) as dump:
        for _piece in dump.content():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    with suppress(OSError):
                        seen.add((entry / "cmdline").read_bytes())
            time.sleep(0.02)
            if any(b"pg_dump" in line and b"--snapshot=" in line for line in seen):
                break
    assert any(b"pg_dump" in line and b"--snapshot=" in line for line in seen)
    for secret in own.place.secrets:
        assert not any(os.fsencode(secret) in line for line in seen)
