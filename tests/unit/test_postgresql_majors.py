# SPDX-License-Identifier: GPL-3.0-or-later
"""Every major release of PostgreSQL there is a server of: dumps, deep verification, restores, also between releases."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql import programs
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.archive import (
    ArchiveHead,
    read_head,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.dump import OLDEST_SERVER
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.target import PostgresTarget
from ansible_collections.papermerge.backup.plugins.module_utils.errors import TargetError, ToolError
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.generated.instance import generate
from tests.support.postgresql import LINE, OwnDatabase, make_database, other_place, our_sessions, start_dump
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.process import ServerError
from tests.support.servers.releases import MAJORS, clients_of
from tests.support.snapshots import MediaAndDatabase, interpreter_without_module, local_agent, put_back, take, verify

#: A release line of Papermerge for each, so that each meets other kinds of tables, functions and triggers.
LINES = {12: "3.3", 13: "2.0", 14: "3.5", 15: "3.4", 16: "2.1", 17: "3.6", 18: "3.6"}


@pytest.fixture(autouse=True)
def clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client programs of every release on PATH, for the controller's deep verification as well as for agents."""
    directories = {str(clients_of(major)): None for major in MAJORS}
    monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], *directories]))


def test_there_is_a_server_of_every_major_that_is_supported() -> None:
    assert MAJORS == tuple(range(OLDEST_SERVER, 19)) == tuple(LINES)


@pytest.mark.parametrize("way", ["psycopg2", "psql"])
@pytest.mark.parametrize("major", MAJORS)
def test_a_papermerge_on_every_major(place: InstanceDirectory, disk: Path, major: int, way: str) -> None:
    python = None if way == "psycopg2" else interpreter_without_module("psycopg2", disk)
    with PostgresServer(major) as server:
        generated = generate(LINES[major], "postgresql", disk / "instance", server=server, name="papermerge")
        server.execute("alter role papermerge createdb; alter role papermerge set default_transaction_read_only = on")
        with local_agent(python) as session:
            take(generated, place, session, app_version=generated.version)
        database = place.select("latest").require_manifest().fields["database"]
        assert database["server_version"].split(".")[0].split(" ")[-1] == str(major)
        deep = verify(place, "deep")
        url = generated.database_url + "_restored"
        with local_agent(python) as session:
            result = put_back(place, disk / "restored", url, session, app_version=generated.version)
        assert deep["proved"] == result["proved"] == generated.expected_rows
        assert deep["row_counts_compared"] == len(result["row_counts"])
        for table, number in generated.counts.items():
            assert server.count(f'"{table}"', "papermerge_restored") == number
        assert our_sessions(server) == []


def moved(
    source: PostgresServer, to: PostgresServer, place: InstanceDirectory, disk: Path, options: str = ""
) -> OwnDatabase:
    """Back up from one server and restore onto another."""
    own = make_database(source, options=options)
    media = disk / "instance" / "media"
    for _number in range(3):
        own.add_document(media)
    own.as_owner("create table odd (v text); insert into odd values ('a'), ('B'), ('ä'), ('z')")
    there = make_database(to, "", attributes="createdb")
    with local_agent() as session:
        take(MediaAndDatabase(media, own.url), place, session)
    to.drop_database(there.name)
    with local_agent() as session:
        result = put_back(place, disk / "restored", there.url, session)
    assert result["proved"] == 3
    assert to.count("core_document", there.name) == 3
    order = "select v from odd order by v"
    assert to.rows(order, there.name) == source.rows(order, own.name)
    assert our_sessions(source) == our_sessions(to) == []
    return there


@pytest.mark.parametrize("major", [12, 14, 18])
def test_no_timeout_of_any_release_ends_a_dump(major: int) -> None:
    with PostgresServer(major) as server:
        own = make_database(server)
        own.as_owner("create table large as select repeat(md5(n::text), 60) as text from generate_series(1, 20000) n")
        names = ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"]
        later = "('idle_session_timeout', 'transaction_timeout')"
        names += [row[0] for row in server.rows(f"select name from pg_settings where name in {later}")]
        for name in names:
            own.alter_role(f"set {name} = '600ms'")
        with start_dump(own) as dump:
            time.sleep(1)
            assert len(b"".join(dump.content())) > 20000 * 60 * 32
            time.sleep(1)
            with dump.view() as view:
                assert view.row_counts(LINE)["core_user"] == 1


@pytest.mark.parametrize("majors", [(12, 14), (12, 18), (13, 18), (14, 16)])
def test_from_an_older_server_to_a_newer_one(place: InstanceDirectory, disk: Path, majors: tuple[int, int]) -> None:
    with PostgresServer(majors[0]) as source, PostgresServer(majors[1]) as to:
        moved(source, to, place, disk)


def test_a_dump_that_an_older_client_would_stumble_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump of 15 writes down the schema public of a server of 14, which pg_restore of 13 then makes once more."""
    with PostgresServer(14) as server:
        own = make_database(server, attributes="createdb")
        with start_dump(own) as dump:
            content = b"".join(dump.content())
        assert read_head(iter([content]))[0] == ArchiveHead(reader=12, loader=15)
        old = str(clients_of(13) / "pg_restore")
        monkeypatch.setattr(programs.Client, "find_all", lambda *_arguments: [old])
        target = PostgresTarget(other_place(own.place, name="restored"), "a test")
        words = r"made by pg_dump of PostgreSQL 15 or later.*install postgresql-client-15"
        with pytest.raises(TargetError, match=words):
            target.require_fit(dump.facts)
        stage = target.stage(dump.facts)
        with pytest.raises(ToolError, match=words):
            target.load(stage, iter([content]))
        target.discard(stage)


@pytest.mark.parametrize("majors", [(15, 15), (15, 17), (16, 16), (16, 18), (17, 17), (18, 18)])
def test_an_order_of_icu_is_kept(place: InstanceDirectory, disk: Path, majors: tuple[int, int]) -> None:
    with PostgresServer(majors[0]) as source, PostgresServer(majors[1]) as to:
        options = "template template0 locale_provider icu icu_locale 'de-u-kf-upper' locale 'C.UTF-8'"
        if majors[0] >= 16:
            options += " icu_rules '&z < a'"
        there = moved(source, to, place, disk, options)
        column = "datlocale" if majors[1] >= 17 else "daticulocale"
        query = f"select datlocprovider, {column} from pg_database where datname = '{there.name}'"
        assert to.rows(query) == [("i", "de-u-kf-upper")]


def test_a_server_without_icu_is_told_so() -> None:
    with PostgresServer(16, icu=False) as server:
        with pytest.raises(ServerError, match="ICU is not supported in this build"):
            server.create_database("icu", options="template template0 locale_provider icu icu_locale 'de'")
        bare = make_database(server, "", attributes="createdb")
        target = PostgresTarget(other_place(bare.place, name="restored"), "a test")
        locale = {"provider": "i", "icu": "de", "collate": "C", "ctype": "C"}
        with pytest.raises(TargetError, match=r"cannot make a database .* ICU is not supported in this build"):
            target.stage({"encoding": "UTF8", "locale": locale})
        assert server.databases() == [bare.name, "postgres"]


def test_the_builtin_order_is_kept(place: InstanceDirectory, disk: Path) -> None:
    with PostgresServer(17) as source, PostgresServer(18) as to:
        options = "template template0 locale_provider builtin builtin_locale 'C.UTF-8' locale 'C.UTF-8'"
        there = moved(source, to, place, disk, options)
        query = f"select datlocprovider, datlocale from pg_database where datname = '{there.name}'"
        assert to.rows(query) == [("b", "C.UTF-8")]
