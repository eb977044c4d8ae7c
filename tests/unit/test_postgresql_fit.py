# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PostgreSQL server lacks for a restore is named at once, and the statements that are named are what helps."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace, parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.target import PostgresTarget
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, TargetError
from tests.support.postgresql import (
    LINE,
    PASSWORD,
    OwnDatabase,
    connect,
    other_place,
    our_sessions,
    own_database,
    remove_role,
    start_dump,
)
from tests.support.servers.postgres import PostgresServer

Snapshot = tuple[dict[str, Any], bytes]


@pytest.fixture
def own(own_postgres_server: PostgresServer) -> Iterator[OwnDatabase]:
    with own_database(own_postgres_server) as made:
        made.add_document()
        yield made


@pytest.fixture
def roles(own_postgres_server: PostgresServer) -> Iterator[list[str]]:
    """Names of roles that a test may make, and that are removed after it."""
    names = [f"other_{secrets.token_hex(4)}" for _number in range(3)]
    yield names
    for name in names:
        if own_postgres_server.rows(f"select 1 from pg_roles where rolname = '{name}'"):
            remove_role(own_postgres_server, name)


def taken(own: OwnDatabase) -> Snapshot:
    with start_dump(own) as dump:
        content = b"".join(dump.content())
        with dump.view() as view:
            return {**dump.facts, "row_counts": view.row_counts(LINE)}, content


def restore(target: PostgresTarget, snapshot: Snapshot) -> None:
    """Do what a restore does, and undo it as it does."""
    facts, content = snapshot
    target.require_fit(facts)
    assert target.content() == []
    stage = target.stage(facts)
    try:
        target.load(stage, iter([content]))
        with target.staged_view(stage) as view:
            assert view.row_counts(LINE) == facts["row_counts"]
        target.put_in_place(stage, facts)
    except BackupError:
        target.discard(stage)
        raise


def refusal(server: PostgresServer, target: PostgresTarget, snapshot: Snapshot) -> str:
    before = server.databases()
    with pytest.raises(TargetError) as caught:
        restore(target, snapshot)
    assert server.databases() == before
    return caught.value.message


def run_advice(server: PostgresServer, message: str) -> None:
    """Run exactly the statements that a message names, as an administrator would. A new password is one of theirs."""
    statements = message.partition("an administrator can run: ")[2]
    assert statements.endswith(";")
    server.execute(statements.replace("'...'", "'" + PASSWORD.replace("'", "''") + "'"))


def beside(own: OwnDatabase, **changes: object) -> DatabasePlace:
    return other_place(own.place, **{"name": own.name + "_restored", **changes})


def test_an_owner_who_may_not_create_databases(own: OwnDatabase) -> None:
    snapshot, target = taken(own), PostgresTarget(beside(own), "a test")
    message = refusal(own.server, target, snapshot)
    assert f"role {own.name} may not create databases" in message
    run_advice(own.server, message)
    restore(target, snapshot)
    assert own.server.count("core_document", own.name + "_restored") == 1
    assert our_sessions(own.server) == []


def test_everything_that_is_missing_is_named_at_once(own: OwnDatabase, roles: list[str]) -> None:
    """Owner, roles of grants, default privileges and policies, an extension that only a superuser may create."""
    new, reader, auditor = roles
    own.server.execute(f"create role {reader}; create role {auditor}")
    own.execute("create extension pg_trgm; create extension citext; create extension unaccent; create extension dblink")
    own.as_owner(
        f"grant select on core_document to {reader};"
        f" alter default privileges grant select on tables to {auditor};"
        " alter table core_user enable row level security;"
        f" create policy everything on core_user to {reader} using (true)"
    )
    own.execute(f'grant connect on database "{own.name}" to {reader}')
    snapshot = taken(own)
    assert {name for name, _version in snapshot[0]["extensions"]} == {"pg_trgm", "citext", "unaccent", "dblink"}
    own.server.drop_database(own.name)
    own.server.execute(f"drop role {reader}; drop role {auditor}")

    target = PostgresTarget(
        beside(own, user=new), "a test", parse_database_url(own.server.url("postgres", "postgres", socket=True), "x")
    )
    message = refusal(own.server, target, snapshot)
    for name in (new, reader, auditor):
        assert f"role {name} does not exist" in message
    assert f"extension dblink can be created by a superuser only, not by {new}" in message
    for name in ("pg_trgm", "citext", "unaccent"):
        assert name not in message
    run_advice(own.server, message)
    restore(target, snapshot)
    name = target.place.name
    assert own.server.rows(f"select has_table_privilege('{reader}', 'core_document', 'select')", name) == [("t",)]
    assert own.server.rows("select extname from pg_extension where extname = 'dblink'", name) == [("dblink",)]
    owners = "select distinct tableowner from pg_tables where schemaname = 'public'"
    assert own.server.rows(owners, name) == [(new,)]
    own.server.execute(f"create table later (a int); grant select on later to {reader}", name, role=new)


def test_an_extension_that_the_server_does_not_have(own: OwnDatabase) -> None:
    own.alter_role("createdb")
    facts, content = taken(own)
    facts["extensions"] = [["postgis", "3.3"], ["pg_trgm", "1.6"]]
    message = refusal(own.server, PostgresTarget(beside(own), "a test"), (facts, content))
    assert "extension postgis 3.3 is not installed on the server" in message
    assert "pg_trgm" not in message


