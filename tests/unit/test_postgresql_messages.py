# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a PostgreSQL server, each with its own message, and no message with a password."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace, parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql import programs
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.dump import PostgresDatabase
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.messages import explain
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.target import PostgresTarget
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    DatabaseError,
    SettingError,
    SpaceError,
    ToolError,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.postgresql import (
    PASSWORD,
    WAYS,
    OwnDatabase,
    make_database,
    other_place,
    our_sessions,
    own_database,
    start_dump,
)
from tests.support.servers.pgbouncer import PgBouncer
from tests.support.servers.postgres import ACCESS, PostgresServer
from tests.support.servers.process import free_port
from tests.support.servers.releases import clients_of
from tests.support.snapshots import MediaAndDatabase, interpreter_without, interpreter_without_module, local_agent, take

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which only root can")
BOTH_WAYS = pytest.mark.parametrize("way", list(WAYS))
WRONG = "wr0ng:p@ss/word%2F'\"\\"


@pytest.fixture
def own(postgres_server: PostgresServer) -> Iterator[OwnDatabase]:
    with own_database(postgres_server) as made:
        yield made


def refused(way: str, place: DatabasePlace) -> str:
    """Return the message with which a place is refused."""
    with pytest.raises(DatabaseError) as caught:
        WAYS[way](place)
    message = caught.value.message
    for secret in place.secrets:
        assert secret not in message
    return message


@BOTH_WAYS
def test_a_wrong_password(own: OwnDatabase, way: str) -> None:
    message = refused(way, other_place(own.place, password=WRONG))
    assert "the server refuses the login; correct the user and password" in message
    assert f'password authentication failed for user "{own.name}"' in message


@BOTH_WAYS
def test_no_password_at_all(own: OwnDatabase, way: str) -> None:
    assert "the server refuses the login" in refused(way, other_place(own.place, password=""))


