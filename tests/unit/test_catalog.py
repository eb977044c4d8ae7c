# SPDX-License-Identifier: GPL-3.0-or-later
"""The scratch database: what goes in comes out, however large, sorted by bytes, and questions stay quick."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import ArchivedFile
from ansible_collections.papermerge.backup.plugins.module_utils.media.scan import ScannedFile
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PART_MEMBERS
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3") as made:
        yield made


def scanned(path: bytes, size: int = 1) -> ScannedFile:
    return ScannedFile(path, size, 1, 1, 1, 1)


@pytest.mark.parametrize("number", [0, -(2**61), 2**63 - 1, 2**63, 2**64 - 1, 25 * 10**19])
def test_times_after_2262_and_inodes_of_64_bits_come_out_as_they_went_in(catalog: Catalog, number: int) -> None:
    catalog.add_scanned([ScannedFile(b"a", 1, number, number, number, number)])
    file = ArchivedFile(b"a", "ok", "", 0, 1, 0o600, number, number, number, number, 0, 0, "", "", "0" * 64)
    catalog.add_archived([file], "p")
    (entry,) = list(catalog.entries())
    assert (entry.mtime_ns, entry.ctime_ns, entry.device, entry.inode) == (number,) * 4
    with Catalog(Path(f"{catalog_path(catalog)}.again")) as again:
        again.add_entries([entry])
        assert list(again.entries()) == [entry]
        again.add_expected([(b"a", "document 1", "1")])
        ((_path, _row, state, _held),) = list(again.expected_states())
        assert state is not None
        assert state.ctime_ns == number


def catalog_path(catalog: Catalog) -> str:
    return str(catalog._db.execute("pragma database_list").fetchone()[2])


def test_files_come_out_sorted_by_raw_bytes(catalog: Catalog) -> None:
    paths = [b"b", b"a/b", b"a-", b"\xff", b"\xc3\xa9", b"a", b"a\n", "\uffff".encode(), "\U00010000".encode()]
    catalog.add_scanned(scanned(path) for path in paths)
    assert [path for path, _size in catalog.next_part()] == sorted(paths)


def test_a_part_is_bounded_by_content_and_by_members_and_takes_at_least_one_file(catalog: Catalog) -> None:
    catalog.add_scanned(scanned(b"%d" % number, 60) for number in range(5))
    assert [path for path, _size in catalog.next_part(part_bytes=130)] == [b"0", b"1"]
    assert [path for path, _size in catalog.next_part(part_bytes=10)] == [b"0"]
    assert [path for path, _size in catalog.next_part(b"0", part_bytes=10)] == [b"1"]
    catalog.add_scanned(scanned(b"x%06d" % number, 0) for number in range(PART_MEMBERS + 10))
    assert len(catalog.next_part()) == PART_MEMBERS


def test_whether_a_path_is_expected_is_answered_from_an_index(catalog: Catalog) -> None:
    """It is asked once a file: reading all expected rows each time would take hours for a large instance."""
    catalog.index_rows()
    connection: sqlite3.Connection = catalog._db
    for query in (
        "select 1 from expected where path = ?",
        "select 1 from directory where path = ?",
        "select 1 from held where path = ?",
        "select 1 from file where path = ?",
    ):
        plan = " ".join(str(row[3]) for row in connection.execute("explain query plan " + query, (b"a",)))
        assert "SEARCH" in plan, (query, plan)
        assert "SCAN" not in plan, (query, plan)
