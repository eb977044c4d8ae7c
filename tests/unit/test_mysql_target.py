# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore onto MariaDB: all of a dump or nothing, into a schema beside it, and never over what is there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.engines import database_at, server_target
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.grants import (
    Grant,
    exactly,
    missing_rights,
    parse_grant,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.target import MysqlTarget
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, DatabaseError, TargetError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import RELEASE_LINES, UNKNOWN_LINE
from tests.support.generated.instance import COMBINATIONS, GeneratedInstance, generate
from tests.support.servers.mariadb import MariaServer

LINES = [line for line, engine in COMBINATIONS if engine == "mysql"]
PASSWORD = "pass #'\"\\ wörd"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What a snapshot keeps of a database."""

    made: GeneratedInstance
    content: bytes
    facts: dict[str, Any]

    def pieces(self, size: int = 5000) -> Iterator[bytes]:
        return (self.content[start : start + size] for start in range(0, len(self.content), size))


def snapshot_of(made: GeneratedInstance) -> Snapshot:
    source = database_at(parse_database_url(made.database_url, "the test"), "the test")

    def no_workspace(_parent: str, _size: int) -> Callable[[str], str]:
        raise AssertionError("a dump of a server needs no room")

    with source.dump(RELEASE_LINES[made.line], no_workspace, lambda _done, _total: None) as dump:
        return Snapshot(made, b"".join(dump.content()), dump.facts)


@pytest.fixture(scope="module", params=LINES)
def any_snapshot(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, maria_server: MariaServer
) -> Snapshot:
    where = tmp_path_factory.mktemp("made") / "i"
    return snapshot_of(
        generate(request.param, "mysql", where, server=maria_server, name=f"source_{request.param}", large_text=50_000)
    )


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory, maria_server: MariaServer) -> Snapshot:
    where = tmp_path_factory.mktemp("made") / "i"
    return snapshot_of(generate("2.0", "mysql", where, server=maria_server, name="the_source", large_text=1000))


@pytest.fixture
def target(maria_server: MariaServer) -> Iterator[MysqlTarget]:
    """A target without a schema, with an account that will own it and one that may make it."""
    for user in ("the_owner", "the_admin"):
        maria_server.execute(f"drop user if exists {user}@'%'")
        maria_server.create_user(user, PASSWORD)
    maria_server.execute(r"grant all privileges on `the\_target`.* to the_owner@'%', the_admin@'%'")
    maria_server.execute(r"grant all privileges on `papermerge\_backup\_%`.* to the_admin@'%'")
    owner, admin = (
        parse_database_url(maria_server.url("the_target", user, PASSWORD), "the test")
        for user in ("the_owner", "the_admin")
    )
    made = server_target(owner, "the test", admin)
    assert isinstance(made, MysqlTarget)
    yield made
    for name in maria_server.databases():
        if name == "the_target" or name.startswith("papermerge_backup_"):
            maria_server.drop_database(name)


def stages(server: MariaServer) -> list[str]:
    return [name for name in server.databases() if name.startswith("papermerge_backup_")]


def checksums(server: MariaServer, schema: str) -> dict[str, str]:
    names = [name for (name,) in server.rows("show tables", schema)]
    rows = server.rows(f"checksum table {', '.join(names)}", schema)
    return {name.rpartition(".")[2]: checksum for name, checksum in rows}


def definitions(server: MariaServer, schema: str) -> dict[str, str]:
    names = [name for (name,) in server.rows("show tables", schema)]
    rows = server.rows("; ".join(f"show create table {name}" for name in names), schema)
    return dict(rows)  # type: ignore[arg-type]


def test_a_restore_brings_back_every_row_and_every_key(
    any_snapshot: Snapshot, target: MysqlTarget, maria_server: MariaServer
) -> None:
    made, line = any_snapshot.made, RELEASE_LINES[any_snapshot.made.line]
    target.require_fit(any_snapshot.facts)
    assert target.content() == []
    stage = target.stage(any_snapshot.facts)
    assert target.abandoned() == [stage]
    target.load(stage, any_snapshot.pieces())
    assert target.content() == [], "nothing is in place yet"
    with target.staged_view(stage) as view:
        assert target.abandoned() == [], "somebody is connected to it"
        assert view.row_counts(UNKNOWN_LINE) == made.counts
        assert {row.path for row in view.expected_rows(line) if row.path} == made.expected
    assert target.is_staged(stage)
    target.put_in_place(stage, any_snapshot.facts)
    assert not target.is_staged(stage)
    assert stages(maria_server) == target.abandoned() == []
    assert target.content() == sorted(made.counts)
    assert checksums(maria_server, "the_target") == checksums(maria_server, made.database)
    assert definitions(maria_server, "the_target") == definitions(maria_server, made.database)
    assert "REFERENCES" in str(definitions(maria_server, "the_target"))
    restored = database_at(target.place, "the test")
    restored.check()
    with restored.view() as view:
        assert view.schema_marker(line) == made.marker, "the owner reads it"


def test_an_empty_schema_is_taken_and_gets_the_sources_character_set(
    snapshot: Snapshot, target: MysqlTarget, maria_server: MariaServer
) -> None:
    maria_server.create_database("the_target", options="character set latin1")
    stage = target.stage(snapshot.facts)
    target.load(stage, snapshot.pieces())
    target.put_in_place(stage, snapshot.facts)
    query = "select default_character_set_name, default_collation_name from information_schema.schemata"
    source, restored = (
        maria_server.rows(f"{query} where schema_name = '{name}'") for name in (snapshot.made.database, "the_target")
    )
    assert source == restored == [("utf8mb4", "utf8mb4_general_ci")]


def test_what_is_there_is_never_touched(snapshot: Snapshot, target: MysqlTarget, maria_server: MariaServer) -> None:
    maria_server.create_database("the_target")
    maria_server.execute("create table core_page (id int); insert into core_page values (7)", "the_target")
    assert target.content() == ["core_page"]
    stage = target.stage(snapshot.facts)
    target.load(stage, snapshot.pieces())
    with pytest.raises(BackupError, match="core_page"):
        target.put_in_place(stage, snapshot.facts)
    assert target.content() == ["core_page"], "not one of the other tables has moved"
    assert maria_server.rows("select id from the_target.core_page") == [("7",)]
    with target.staged_view(stage) as view:
        assert view.row_counts(UNKNOWN_LINE) == snapshot.made.counts
    target.discard(stage)
    assert stages(maria_server) == []


def test_a_restore_that_was_killed_between_the_move_and_the_end_is_in_place(
    snapshot: Snapshot, target: MysqlTarget, maria_server: MariaServer
) -> None:
    stage = target.stage(snapshot.facts)
    assert target.is_staged(stage), "an empty one for an empty target"
    target.load(stage, snapshot.pieces())
    maria_server.create_database("the_target")
    assert target.is_staged(stage)
    moves = ", ".join(f"{stage}.{name} to the_target.{name}" for name in snapshot.made.counts)
    maria_server.execute(f"set foreign_key_checks = 0; rename table {moves}")
    assert not target.is_staged(stage)
    assert target.abandoned() == [stage]
    target.discard(stage)
    target.discard(stage)
    assert not target.is_staged(stage)
    assert target.content() == sorted(snapshot.made.counts)


def test_only_this_targets_stages_are_abandoned(target: MysqlTarget, maria_server: MariaServer) -> None:
    other = server_target(
        dataclasses.replace(target.place, name="the_target2"), "the test", dataclasses.replace(target.admin)
    )
    mine, others = target.stage({}), other.stage({})
    maria_server.create_database("papermerge_backup_mine")
    assert (target.abandoned(), other.abandoned()) == ([mine], [others])


def test_discarding_ends_who_is_connected(target: MysqlTarget) -> None:
    stage = target.stage({})
    with target.staged_view(stage) as view:
        assert view.tables() == ()
        target.discard(stage)
        with pytest.raises(DatabaseError, match="the server ended the connection"):
            view.tables()
    assert not target.is_staged(stage)


def test_a_load_stops_at_the_first_error(snapshot: Snapshot, target: MysqlTarget, maria_server: MariaServer) -> None:
    stage = target.stage(snapshot.facts)
    broken = snapshot.content.replace(b"INSERT INTO `core_document` VALUES", b"INSERT INTO `core_documents` VALUES")
    assert broken != snapshot.content
    with pytest.raises(
        DatabaseError, match=r"cannot be restored: ERROR 1100 .*'core_documents' was not locked"
    ) as caught:
        target.load(stage, iter([broken]))
    assert len(caught.value.message) < 300, "no document's text is in it"
    later = sorted(snapshot.made.counts)[-1]
    assert later not in [name for (name,) in maria_server.rows("show tables", stage)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_dump_that_was_cut_off_is_refused(snapshot: Snapshot, target: MysqlTarget, share: float) -> None:
    stage = target.stage(snapshot.facts)
    with pytest.raises(DatabaseError, match="cut off"):
        target.load(stage, iter([snapshot.content[: int(len(snapshot.content) * share)]]))


def test_a_dump_that_leads_elsewhere_changes_nothing_there(
    snapshot: Snapshot, target: MysqlTarget, maria_server: MariaServer
) -> None:
    maria_server.create_database("the_target")
    maria_server.execute("create table precious (id int)", "the_target")
    stage = target.stage(snapshot.facts)
    head, end = snapshot.content.split(b"UNLOCK TABLES;\n", 1)
    evil = head + b"UNLOCK TABLES;\nUSE `the_target`;\nDROP TABLE precious;\n" + end
    for size in (1, 100, len(evil)):
        with pytest.raises(DatabaseError, match="another database"):
            target.load(stage, iter([evil[start : start + size] for start in range(0, len(evil), size)]))
        assert target.content() == ["precious"]


def test_client_commands_in_a_dump_are_not_carried_out(target: MysqlTarget, tmp_path: Path) -> None:
    stage = target.stage({})
    evil = f"SET @a = 1;\n\\! touch {tmp_path}/made\n;\nsystem touch {tmp_path}/made\n;\n-- Dump completed\n"
    with pytest.raises(DatabaseError):
        target.load(stage, iter([evil.encode()]))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("create view v as select 1 as a", "views"),
        ("create table t (id int); create trigger g before insert on t for each row set new.id = 1", "triggers"),
        ("create definer = the_objects@'%' function f() returns int return 1", "routines"),
        ("create event e on schedule every 1 year do select 1", "events"),
        ("create sequence s", "sequences"),
    ],
)
def test_more_than_tables_is_refused_in_time(
    target: MysqlTarget, maria_server: MariaServer, statement: str, kind: str
) -> None:
    maria_server.drop_database("the_objects")
    maria_server.create_database("the_objects")
    try:
        maria_server.execute(
            "create or replace user the_objects@'%' identified by 'x'; grant all on the_objects.* to the_objects@'%'"
        )
        maria_server.execute(f"create table a (id int); {statement}", "the_objects")
        source = database_at(parse_database_url(maria_server.url("the_objects", "the_objects", "x"), "t"), "t")
        with source.dump(UNKNOWN_LINE, lambda _parent, _size: str, lambda _done, _total: None) as dump:
            content = b"".join(dump.content())
    finally:
        maria_server.drop_database("the_objects")
    with pytest.raises(TargetError, match=rf"holds more than tables \({kind}\)"):
        target.require_fit(dump.facts)
    stage = target.stage(dump.facts)
    with pytest.raises(TargetError, match=rf"holds more than tables \({kind}\)"):
        target.load(stage, iter([content]))
    maria_server.execute(content, stage)
    with pytest.raises(TargetError, match=rf"holds more than tables \({kind}\)"):
        target.put_in_place(stage, dump.facts)
    assert target.content() == []


def test_everything_that_is_missing_is_named_at_once_with_what_mends_it(
    snapshot: Snapshot, target: MysqlTarget, maria_server: MariaServer
) -> None:
    target.require_fit(snapshot.facts)
    target.require_fit({})
    for user in ("the_owner", "the_admin"):
        maria_server.execute(f"drop user {user}@'%'")
        maria_server.create_user(user, PASSWORD)
    facts = {
        **snapshot.facts,
        "version_number": [99, 1],
        "server_version": "99.1.2-MariaDB",
        "lower_case_table_names": 2,
        "collations": ["utf8mb4_general_ci", "utf8mb4_0900_ai_ci"],
    }
    with pytest.raises(TargetError) as caught:
        target.require_fit(facts)
    message = caught.value.message
    assert "the snapshot was taken from MariaDB 99.1.2-MariaDB" in message
    assert "its lower_case_table_names is 0, the source's was 2" in message
    assert "it does not know the collation utf8mb4_0900_ai_ci" in message
    assert "utf8mb4_general_ci" not in message
    assert "account the_owner@% lacks DELETE, INSERT, SELECT, UPDATE on the_target" in message
    assert PASSWORD not in message
    advice = message.split("an administrator can run: ")[1]
    assert advice.split("; ")[0] == r"GRANT ALL PRIVILEGES ON `the\_target`.* TO 'the_owner'@'%'"
    maria_server.execute(advice)
    target.require_fit(snapshot.facts)
    stage = target.stage(snapshot.facts)
    target.load(stage, snapshot.pieces())
    target.put_in_place(stage, snapshot.facts)


def test_accounts_that_cannot_log_in_are_both_named(target: MysqlTarget) -> None:
    wrong = [dataclasses.replace(place, password="wrong") for place in (target.place, target.admin)]
    with pytest.raises(TargetError) as caught:
        MysqlTarget(wrong[0], "the test", wrong[1]).require_fit({})
    assert caught.value.message.count("the server refuses the login") == 2
    assert "the_owner" in caught.value.message
    assert "the_admin" in caught.value.message


def test_a_dump_of_the_other_vendor_is_refused(snapshot: Snapshot, target: MysqlTarget) -> None:
    with pytest.raises(TargetError, match=r"it is MariaDB .* and the snapshot was taken from MySQL 8.0.36"):
        target.require_fit({**snapshot.facts, "flavour": "MySQL", "version_number": [8, 0], "server_version": "8.0.36"})


TEE = """#!/bin/sh
[ "$1" = --version ] && exec /usr/bin/mariadb "$@"
tee "{0}" | exec /usr/bin/mariadb "$@"
"""


def test_the_line_that_older_clients_cannot_read_is_not_sent(
    snapshot: Snapshot, target: MysqlTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert snapshot.content.startswith(b"/*M!999999\\- enable the sandbox mode */"), "or this shows nothing"
    stage = target.stage(snapshot.facts)
    (tmp_path / "mariadb").write_text(TEE.format(tmp_path / "sent"), encoding="ascii")
    (tmp_path / "mariadb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for size in (60, 1 << 16):
        target.load(stage, snapshot.pieces(size))
        assert (tmp_path / "sent").read_bytes() == snapshot.content.split(b"\n", 1)[1]


GRANTS = {
    "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*12'": ["CREATE", "DROP"],
    "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION": [],
    "GRANT SELECT, CREATE ON `papermerge\\_backup\\_%`.* TO `u`@`%`": ["DROP"],
    "GRANT SELECT, CREATE, DROP ON `papermerge_backup_1%`.* TO `u`@`%`": [],
    "GRANT SELECT, CREATE, DROP ON `papermerge\\_backup\\_`.* TO `u`@`%`": ["CREATE", "DROP"],
    "GRANT CREATE, DROP ON `papermergexbackup%`.* TO `u`@`%`": ["CREATE", "DROP"],
    "GRANT CREATE, DROP ON `papermerge_backup_12`.`core_page` TO `u`@`%`": ["CREATE", "DROP"],
    "GRANT EXECUTE ON FUNCTION `papermerge_backup_12`.`f` TO `u`@`%`": ["CREATE", "DROP"],
    "GRANT `role` TO `u`@`%`": ["CREATE", "DROP"],
}


@pytest.mark.parametrize("line", GRANTS)
def test_grants_are_read_as_the_server_means_them(line: str) -> None:
    assert missing_rights(parse_grant(line), "papermerge_backup_12", frozenset(("CREATE", "DROP"))) == GRANTS[line]


def test_a_name_is_granted_exactly() -> None:
    name = "a_b%c\\d"
    assert missing_rights([Grant(frozenset(("ALL PRIVILEGES",)), exactly(name))], name, frozenset(("DROP",))) == []
    assert missing_rights([Grant(frozenset(("DROP",)), exactly(name))], "axb%c\\d", frozenset(("DROP",))) == ["DROP"]
