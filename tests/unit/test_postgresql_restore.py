# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of instances on PostgreSQL, restored onto servers: the same rows, rights, settings, order of characters."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql import programs
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.target import PostgresTarget
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DamageError,
    DatabaseError,
    TargetError,
    ToolError,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.generated.instance import COMBINATIONS, generate
from tests.support.postgresql import (
    LINE,
    OwnDatabase,
    make_database,
    other_place,
    our_sessions,
    own_database,
    remove_role,
    start_dump,
)
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.releases import clients_of
from tests.support.snapshots import interpreter_without_module, local_agent, put_back, take, verify


class Made:
    """An instance whose database is on a server."""

    def __init__(self, own: OwnDatabase, media: Path, documents: int = 3) -> None:
        self.own = own
        self.media = media
        media.mkdir(parents=True)
        self.documents = [own.add_document(media) for _number in range(documents)]

    @property
    def database_url(self) -> str:
        return self.own.url

    def elsewhere(self, name: str = "") -> OwnDatabase:
        """Return the place of a restore beside the source."""
        own = self.own
        return Elsewhere(own.server, own.name, own.password, name or own.name + "_restored")


class Elsewhere(OwnDatabase):
    """Another database of the same owner."""

    def __init__(self, server: PostgresServer, user: str, password: str, database: str) -> None:
        super().__init__(server, user, password)
        object.__setattr__(self, "database_name", database)

    @property
    def url(self) -> str:
        name: str = self.__dict__["database_name"]
        return self.server.url(name, self.name, self.password)


@pytest.fixture
def own(own_postgres_server: PostgresServer) -> Iterator[OwnDatabase]:
    with own_database(own_postgres_server, attributes="createdb") as made:
        yield made


@pytest.fixture
def made(own: OwnDatabase, disk: Path) -> Made:
    return Made(own, disk / "instance" / "media")


