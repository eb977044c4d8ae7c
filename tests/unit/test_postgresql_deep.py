# SPDX-License-Identifier: GPL-3.0-or-later
"""Deep verification of PostgreSQL dumps without a server: counts and expected rows are read from the dump itself."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql import programs
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, ToolError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import UNKNOWN_LINE
from ansible_collections.papermerge.backup.plugins.plugin_utils.pgdump import read_archive
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers, Session
from tests.support.postgresql import LINE, OwnDatabase, own_database, start_dump
from tests.support.servers.postgres import PostgresServer, literal
from tests.support.servers.releases import clients_of
from tests.support.snapshots import MediaAndDatabase, WatchedSession, local_agent, take, verify


@pytest.fixture
def own(postgres_server: PostgresServer) -> Iterator[OwnDatabase]:
    with own_database(postgres_server) as made:
        yield made


@pytest.fixture
def stored(own: OwnDatabase, place: InstanceDirectory, disk: Path) -> InstanceDirectory:
    media = disk / "instance" / "media"
    media.mkdir(parents=True)
    for _number in range(4):
        own.add_document(media)
    take(MediaAndDatabase(media, own.url), place)
    return place


def dumped(own: OwnDatabase) -> bytes:
    with start_dump(own) as dump:
        return b"".join(dump.content())


class Exaggerating(WatchedSession):
    """Tells of more rows than the dump has, as if it had lost some."""

    def __init__(self, session: Session, counts: dict[str, int]) -> None:
        super().__init__(session)
        self._counts = counts

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        result = super().call(call, handlers)
        if call.operation == "dump_database":
            result["row_counts"].update(self._counts)
        return result


def test_a_sound_snapshot_is_found_sound(stored: InstanceDirectory) -> None:
    result = verify(stored, "deep")
    assert result["proved"] == 4
    assert result["row_counts_compared"] == 5


@pytest.mark.parametrize("table", ["core_document", "core_user"])
def test_rows_that_are_missing_from_the_dump_are_damage(
    own: OwnDatabase, place: InstanceDirectory, disk: Path, table: str
) -> None:
    (disk / "media").mkdir()
    with Exaggerating(local_agent(), {table: 9}) as session:
        take(MediaAndDatabase(disk / "media", own.url), place, session)
    with pytest.raises(DamageError, match=rf"table {table} has \d rows, the manifest of .* says 9"):
        verify(place, "deep")


def test_without_pg_restore_nothing_is_called_sound(stored: InstanceDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.Client, "find_all", lambda *_arguments: [])
    with pytest.raises(ToolError, match=r"the database of .* on the controller: the host has no program pg_restore"):
        verify(stored, "deep")


def test_an_older_pg_restore_is_told(own: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    content = dumped(own)
    newer = content[:6] + bytes([16]) + content[7:]
    old = str(clients_of(13) / "pg_restore")
    monkeypatch.setattr(programs.Client, "find_all", lambda *_arguments: [old])
    with pytest.raises(ToolError, match=r"made by pg_dump of PostgreSQL 17 or later, and .* is of PostgreSQL 13"):
        read_archive(iter([newer]), "it", LINE, [])


def test_a_dump_that_ends_early_is_damage(own: OwnDatabase) -> None:
    own.as_owner("insert into core_page (text) select repeat('x', 100) from generate_series(1, 5000)")
    content = dumped(own)
    for length in (0, 3, 20, len(content) // 2, len(content) - 100):
        with pytest.raises(DamageError):
            read_archive(iter([content[:length]]), "it", LINE, ["public"])


def test_whatever_rows_hold_they_are_counted_and_kept(own: OwnDatabase, rng: random.Random) -> None:
    letters = string.ascii_letters + "\\\t\n\r.Nä漢'\"; \x0b"
    names = ["".join(rng.choices(letters, k=rng.randint(1, 40))) for _number in range(300)]
    names += ["\\.", "\\N", "\n\\.\n", "COPY public.core_user (id) FROM stdin;\n1\n\\.\n", "\\"]
    own.as_owner("insert into core_basetreenode (id, title, user_id) select n, 't', 1 from generate_series(1, 305) n")
    values = ", ".join(
        f"({number}, {literal(name)}, 1, {literal(name * 50)}, 0)" for number, name in enumerate(names, 1)
    )
    own.as_owner(f"insert into core_document values {values}")
    own.as_owner(
        "create schema other; create table other.core_user (id int); insert into other.core_user values (1), (2)"
    )
    own.as_owner('create table "od.d, ""x" (a int); insert into "od.d, ""x" values (1)')
    content = dumped(own)
    pieces = [content[start : start + 777] for start in range(0, len(content), 777)]
    with read_archive(iter(pieces), "it", LINE, ["public"]) as view, own.database.view() as live:
        assert view.row_counts(UNKNOWN_LINE) == live.row_counts(UNKNOWN_LINE)
        assert sorted(view.expected_rows(LINE)) == sorted(live.expected_rows(LINE))
        assert view.schema_marker(LINE) == live.schema_marker(LINE) == "0039_auto_20210216_1014"
        columns = [row[1] for row in view.rows("select * from pragma_table_info('core_document')")]
        assert "text" not in columns
