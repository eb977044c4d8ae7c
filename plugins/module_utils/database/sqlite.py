# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite: a consistent copy under a writing application, checks, counts.

The copy is made with the online backup API (https://www.sqlite.org/backup.html). A step holds a shared lock; a commit
of another process between two steps makes the backup start again from the first page. On a busy database that would
never end, so after some restarts the rest is one step, during which writers in rollback-journal mode have to wait.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Optional, Tuple
from urllib.parse import quote

from ..durable import PRIVATE_FILE
from ..errors import BackupError, DatabaseError, SpaceError, describe_os_error
from ..papermerge.releases import ExpectedRow, ReleaseLine

LIBRARY_VERSION = sqlite3.sqlite_version
MAGIC = b"SQLite format 3\0"
STEP_PAGES = 2048
#: Restarts by other processes' commits before the copy is finished in one locking step.
RESTARTS = 5
#: Seconds to wait for a lock that another process holds.
LOCK_PATIENCE = 60.0
#: Files of a database beside the file itself.
SIDE_FILES = ("-wal", "-shm", "-journal")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CopyReport:
    """How a copy went: ``size`` in bytes, ``restarts``, seconds of the locking step (0.0 for none), and the moment
    of the copy in nanoseconds since 1970 by the host's clock."""

    size: int
    restarts: int
    locked_seconds: float
    moment_ns: int
    journal_mode: str


class _TooManyRestarts(Exception):
    pass


class _Locked(Exception):
    pass


class _Steps:
    """Watches the steps of a backup: reports progress, counts restarts, gives up on a lock that is never released."""

    def __init__(self, page_size: int, progress: Progress, limit: Optional[int]) -> None:
        self._page_size = page_size
        self._progress = progress
        self._limit = limit
        self._remaining: Optional[int] = None
        self._busy_since: Optional[float] = None
        self.restarts = 0

    def __call__(self, status: int, remaining: int, total: int) -> None:
        if status in (SQLITE_BUSY, SQLITE_LOCKED):
            now = time.monotonic()
            self._busy_since = self._busy_since or now
            if now - self._busy_since > LOCK_PATIENCE:
                raise _Locked
            return
        self._busy_since = None
        if self._remaining is not None and remaining >= self._remaining and remaining > 0:
            self.restarts += 1
            if self._limit is not None and self.restarts > self._limit:
                raise _TooManyRestarts
        self._remaining = remaining
        self._progress((total - remaining) * self._page_size, total * self._page_size)


# Result codes of SQLite; the module's own names came with Python 3.11.
SQLITE_BUSY = 5
SQLITE_LOCKED = 6


def check_database_file(path: str, found_in: str) -> None:
    """Raise DatabaseError unless the path is a file that starts as SQLite databases do."""
    where = "database {0} ({1})".format(path, found_in)
    try:
        if os.path.isdir(path):
            raise DatabaseError("{0} is a directory; set papermerge_backup_database_url".format(where))
        # Not to be kept waiting by a pipe in its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            head = os.read(descriptor, len(MAGIC)) if regular else b""
        finally:
            os.close(descriptor)
        if not regular:
            raise DatabaseError("{0} is not a file; set papermerge_backup_database_url".format(where))
    except FileNotFoundError:
        raise DatabaseError("{0} does not exist; set papermerge_backup_database_url".format(where)) from None
    except OSError as error:
        raise DatabaseError("{0} cannot be read: {1}".format(where, describe_os_error(error))) from None
    if head != MAGIC:
        what = "is empty" if not head else "is not an SQLite database (it starts with {0!r})".format(head)
        raise DatabaseError("{0} {1}; set papermerge_backup_database_url".format(where, what))


def connect(path: str, mode: str) -> sqlite3.Connection:
    """Open a database. ``mode`` is ``rw``, ``ro``, or ``immutable`` for a file that nobody else touches.

    A database in use is opened ``rw``: a reader, too, has to be able to recover a hot journal and to share the WAL
    index.
    """
    option = "mode=ro&immutable=1" if mode == "immutable" else "mode=" + mode
    connection = sqlite3.connect(
        "file:{0}?{1}".format(quote(os.fsencode(path)), option), uri=True, isolation_level=None, timeout=LOCK_PATIENCE
    )
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return connection


def live_mode(path: str) -> str:
    """Return the mode in which a database in use is opened: ``rw`` where it may be written."""
    return "rw" if os.access(path, os.W_OK) else "ro"


def copy_database(source: str, target: str, progress: Progress, restarts: int = RESTARTS) -> CopyReport:
    """Copy a live database to a new private file. Raises DatabaseError or SpaceError; the target may be left behind.

    The caller owns the target's directory and removes it.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
    try:
        with closing(connect(source, live_mode(source))) as origin:
            journal_mode = str(origin.execute("pragma journal_mode").fetchone()[0])
            page_size = int(origin.execute("pragma page_size").fetchone()[0])
            watch = _Steps(page_size, progress, restarts)
            locked_seconds = 0.0
            try:
                with closing(_new_copy(target)) as copy:
                    origin.backup(copy, pages=STEP_PAGES, progress=watch, sleep=0.05)
                moment_ns = time.time_ns()
            except _TooManyRestarts:
                os.truncate(target, 0)
                moment_ns = time.time_ns()
                begun = time.monotonic()
                with closing(_new_copy(target)) as copy:
                    origin.backup(copy, pages=-1, progress=_Steps(page_size, progress, None), sleep=0.05)
                locked_seconds = time.monotonic() - begun
        with open(target, "rb") as stream:
            os.fsync(stream.fileno())
    except _Locked:
        raise DatabaseError(
            "database {0} was locked by another process for more than {1:.0f} s; let that finish and run again".format(
                source, LOCK_PATIENCE
            )
        ) from None
    except OSError as error:
        raise DatabaseError("database {0} cannot be copied: {1}".format(source, describe_os_error(error))) from None
    except sqlite3.Error as error:
        raise _explained(error, source, "copied") from None
    return CopyReport(os.path.getsize(target), watch.restarts, round(locked_seconds, 3), moment_ns, journal_mode)


def _new_copy(target: str) -> sqlite3.Connection:
    connection = connect(target, "rw")
    # The copy is ours alone and is thrown away when anything fails: no journal beside it, no syncs within it.
    connection.execute("pragma journal_mode = off").fetchone()
    connection.execute("pragma synchronous = off")
    _require_open(target)
    return connection


def _require_open(path: str) -> None:
    """Raise DatabaseError unless this process has this very file open.

    SQLite resolves the path that it is given. Whoever owns the directory above ours could have put another under its
    name meanwhile, and we would write wherever that leads.
    """
    wanted = os.stat(path)
    for number in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(number))
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
            return
    raise DatabaseError("{0} was moved away while the copy was made".format(path))


def _explained(error: sqlite3.Error, path: str, what: str) -> BackupError:
    text = str(error)
    if "full" in text:
        return SpaceError(
            "no room for the copy of database {0}: {1}; free some or set papermerge_backup_copy_dir".format(path, text)
        )
    if "locked" in text or "busy" in text:
        return DatabaseError(
            "database {0} is locked by another process ({1}); let that finish and run again".format(path, text)
        )
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return DatabaseError(
            "database {0} is damaged: {1}; repair it (sqlite3's .recover) before it is backed up".format(path, text)
        )
    return DatabaseError("database {0} cannot be {1}: {2}".format(path, what, text))


class DatabaseFile:
    """Checks and queries on one moment of a database.

    ``name`` is what messages call it; ``live`` tells a database that others write to from a copy that nobody else
    touches. Every method raises DatabaseError for what SQLite refuses.
    """

    def __init__(self, path: str, name: str, live: bool = False) -> None:
        self._name = name
        self._live = live
        try:
            self._connection = connect(path, live_mode(path) if live else "immutable")
        except sqlite3.Error as error:
            raise _explained(error, name, "opened") from None

    def __enter__(self) -> DatabaseFile:
        if self._live:
            # Every query after this one sees the same moment.
            self._connection.execute("begin")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._connection.close()

    def _rows(self, query: str, values: Tuple[Any, ...] = ()) -> Iterator[Tuple[Any, ...]]:
        try:
            for row in self._connection.execute(query, values):
                yield tuple(row)
        except sqlite3.Error as error:
            raise _explained(error, self._name, "read") from None

    def quick_check(self) -> None:
        """Raise DatabaseError unless ``pragma quick_check`` answers ok."""
        answers = [str(row[0]) for row in self._rows("pragma quick_check(5)")]
        if answers != ["ok"]:
            raise DatabaseError(
                "database {0} is damaged: {1}; repair it (sqlite3's .recover) before it is backed up".format(
                    self._name, " ".join("; ".join(answers).split())[:500]
                )
            )

    def tables(self) -> Tuple[str, ...]:
        """Return the names of the tables."""
        return tuple(
            str(row[0])
            for row in self._rows(
                "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
            )
        )

    def encoding(self) -> str:
        """Return the database's text encoding, such as ``UTF-8``."""
        return str(next(self._rows("pragma encoding"))[0])

    def require_tables(self, line: ReleaseLine) -> None:
        """Raise DatabaseError when a table is missing that every database of this release line has."""
        missing = sorted(set(line.required_tables) - set(self.tables()))
        if missing:
            raise DatabaseError(
                "database {0} is not one of Papermerge {1}: it has no table {2}; set "
                "papermerge_backup_database_url".format(self._name, line.name, ", ".join(missing))
            )

    def row_counts(self, line: ReleaseLine) -> Dict[str, int]:
        """Return the row counts of the release line's tables that exist."""
        present = set(self.tables())
        return {
            table: int(next(self._rows('select count(*) from "{0}"'.format(table)))[0])
            for table in line.count_tables
            if table in present
        }

    def schema_marker(self, line: ReleaseLine) -> str:
        """Return what tells this schema from its neighbours, such as the name of the last migration."""
        row = next(self._rows(line.schema_marker_query), None)
        return str(row[0]) if row else ""

    def has_row(self, line: ReleaseLine, key: str) -> bool:
        """Tell whether the version row with this key exists."""
        return next(self._rows(line.key_query, (key,)), None) is not None

    def expected_rows(self, line: ReleaseLine) -> Iterator[ExpectedRow]:
        """Yield the version rows, streamed."""
        for row in self._rows(line.rows_query):
            yield line.expected_row(row)


def is_empty_database(path: str) -> bool:
    """Tell whether nothing would be lost by putting a database at this path: absent, or no table in it.

    Side files left beside an absent database count as content: SQLite would replay them into the new one.
    """
    for suffix in SIDE_FILES:
        try:
            if os.path.getsize(path + suffix) > 0 and (suffix != "-shm"):
                return False
        except FileNotFoundError:
            continue
    try:
        if os.path.getsize(path) == 0:
            return True
        with closing(connect(path, "ro")) as connection:
            return connection.execute("select 1 from sqlite_master limit 1").fetchone() is None
    except FileNotFoundError:
        return True
    except sqlite3.Error:
        return False