@contextmanager
def watching(secrets: list[str]) -> Iterator[set[bytes]]:
    """Collect the argument lists of all processes; at the end none may hold a secret."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for name in os.listdir("/proc"):
                if name.isdigit():
                    with suppress(OSError):
                        seen.add(Path("/proc", name, "cmdline").read_bytes())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()
    for secret in secrets:
        assert not any(os.fsencode(secret) in line for line in seen)


@pytest.mark.parametrize("way", ["psycopg2", "psql"])
def test_a_snapshot_comes_back_as_it_was(made: Made, place: InstanceDirectory, disk: Path, way: str) -> None:
    python = None if way == "psycopg2" else interpreter_without_module("psycopg2", disk)
    target = made.elsewhere()
    with watching(made.own.place.secrets) as seen:
        with local_agent(python) as session:
            take(made, place, session)
        with local_agent(python) as session:
            result = put_back(place, disk / "restored", target.url, session)
    assert any(b"pg_dump" in line for line in seen)
    assert any(b"pg_restore" in line for line in seen)
    if way == "psql":
        assert any(b"psql\0-X\0-q" in line for line in seen)
    assert result["proved"] == result["row_counts"]["core_document"] == 3
    name = target.place.name
    for number in made.documents:
        assert (disk / "restored" / "docs" / "user_1" / f"document_{number}" / "scan.pdf").exists()
    query = "select basetreenode_ptr_id::text from core_document order by 1"
    assert made.own.server.rows(query, name) == made.own.server.rows(query, made.own.name)
    assert made.own.server.databases() == sorted([made.own.name, name, "postgres"])
    assert our_sessions(made.own.server) == []


@pytest.mark.parametrize("line", [line for line, engine in COMBINATIONS if engine == "postgresql"])
def test_every_release_line(
    own_postgres_server: PostgresServer, place: InstanceDirectory, disk: Path, line: str
) -> None:
    name = "line_" + line.replace(".", "_").replace("-", "_")
    generated = generate(
        line, "postgresql", disk / "instance", server=own_postgres_server, name=name, large_text=1 << 12
    )
    try:
        own_postgres_server.execute(f'alter role "{name}" createdb')
        url = generated.database_url + "_restored"
        take(generated, place, app_version=generated.version)
        deep = verify(place, "deep")
        result = put_back(place, disk / "restored", url, app_version=generated.version)
        assert deep["proved"] == result["proved"] == generated.expected_rows
        assert deep["row_counts_compared"] == len(result["row_counts"])
        assert result["row_counts"] == {table: generated.counts[table] for table in result["row_counts"]}
        for table, number in generated.counts.items():
            assert own_postgres_server.count(f'"{table}"', name + "_restored") == number
    finally:
        remove_role(own_postgres_server, name)


def test_settings_grants_and_locale_come_back(own: OwnDatabase, disk: Path) -> None:
    server, reader = own.server, own.name + "_reader"
    server.execute(f"create role {reader}")
    source = own.name + "_source"
    options = "template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'"
    server.create_database(source, own.name, options)
    settings = {
        "search_path": "'$user', 'My, \"app\"', public",
        "work_mem": "'5MB'",
        "DateStyle": "'SQL, DMY'",
        "temp_tablespaces": "''",
        "application_name": "'it''s, \"quoted\" \\ so'",
        "papermerge.odd": "'a,b'",
        "default_transaction_read_only": "on",
        "statement_timeout": "'50ms'",
    }
    for name, value in settings.items():
        server.execute(f'alter database "{source}" set {name} to {value}')
    server.execute(f'alter role "{own.name}" in database "{source}" set work_mem = \'6MB\'')
    server.execute(f'revoke all on database "{source}" from public')
    server.execute(f'grant connect on database "{source}" to {reader} with grant option')
    elsewhere = Elsewhere(server, own.name, own.password, source)
    try:
        with start_dump(elsewhere) as dump:
            content = b"".join(dump.content())
        target = PostgresTarget(other_place(own.place, name=own.name + "_restored"), "a test")
        with pytest.raises(TargetError, match=r"may not set papermerge\.odd of a database") as caught:
            target.require_fit(dump.facts)
        server.execute(caught.value.message.partition("can run: ")[2])
        target.require_fit(dump.facts)
        stage = target.stage(dump.facts)
        target.load(stage, iter([content]))
        target.put_in_place(stage, dump.facts)
        described = (
            "select pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba), datacl,"
            " shobj_description(oid, 'pg_database') from pg_database where datname = '{0}'"
        )
        assert server.rows(described.format(target.place.name)) == server.rows(described.format(source))
        query = (
            "select unnest(setconfig) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase"
            " where datname = '{0}' and setrole = 0 order by 1"
        )
        expected = [
            ("work_mem=6MB",) if row[0].startswith("work_mem=") else row for row in server.rows(query.format(source))
        ]
        assert len(expected) == len(settings)
        assert server.rows(query.format(target.place.name)) == expected
    finally:
        server.drop_database(source)
        server.drop_database(own.name + "_restored")
        server.execute(f"drop role {reader}")


def test_a_database_without_own_grants_is_open_to_all_again(own: OwnDatabase) -> None:
    with start_dump(own) as dump:
        content = b"".join(dump.content())
    target = PostgresTarget(other_place(own.place, name=own.name + "_restored"), "a test")
    stage = target.stage(dump.facts)
    query = "select has_database_privilege('pg_monitor', '{0}', 'connect')"
    assert own.server.rows(query.format(stage)) == [("f",)]
    target.load(stage, iter([content]))
    target.put_in_place(stage, dump.facts)
    assert own.server.rows(query.format(target.place.name)) == [("t",)]


def test_tables_in_a_schema_of_the_roles_search_path_are_found_after_a_restore(
    made: Made, place: InstanceDirectory, disk: Path
) -> None:
    own = made.own
    own.as_owner("create schema app")
    for (table,) in own.server.rows("select tablename from pg_tables where schemaname = 'public'", own.name):
        own.as_owner(f"alter table {table} set schema app")
    own.alter_role("set search_path = app")
    take(made, place)
    assert verify(place, "deep")["proved"] == 3
    own.alter_role("reset search_path")
    target = made.elsewhere()
    put_back(place, disk / "restored", target.url)
    with target.database.view() as view:
        assert view.row_counts(LINE)["core_document"] == 3


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def garble(content: bytes) -> bytes:
    position = content.index(b"scan.pdf")
    return content[:position] + b"\t\t\t\n" + content[position + 4 :]


@pytest.mark.parametrize("damage", [cut, garble, lambda content: b"select 1;\n" + content, lambda _content: b""])
def test_a_damaged_dump_never_becomes_the_database(own: OwnDatabase, damage: Callable[[bytes], bytes]) -> None:
    own.add_document()
    with start_dump(own) as dump:
        content = b"".join(dump.content())
    target = PostgresTarget(other_place(own.place, name=own.name + "_restored"), "a test")
    stage = target.stage(dump.facts)
    with pytest.raises((DatabaseError, DamageError)):
        target.load(stage, iter([damage(content)]))
    assert target.place.name not in own.server.databases()
    target.discard(stage)
    assert own.server.databases() == [own.name, "postgres"]


def test_a_constraint_that_fails_leaves_nothing(made: Made, place: InstanceDirectory, disk: Path) -> None:
    made.own.execute(
        "set session_replication_role = replica; insert into core_document values (999, 'x.pdf', 0, '', 0)"
    )
    take(made, place)
    before = sorted(path for path in disk.rglob("*") if "repository" not in path.parts)
    with pytest.raises(DatabaseError, match=r"cannot be restored.*foreign key constraint"):
        put_back(place, disk / "new" / "restored", made.elsewhere().url)
    assert sorted(path for path in disk.rglob("*") if "repository" not in path.parts) == before
    assert made.own.server.databases() == [made.own.name, "postgres"]
    assert our_sessions(made.own.server) == []


def test_what_is_not_empty_stays(made: Made, place: InstanceDirectory, disk: Path) -> None:
    take(made, place)
    with pytest.raises(TargetError, match=r"is not empty: it holds public\.core_basetreenode"):
        put_back(place, disk / "restored", made.own.url)
    target = made.elsewhere()
    made.own.server.create_database(target.place.name, made.own.name)
    put_back(place, disk / "restored", target.url)
    with pytest.raises(TargetError, match="is not empty"):
        put_back(place, disk / "again", target.url)
    assert made.own.server.count("core_document", target.place.name) == 3
    assert not (disk / "again").exists()


def test_a_staging_database_in_use_is_not_taken_for_abandoned(own: OwnDatabase) -> None:
    """The media of a large instance take hours, in which nothing is asked of the database."""
    first = PostgresTarget(other_place(own.place, name=own.name + "_restored"), "a test")
    second = PostgresTarget(other_place(own.place, name=own.name + "_restored"), "a test")
    stage = first.stage({})
    assert second.abandoned() == []
    first._release()
    end = time.monotonic() + 5
    while second.abandoned() != [stage] and time.monotonic() < end:
        time.sleep(0.05)
    assert second.abandoned() == [stage]
    other = PostgresTarget(other_place(own.place, name=own.name + "_other"), "a test")
    assert other.abandoned() == []
    second.discard(stage)
    assert own.server.databases() == [own.name, "postgres"]


@pytest.mark.parametrize("damage", [None, cut, garble])
def test_a_dump_of_a_newer_client_goes_onto_an_older_server(
    damage: Callable[[bytes], bytes] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_restore of 17 and later speaks of a setting that a server of 16 does not know, and stops there."""
    monkeypatch.setattr(programs, "PROGRAM_DIRECTORIES", (str(clients_of(18)),))
    monkeypatch.setattr(programs, "client_version", only_18(programs.client_version))
    with PostgresServer(16) as server:
        own = make_database(server, attributes="createdb")
        own.add_document()
        own.as_owner("create function f() returns text language sql as $$ select 'SET transaction_timeout = 0;\n' $$")
        own.alter_role("set default_transaction_read_only = on")
        with start_dump(own) as dump:
            content = b"".join(dump.content())
        assert " 18" in dump.facts["client"]
        target = PostgresTarget(other_place(own.place, name="restored"), "a test")
        target.require_fit(dump.facts)
        stage = target.stage(dump.facts)
        if damage is None:
            target.load(stage, iter([content]))
            target.put_in_place(stage, dump.facts)
            assert server.count("core_document", "restored") == 1
            assert server.rows("select f()", "restored") == [("SET transaction_timeout = 0;\n",)]
        else:
            with pytest.raises((DatabaseError, DamageError), match="cannot be restored"):
                target.load(stage, iter([damage(content)]))
            target.discard(stage)
            assert server.databases() == [own.name, "postgres"]
        assert our_sessions(server) == []


def only_18(version: Callable[..., Any]) -> Callable[..., Any]:
    def look(client: Any, program: str) -> Any:
        if (tool := version(client, program)).major != 18:
            raise ToolError("not installed")
        return tool

    return look
