# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversations with a real PostgreSQL server, through psycopg2 and through psql: the same values, in any session."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql import session as sessions
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.session import (
    SETTINGS,
    PsqlSession,
    Session,
    connect,
    quote_text,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DatabaseError
from tests.support.postgresql import WAYS, OwnDatabase, other_place, our_sessions, own_database, start_dump
from tests.support.servers.postgres import PostgresServer, literal

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
BOTH_WAYS = pytest.mark.parametrize("way", list(WAYS))
#: Values that COPY, psql, SQL and terminals treat as theirs.
NASTY = [
    "",
    "plain",
    "a\tb\nc\rd\be\ff\vg",
    "back\\slash \\n \\N \\. \\\\",
    "\\N",
    "\\.",
    "quote ' double \" dollar $$ :variable :'x' :\"y\"",
    "Ünïcode 漢字 \U0001f600 \u2028 \x85",
    "\\echo end-of-answer\n\\q",
    "end-of-answer-",
    " leading and trailing ",
    "x" * 300_000,
]
ODD_SETTINGS = {
    "statement_timeout": "1s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "default_transaction_read_only": "on",
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "row_security": "on",
    "client_encoding": "LATIN1",
    "client_min_messages": "log",
    "default_transaction_isolation": "serializable",
    "DateStyle": "SQL, DMY",
}


@pytest.fixture
def own(postgres_server: PostgresServer) -> Iterator[OwnDatabase]:
    with own_database(postgres_server) as made:
        yield made


@BOTH_WAYS
def test_every_value_comes_as_it_is(own: OwnDatabase, way: str) -> None:
    own.as_owner("create table nasty (number int, value text)")
    rows = ", ".join(f"({number}, {literal(value)})" for number, value in enumerate(NASTY))
    own.as_owner(f"insert into nasty values {rows}, (99, null)")
    with WAYS[way](own.place) as session:
        found = list(session.rows("select number, value from nasty order by number"))
        assert found == [*((str(number), value) for number, value in enumerate(NASTY)), ("99", None)]
        for value in NASTY:
            assert (
                list(session.rows(f"select number from nasty where value = {quote_text(value)} and number < 99")) != []
            )


@BOTH_WAYS
def test_bytes_that_are_no_text_come_through(postgres_server: PostgresServer, way: str) -> None:
    options = "template template0 encoding 'SQL_ASCII' locale 'C'"
    with own_database(postgres_server, "create table t (v text)", options) as own:
        own.as_owner("set client_encoding = 'SQL_ASCII'; insert into t values (E'caf\\xe9.pdf'), ('plain')")
        with WAYS[way](own.place) as session:
            found = [str(row[0]) for row in session.rows("select v from t order by 1")]
        assert [os.fsencode(name) for name in found] == [b"caf\xe9.pdf", b"plain"]


@BOTH_WAYS
def test_names_of_a_latin1_database_come_as_unicode(postgres_server: PostgresServer, way: str) -> None:
    options = "template template0 encoding 'LATIN1' locale 'C'"
    with own_database(postgres_server, "create table t (v text)", options) as own:
        own.as_owner("insert into t values ('Käse.pdf')")
        with WAYS[way](own.place) as session:
            assert session.value("select v from t") == "Käse.pdf"


@BOTH_WAYS
def test_a_long_answer_is_streamed(own: OwnDatabase, way: str) -> None:
    with WAYS[way](own.place) as session:
        before = resident_kib()
        highest = count = 0
        last = None
        for row in session.rows("select n, repeat('x', 200) from generate_series(1, 300000) n"):
            count, last = count + 1, row[0]
            if not count % 10_000:
                highest = max(highest, resident_kib())
        assert (count, last) == (300_000, "300000")
        assert highest - before < 16 << 10
        assert session.value("select 'next'") == "next"


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 10


@BOTH_WAYS
def test_what_the_role_has_set_does_not_matter(own: OwnDatabase, way: str) -> None:
    for name, value in ODD_SETTINGS.items():
        own.alter_role(f"set {name} = '{value}'")
    if own.server.major >= 14:
        own.alter_role("set idle_session_timeout = '1s'")
    with WAYS[way](own.place) as session:
        found = dict(session.rows("select name, setting from pg_settings"))
        assert {name: value for name, value in found.items() if name in SETTINGS} == {
            name: value for name, value in SETTINGS.items() if name in found
        }
        assert session.value("select pg_sleep(1.3)::text || 'Käse \\\\'") == "Käse \\\\"
        session.execute("begin")
        session.execute("create table made (v text)")
        session.execute(f"insert into made values ({quote_text(NASTY[3])})")
        session.execute("commit")
        assert session.value("select v from made") == NASTY[3]


@BOTH_WAYS
def test_an_error_is_told_and_ends_nothing_silently(own: OwnDatabase, way: str) -> None:
    with WAYS[way](own.place) as session, pytest.raises(DatabaseError, match="division by zero"):
        list(session.rows("select 1 / (3 - n) from generate_series(1, 10) n"))
    with WAYS[way](own.place) as session, pytest.raises(DatabaseError, match='table "nothing" does not exist'):
        session.execute("drop table nothing")
    assert our_sessions(own.server) == []


@BOTH_WAYS
def test_the_rest_of_an_answer_is_never_the_next_one(own: OwnDatabase, way: str) -> None:
    session = WAYS[way](own.place)
    rows = session.rows("select n from generate_series(1, 1000000) n")
    assert next(rows) == ("1",)
    rows.close()  # type: ignore[attr-defined]
    try:
        assert session.value("select 'next'") == "next"
    except DatabaseError:
        pass  # the connection is gone, which is as good
    session.close()
    assert our_sessions(own.server) == []


def test_without_psycopg2_the_server_is_reached_all_the_same(own: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(own.place) as session:
        assert not isinstance(session, PsqlSession)
    monkeypatch.setattr(sessions, "psycopg2", None)
    with connect(own.place) as session:
        assert isinstance(session, PsqlSession)
        assert session.value("select current_user") == own.name


@BOTH_WAYS
def test_a_password_can_come_from_pgpass(
    own: OwnDatabase, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = other_place(own.place, password="")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DatabaseError, match="refuses the login"):
        WAYS[way](place)
    word = own.password.replace("\\", "\\\\").replace(":", "\\:")
    entry = tmp_path / ".pgpass"
    entry.touch(mode=0o600)
    entry.write_text(f"*:*:{own.name}:{own.name}:{word}\n", encoding="utf-8")
    monkeypatch.setenv("PGPASSFILE", str(entry))
    with WAYS[way](place) as session:
        assert session.value("select current_user") == own.name


@ROOT_ONLY
def test_root_becomes_the_user_that_a_socket_wants_to_see() -> None:
    account = next(entry for entry in pwd.getpwall() if entry.pw_name in ("nobody", "daemon"))
    with PostgresServer(tcp=False) as server:
        server.create_role(account.pw_name)
        server.create_database("papermerge", account.pw_name)
        server.execute("create table t (v text)", "papermerge", role=account.pw_name)
        rules = "local all postgres trust\nlocal all all peer\n"
        (server.data / "pg_hba.conf").write_text(rules, encoding="ascii")
        server.execute("select pg_reload_conf()")
        place = DatabasePlace(
            "postgresql", name="papermerge", host=str(server.socket), port=server.port, user=account.pw_name
        )
        with connect(place) as session:
            assert session.value("select current_user") == account.pw_name
        own = OwnPeer(server, "papermerge", place)
        with start_dump(own) as dump:  # type: ignore[arg-type]
            assert b"".join(dump.content()).startswith(b"PGDMP")


class OwnPeer(OwnDatabase):
    """A database that is reached without a password."""

    def __init__(self, server: PostgresServer, name: str, place: DatabasePlace) -> None:
        super().__init__(server, name)
        object.__setattr__(self, "_place", place)

    @property
    def place(self) -> DatabasePlace:
        found: DatabasePlace = self.__dict__["_place"]
        return found


def test_a_session_is_one_of_ours_by_name(own: OwnDatabase) -> None:
    sessions_open: list[Session] = [WAYS[way](own.place) for way in WAYS]
    try:
        query = "select application_name from pg_stat_activity where datname = current_database()"
        names = {str(row[0]) for row in sessions_open[0].rows(query)}
    finally:
        for session in sessions_open:
            session.close()
    assert names == {"papermerge.backup"}
    assert our_sessions(own.server) == []