def test_an_administrator_who_is_not_the_owner(own: OwnDatabase, roles: list[str]) -> None:
    admin = roles[0]
    own.server.create_role(admin, PASSWORD)
    snapshot = taken(own)
    target = PostgresTarget(beside(own), "a test", beside(own, user=admin, name="postgres"))
    message = refusal(own.server, target, snapshot)
    assert f"role {admin} may not create databases" in message
    assert f"role {admin} may not make a database for {own.name}" in message
    run_advice(own.server, message)
    restore(target, snapshot)
    owner = f"select pg_get_userbyid(datdba) from pg_database where datname = '{target.place.name}'"
    assert own.server.rows(owner) == [(own.name,)]
    # Once more onto a database that is there and empty, and whose owner is somebody else.
    own.server.drop_database(target.place.name)
    own.server.create_database(target.place.name)
    message = refusal(own.server, target, snapshot)
    assert f"role {admin} may not rename the empty database {target.place.name}" in message
    run_advice(own.server, message)
    restore(target, snapshot)
    assert own.server.count("core_document", target.place.name) == 1


def test_since_16_a_member_needs_the_right_to_set_the_role(roles: list[str]) -> None:
    with PostgresServer(16) as server:
        server.create_role("papermerge", PASSWORD)
        server.create_role("admin", PASSWORD, "createdb createrole")
        server.execute("grant papermerge to admin with inherit false, set false")
        place = parse_database_url(server.url("papermerge", "papermerge", PASSWORD), "a test")
        target = PostgresTarget(place, "a test", other_place(place, user="admin"))
        with pytest.raises(TargetError, match="role admin may not make a database for papermerge") as caught:
            target.require_fit({})
        message = caught.value.message
        server.execute("revoke papermerge from admin")
        run_advice(server, message)
        target.require_fit({})
        target.discard(target.stage({}))


def test_a_setting_that_only_a_superuser_may_give(own: OwnDatabase) -> None:
    own.alter_role("createdb")
    own.server.execute(f"""alter database "{own.name}" set log_min_messages = 'error'""")
    own.server.execute(f"""alter database "{own.name}" set work_mem = '5MB'""")
    snapshot, target = taken(own), PostgresTarget(beside(own), "a test")
    message = refusal(own.server, target, snapshot)
    assert f"role {own.name} may not set log_min_messages of a database" in message
    assert "work_mem" not in message
    run_advice(own.server, message)
    restore(target, snapshot)


def test_a_server_that_is_older_than_the_source(own: OwnDatabase) -> None:
    own.alter_role("createdb")
    facts, content = taken(own)
    newer = {**facts, "version_number": (own.server.major + 1) * 10000}
    message = refusal(own.server, PostgresTarget(beside(own), "a test"), (newer, content))
    assert f"it is PostgreSQL {own.server.major} and the snapshot was taken from {own.server.major + 1}" in message


def test_a_dump_that_no_client_here_can_read(own: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    own.alter_role("createdb")
    facts, content = taken(own)
    found = re.search(r"\) (\d+)", facts["client"])
    assert found
    if int(found.group(1)) > 16:
        pytest.skip("the installed client reads everything")
    message = refusal(
        own.server, PostgresTarget(beside(own), "a test"), ({**facts, "client": "pg_dump (PostgreSQL) 18.1"}, content)
    )
    assert "the dump was made by pg_dump of PostgreSQL 17 or later" in message
    assert "install postgresql-client-17 or later" in message


def test_a_locale_that_the_server_does_not_have(own: OwnDatabase) -> None:
    own.alter_role("createdb")
    facts, content = taken(own)
    facts["locale"] = {**facts["locale"], "collate": "xx_XX.UTF-8", "ctype": "xx_XX.UTF-8"}
    message = refusal(own.server, PostgresTarget(beside(own), "a test"), (facts, content))
    assert "cannot make a database with the snapshot's encoding and locale" in message
    assert "xx_XX.UTF-8" in message


def test_a_target_in_use_is_told_by_whom(own: OwnDatabase) -> None:
    own.alter_role("createdb")
    snapshot = taken(own)
    target = PostgresTarget(beside(own), "a test")
    own.server.create_database(target.place.name, own.name)
    elsewhere = OwnDatabase(own.server, own.name, own.password)
    connection = connect(elsewhere, target.place.name)
    message = refusal(own.server, target, snapshot)
    assert "is in use; end its sessions first, such as by stopping Papermerge: " in message
    assert f"1 of {own.name} (gunicorn)" in message
    connection.close()
    facts, content = snapshot
    target.require_fit(facts)
    stage = target.stage(facts)
    target.load(stage, iter([content]))
    connection = connect(elsewhere, target.place.name)
    with pytest.raises(TargetError, match=r"is in use; .*\(gunicorn\)"):
        target.put_in_place(stage, facts)
    assert target.is_staged(stage)
    connection.close()
    target.put_in_place(stage, facts)
    assert own.server.databases() == sorted([own.name, target.place.name, "postgres"])


def test_a_target_with_tables_is_not_empty(own: OwnDatabase) -> None:
    target = PostgresTarget(own.place, "a test")
    assert "public.core_document" in target.content()


def test_the_account_that_shall_own_it_is_tried_beforehand(own: OwnDatabase) -> None:
    admin = parse_database_url(own.server.url("postgres", "postgres", socket=True), "x")
    target = PostgresTarget(beside(own, password="wrong"), "a test", admin)
    with pytest.raises(BackupError, match="the server refuses the login"):
        target.require_fit({})
