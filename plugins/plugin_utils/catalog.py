# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A scratch database: files and version rows of one snapshot, sorted and merged on disk instead of in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import open_private
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    RepositoryError,
    SpaceError,
    describe_os_error,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import OK, VANISHED, ArchivedFile
from ansible_collections.papermerge.backup.plugins.module_utils.media.scan import ScannedFile
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import IndexEntry, index_line
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import (
    PART_CONTENT_BYTES,
    PART_MEMBERS,
    PART_PATH_BYTES,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import FileState

_SCHEMA = """
create table file (path blob primary key, size integer, mode integer, mtime_ns, ctime_ns, device, inode, uid integer,
                   gid integer, owner text, grp text, sha256 text, part text, state text, reason text,
                   line integer) without rowid;
create table expected (path blob, row text, key text);
create table directory (path blob);
create table held (path blob primary key, sha256 text) without rowid;
"""
_ENTRY = "path, size, mode, mtime_ns, ctime_ns, device, inode, uid, gid, owner, grp, sha256, part"
_ENTRY_ROW = f"(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '{OK}')"
#: Rows of one statement: every SQLite takes 999 values.
_ROWS = 75
#: What a file is before anybody has read it.
SCANNED = "scanned"
ROW_DELETED = "row_deleted"
#: In a part, and known to have been finished when it was read.
SETTLED = "settled"


def _number(value: int) -> int | str:
    """Return a time, device or inode as SQLite can hold it: times after 2262 and hashed inodes exceed its integers."""
    return value if -(1 << 63) <= value < 1 << 63 else str(value)


def _batches(entries: Iterable[IndexEntry], count: int) -> Iterator[list[IndexEntry]]:
    pending = iter(entries)
    while batch := list(islice(pending, count)):
        yield batch


def _numbers(values: tuple[int, ...]) -> Iterable[int | str]:
    """Return several of :func:`_number`, nearly always as they are."""
    return values if min(values) >= -(1 << 63) and max(values) < 1 << 63 else map(_number, values)


class Catalog:
    """Files by path and expected version rows, in a scratch file that its owner removes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Whose content is private has to be so from the beginning.
            open_private(path).close()
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.executescript(
                "pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -16384;"
                "pragma temp_store = file;" + _SCHEMA
            )
            self._db.execute("begin")
        except OSError as error:
            raise RepositoryError(f"cannot make {path}: {describe_os_error(error)}") from None
        except sqlite3.Error as error:
            raise self._explained(error) from None

    def _explained(self, error: sqlite3.Error) -> BackupError:
        if "full" in str(error):
            return SpaceError(f"cannot write {self._path}: {error}; free some room there")
        return RepositoryError(f"cannot use {self._path}: {error}")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise self._explained(error) from None

    # -- filling ------------------------------------------------------------------------------------------------------

    def add_scanned(self, files: Iterable[ScannedFile]) -> None:
        self._db.executemany(
            "insert or replace into file (path, size, mtime_ns, ctime_ns, device, inode, state)"
            f" values (?, ?, ?, ?, ?, ?, '{SCANNED}')",
            ((file.path, file.size, *_numbers(file[2:])) for file in files),
        )

    def add_archived(self, files: Iterable[ArchivedFile], part: str) -> None:
        """Note what became of files: those that are OK are in the part, vanished ones are forgotten."""
        rows = list(files)
        self._db.executemany(
            f"insert or replace into file ({_ENTRY}, state, reason)"
            " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    file.path,
                    file.size,
                    file.mode,
                    *_numbers(file[6:10]),
                    *file[10:15],
                    part if file.state == OK else None,
                    file.state,
                    file.reason,
                )
                for file in rows
                if file.state != VANISHED
            ),
        )
        self._db.executemany(
            "delete from file where path = ?", ((file.path,) for file in rows if file.state == VANISHED)
        )

    def add_entries(self, entries: Iterable[IndexEntry]) -> None:
        """Take files from an index."""
        # Several rows in one statement: each statement gives Python's lock away, and has to wait for it beside threads.
        for batch in _batches(entries, _ROWS):
            rows = ", ".join([_ENTRY_ROW] * len(batch))
            values: list[Any] = []
            for entry in batch:
                values += entry
                if max(entry[3:7]) >= 1 << 63 or min(entry[3:7]) < -(1 << 63):
                    values[-len(entry) :] = (*entry[:3], *map(_number, entry[3:7]), *entry[7:])
            self._db.execute(f"insert into file ({_ENTRY}, state) values {rows}", values)

    def add_expected(self, rows: Iterable[tuple[bytes, str, str]]) -> None:
        """Take version rows whose file is expected: (path, row, key)."""
        self._db.executemany("insert into expected values (?, ?, ?)", rows)

    def add_directories(self, paths: Iterable[bytes]) -> None:
        """Take directories whose files belong to a version row, whatever their names."""
        self._db.executemany("insert into directory values (?)", ((path,) for path in paths))

    def index_rows(self) -> None:
        """Make questions about version rows quick, once all are here: sorting beats inserting in random order."""
        self._db.execute("create index expected_path on expected (path)")
        self._db.execute("create index directory_path on directory (path)")

    def add_held(self, files: Iterable[tuple[bytes, str]]) -> None:
        """Take files (path, SHA-256) that the newest complete snapshot holds."""
        self._db.executemany("insert or ignore into held values (?, ?)", files)

    def forget_held(self) -> None:
        self._db.execute("delete from held")

    # -- parts --------------------------------------------------------------------------------------------------------

    def scanned_totals(self) -> tuple[int, int]:
        """Return the number of files that nobody has read yet, and the sum of their sizes in bytes."""
        count, size = self._db.execute(
            f"select count(*), coalesce(sum(size), 0) from file where state = '{SCANNED}'"
        ).fetchone()
        return int(count), int(size)

    def next_part(self, after: bytes = b"", part_bytes: int = PART_CONTENT_BYTES) -> list[tuple[bytes, int]]:
        """Return the next files behind a path to put into a part: (path, size), at most a part's worth."""
        chosen: list[tuple[bytes, int]] = []
        total = names = 0
        for path, size in self._db.execute(
            f"select path, size from file where state = '{SCANNED}' and path > ? order by path limit {PART_MEMBERS}",
            (after,),
        ):
            names += len(path)
            if chosen and (total + size > part_bytes or names > PART_PATH_BYTES):
                break
            chosen.append((path, size))
            total += size
        return chosen

    def retry(self, state: str) -> int:
        """Mark files in a state as unread again. Returns how many."""
        return self._db.execute(f"update file set state = '{SCANNED}' where state = ?", (state,)).rowcount

    def mark_scanned(self, files: Iterable[tuple[bytes, int]]) -> None:
        """Take files (path, size in bytes) that have appeared since the scan."""
        self._db.executemany(f"insert or replace into file (path, size, state) values (?, ?, '{SCANNED}')", files)

    def mark_settled(self, paths: Iterable[bytes]) -> None:
        """Note that these files are in a part as they were when they had been finished."""
        self._db.executemany("update file set state = ? where path = ?", ((SETTLED, path) for path in paths))

    def mark_deleted(self, paths: Iterable[bytes]) -> None:
        """Note that the rows that expect these files are gone."""
        self._db.executemany(
            f"insert or replace into file (path, size, state) values (?, 0, '{ROW_DELETED}')",
            ((path,) for path in paths),
        )

    # -- asking -------------------------------------------------------------------------------------------------------

    def entries(self, part: str | None = None) -> Iterator[IndexEntry]:
        """Yield the files that are in parts, sorted by raw path bytes; of one part where it is named."""
        condition, values = ("part = ?", (part,)) if part is not None else ("part is not null", ())
        for row in self._db.execute(f"select {_ENTRY} from file where {condition} order by path", values):
            yield IndexEntry(*row[:3], *map(int, row[3:7]), *row[7:])

    def contents(self, part: str) -> Iterator[tuple[bytes, int, str]]:
        """Yield (path, size in bytes, SHA-256) of the files that are in a part."""
        yield from self._db.execute("select path, size, sha256 from file where part = ?", (part,))

    def metadata(self, part: str) -> Iterator[tuple[bytes, int, str, int, int, int, int, str, str]]:
        """Yield what a restore needs of the files of a part.

        (path, size in bytes, SHA-256, mode, mtime in nanoseconds, user id, group id, owner, group)
        """
        for row in self._db.execute(
            "select path, size, sha256, mode, mtime_ns, uid, gid, owner, grp from file where part = ?", (part,)
        ):
            yield row if isinstance(row[4], int) else (*row[:4], int(row[4]), *row[5:])

    def encoded_entries(self) -> Iterator[bytes]:
        """Yield the lines of the index: what :meth:`entries` yields, encoded."""
        for row in self._db.execute(f"select {_ENTRY} from file where part is not null order by path"):
            yield index_line(*row)

    def index_by_part(self) -> None:
        """Make :meth:`entries` of one part quick."""
        self._db.execute("create index file_part on file (part, path)")

    def unsettled(self, after: bytes, since_ns: int, limit: int) -> list[tuple[bytes, str, FileState | None]]:
        """Return the next expected files behind a path that are in no part, or were written since a moment.

        (path, key of the row, what is known of a file that is in a part).
        """
        # Times that are too large for SQLite's integers are texts, and those are greater than any number.
        found = self._db.execute(
            "select e.path, e.key, f.size, f.ctime_ns, f.part from expected e left join file f on f.path = e.path"
            " where e.path > ? and (f.part is null or f.ctime_ns > ?) and coalesce(f.state, '') not in (?, ?)"
            " order by e.path limit ?",
            (after, since_ns, ROW_DELETED, SETTLED, limit),
        )
        return [
            (path, key, None if part is None else FileState(size, int(ctime_ns), indexed=True))
            for path, key, size, ctime_ns, part in found
        ]

    def expected_states(self) -> Iterator[tuple[bytes, str, FileState | None, bool]]:
        """Yield (path, row, what is known of the file, the newest complete snapshot holds it), sorted by path."""
        query = (
            "select e.path, e.row, f.size, f.ctime_ns, f.part, f.state, h.path is not null from expected e"
            " left join file f on f.path = e.path left join held h on h.path = e.path order by e.path"
        )
        for path, row, size, ctime_ns, part, state, held in self._db.execute(query):
            known = None
            if state is not None:
                known = FileState(
                    size or 0,
                    int(ctime_ns or 0),
                    part is not None,
                    state not in (OK, SETTLED, ROW_DELETED),
                    state == ROW_DELETED,
                )
            yield path, row, known, bool(held)

    def newest_expected_ns(self) -> int | None:
        """Return when the newest expected file was written, in nanoseconds since 1970; None where there is none."""
        found = self._db.execute(
            "select max(f.mtime_ns) from expected e join file f on f.path = e.path"
            " where f.part is not null and typeof(f.mtime_ns) = 'integer'"
        ).fetchone()[0]
        return None if found is None else int(found)

    def changed(self) -> Iterator[tuple[bytes, str, str]]:
        """Yield files whose content is not what the newest complete snapshot holds: (path, SHA-256 there, here)."""
        yield from self._db.execute(
            "select h.path, h.sha256, f.sha256 from held h join file f on f.path = h.path"
            " where f.part is not null and f.sha256 <> h.sha256 order by h.path"
        )

    def count_state(self, state: str) -> int:
        """Return how many files are in a state."""
        return int(self._db.execute("select count(*) from file where state = ?", (state,)).fetchone()[0])

    def example(self, state: str) -> tuple[bytes, str] | None:
        """Return one file in a state: (path, reason)."""
        found: tuple[bytes, str] | None = self._db.execute(
            "select path, reason from file where state = ? order by path limit 1", (state,)
        ).fetchone()
        return found

    def totals(self) -> tuple[int, int]:
        """Return the number of files in parts and the sum of their sizes in bytes."""
        count, size = self._db.execute(
            "select count(*), coalesce(sum(size), 0) from file where part is not null"
        ).fetchone()
        return int(count), int(size)

    def unexpected_below(self, directory: bytes) -> Iterator[bytes]:
        """Yield the paths of stored files below a directory that no version row expects, sorted."""
        for (path,) in self._db.execute(
            "select f.path from file f where f.path > ? and f.path < ? and f.part is not null"
            " and not exists (select 1 from expected e where e.path = f.path) order by f.path",
            (directory + b"/", directory + b"0"),
        ):
            yield path

    def is_expected(self, path: bytes) -> bool:
        return self._db.execute("select 1 from expected where path = ?", (path,)).fetchone() is not None

    def is_listed_directory(self, path: bytes) -> bool:
        return self._db.execute("select 1 from directory where path = ?", (path,)).fetchone() is not None