@BOTH_WAYS
def test_a_role_that_is_not_there(own: OwnDatabase, way: str) -> None:
    # A server that wants a password does not tell which of the two is wrong.
    assert "the server refuses the login" in refused(way, other_place(own.place, user="nobody_here"))
    place = other_place(own.place, user="nobody_here", password="", host=str(own.server.socket))
    (own.server.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    own.server.execute("select pg_reload_conf()")
    try:
        assert "the server has no such role" in refused(way, place)
    finally:
        (own.server.data / "pg_hba.conf").write_text(ACCESS, encoding="ascii")
        own.server.execute("select pg_reload_conf()")


@BOTH_WAYS
def test_a_database_that_is_not_there(own: OwnDatabase, way: str) -> None:
    assert "the server has no such database; correct the URL's name" in refused(
        way, other_place(own.place, name="nothing_here")
    )


@BOTH_WAYS
def test_a_port_that_nobody_listens_on(own: OwnDatabase, way: str) -> None:
    message = refused(way, other_place(own.place, port=free_port()))
    assert "the server cannot be reached; is it running, and are host and port right?" in message


@BOTH_WAYS
def test_a_socket_that_is_not_there_and_a_host_without_address(own: OwnDatabase, way: str, tmp_path: Path) -> None:
    assert "the server cannot be reached" in refused(way, other_place(own.place, host=str(tmp_path)))
    assert "the server cannot be reached" in refused(way, other_place(own.place, host="nothing.invalid"))


@BOTH_WAYS
def test_encryption_that_the_server_does_not_have(own: OwnDatabase, way: str) -> None:
    message = refused(way, other_place(own.place, options=(("sslmode", "require"), ("sslpassword", "h1dden"))))
    assert "the connection cannot be encrypted as asked" in message
    assert "h1dden" not in message


@BOTH_WAYS
def test_a_server_without_a_connection_left(way: str) -> None:
    settings = {"max_connections": "5", "superuser_reserved_connections": "2", "max_wal_senders": "0"}
    with PostgresServer(settings=settings) as server:
        own = make_database(server)
        held = [WAYS["psycopg2"](own.place) for _number in range(3)]
        assert "the server has no connection left" in refused(way, own.place)
        for session in held:
            session.close()


@BOTH_WAYS
def test_a_pooler_that_does_not_know_the_database(own: OwnDatabase, way: str) -> None:
    with PgBouncer(own.server, {own.name: own.password}) as bouncer:
        place = parse_database_url(bouncer.url("nothing_here", own.name), "a test")
        assert "nothing_here" in refused(way, place)


def test_a_table_that_may_not_be_read(own: OwnDatabase) -> None:
    own.execute(f'create table secret (a int); revoke all on secret from public, "{own.name}"')
    words = r"the account has not enough rights.*permission denied for table secret"
    with pytest.raises(DatabaseError, match=words), start_dump(own):
        pass
    assert our_sessions(own.server) == []


def test_a_server_that_is_newer_than_every_client(place: InstanceDirectory, tmp_path: Path) -> None:
    newest = max(tool.major for tool in programs.tools(programs.client_of(DatabasePlace("postgresql")), "pg_dump"))
    if newest >= 18:
        pytest.skip("the newest client that can be had is installed")
    with PostgresServer(18) as server:
        own = make_database(server)
        (tmp_path / "media").mkdir()
        with pytest.raises(ToolError, match=rf"is of PostgreSQL {newest}, older than the server's 18 .*client-18"):
            take(MediaAndDatabase(tmp_path / "media", own.url), place)
        assert our_sessions(own.server) == []


def test_the_client_that_fits_best_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    directories = tuple(str(clients_of(major)) for major in (18, 13, 16))
    monkeypatch.setattr(programs, "PROGRAM_DIRECTORIES", directories)
    monkeypatch.setenv("PATH", "/nowhere")
    client = programs.client_of(DatabasePlace("postgresql"))
    installed = {tool.major for tool in programs.tools(client, "pg_dump")}
    assert installed >= {13, 16, 18}
    for server, wanted in ((12, 13), (13, 13), (16, 16), (17, 18), (18, 18)):
        found = programs.dump_tool(client, DatabasePlace("postgresql"), server).major
        assert found == min(major for major in installed if major >= server)
        assert found <= wanted
    assert programs.restore_tool(client, 12, 16).major == 16
    assert programs.restore_tool(client, 12, 13).major == 13
    assert programs.restore_tool(client, 12, 14).major == min(major for major in installed if major >= 14)
    assert programs.restore_tool(client, 17, 16).major == min(major for major in installed if major >= 17)
    with pytest.raises(ToolError, match="older than the server's 19"):
        programs.dump_tool(client, DatabasePlace("postgresql"), 19)


@pytest.mark.parametrize("program", ["pg_dump", "psql"])
def test_a_client_that_is_not_installed(own: OwnDatabase, place: InstanceDirectory, disk: Path, program: str) -> None:
    (disk / "media").mkdir()
    python = interpreter_without(program, disk)
    if program == "psql":
        python = interpreter_without_module("psycopg2", disk, python)
    message = "has no program pg_dump; install postgresql-client" if program == "pg_dump" else "neither .* nor .*psql"
    with local_agent(python) as session, pytest.raises(ToolError, match=message):
        take(MediaAndDatabase(disk / "media", own.url), place, session)
    assert our_sessions(own.server) == []
    assert not place.path.exists() or place.snapshot_names() == []


def test_a_server_that_is_killed_while_it_is_dumped() -> None:
    with PostgresServer() as server:
        own = make_database(server)
        own.as_owner("create table large as select n, repeat(md5(n::text), 60) as t from generate_series(1, 20000) n")
        with pytest.raises(DatabaseError, match="the server ended the connection"), start_dump(own) as dump:
            for number, _piece in enumerate(dump.content()):
                if number == 3:
                    server.kill()


def test_a_dump_whose_own_server_process_is_killed() -> None:
    with PostgresServer() as server:
        own = make_database(server)
        own.as_owner("create table large as select n, repeat(md5(n::text), 60) as t from generate_series(1, 20000) n")
        with pytest.raises(DatabaseError, match="the server ended the connection"), start_dump(own) as dump:
            for number, _piece in enumerate(dump.content()):
                if number == 3:
                    query = (
                        "select pid from pg_stat_activity where application_name in ('pg_dump', 'papermerge.backup')"
                    )
                    query += " and query like 'COPY%'"
                    os.kill(int(server.execute(query)), signal.SIGKILL)


@BOTH_WAYS
def test_a_server_that_is_killed_while_rows_are_read(way: str) -> None:
    with PostgresServer() as server:
        own = make_database(server)
        with WAYS[way](own.place) as session:
            rows = session.rows("select n, repeat('x', 1000) from generate_series(1, 1000000) n")
            next(rows)
            server.kill()
            with pytest.raises(DatabaseError, match="the server ended the connection"):
                for _row in rows:
                    pass


@BOTH_WAYS
def test_a_server_that_is_stopped_while_nobody_asks(way: str) -> None:
    with PostgresServer() as server:
        own = make_database(server)
        with WAYS[way](own.place) as session:
            server.stop()
            with pytest.raises(DatabaseError, match="the server ended the connection"):
                session.value("select 1")


@ROOT_ONLY
def test_a_server_without_room(tmp_path: Path) -> None:
    with PostgresServer() as server:
        small = server.directory / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "papermerge-test", small], check=True)
        try:
            server.own(small)
            server.execute(f"create tablespace small location '{small}'")
            own = make_database(server, attributes="createdb")
            rows = "select n, repeat(md5(n::text), 60) as t from generate_series(1, 9000) n"
            own.as_owner("create table large as " + rows)
            with start_dump(own) as dump:
                content = list(dump.content())
            target = PostgresTarget(other_place(own.place, name="restored"), "a test")
            stage = target.stage(dump.facts)
            target._release()
            server.execute(f'alter database "{stage}" set tablespace small')
            with pytest.raises(SpaceError, match="the server has no room left; free some"):
                target.load(stage, iter(content))
            target.discard(stage)
            assert server.databases() == [own.name, "postgres"]
        finally:
            server.stop()
            subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@[127.0.0.1/papermerge",
        "postgresql://u:s3cret@127.0.0.1:port/papermerge",
        "postgresql://u:s3cret@127.0.0.1",
        "postgresql://u@127.0.0.1/papermerge?password=s3cret&port=x",
        "postgresq://u:s3cret@127.0.0.1/papermerge",
    ],
)
def test_a_url_that_cannot_be_read_shows_no_password(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_database_url(url, "a test")
    assert "s3cret" not in caught.value.message


def test_words_of_a_client_lose_every_spelling_of_a_password() -> None:
    place = DatabasePlace("postgresql", name="papermerge", user="papermerge", password=PASSWORD)
    words = f"bad DSN: password={PASSWORD} postgresql://papermerge:{quote(PASSWORD, safe='')}@h {quote(PASSWORD)}"
    error: BackupError = explain(place, "read", words)
    for text in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), "s3cr"):
        assert text not in error.message
    assert PASSWORD not in repr(place) and PASSWORD not in place.url


def test_a_check_finds_a_server_that_is_too_slow_to_answer() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        place = DatabasePlace("postgresql", name="x", host="127.0.0.1", port=silent.getsockname()[1], user="u")
        place = other_place(place, options=(("connect_timeout", "2"),))
        began = time.monotonic()
        with pytest.raises(DatabaseError, match="the server cannot be reached"):
            PostgresDatabase(place, "a test").check()
        assert time.monotonic() - began < 10
