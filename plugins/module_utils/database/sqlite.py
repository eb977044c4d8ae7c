# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite: a consistent copy under a writing application, checks, counts.

The copy is made with the online backup API (https://www.sqlite.org/backup.html). A step holds a shared lock; a commit
of another process between two steps makes the backup start again from the first page. On a busy database that would
never end, so after some restarts the rest is one step, during which writers in rollback-journal mode have to wait.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Iterator, Optional, Tuple
from urllib.parse import quote

from ..durable import PRIVATE_FILE, pieces
from ..errors import BackupError, DatabaseError, SpaceError, describe_os_error
from ..owners import owner_of
from ..papermerge.releases import ReleaseLine
from .engine import Database, Dump, Progress, Workspace
from .view import View

LIBRARY_VERSION = sqlite3.sqlite_version
MAGIC = b"SQLite format 3\0"
STEP_PAGES = 2048
#: Restarts by other processes' commits before the copy is finished in one locking step.
RESTARTS = 5
#: Seconds to wait for a lock that another process holds.
LOCK_PATIENCE = 60.0
#: Files of a database beside the file itself.
SIDE_FILES = ("-wal", "-shm", "-journal")


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


class DatabaseFile(View):
    """One moment of a database file.

    ``live`` tells a database that others write to from a copy that nobody else touches.
    """

    def __init__(self, path: str, name: str, live: bool = False) -> None:
        self.name = name
        try:
            self._connection = connect(path, live_mode(path) if live else "immutable")
            if live:
                # Every query after this one sees the same moment.
                self._connection.execute("begin")
        except sqlite3.Error as error:
            raise _explained(error, name, "opened") from None

    def close(self) -> None:
        self._connection.close()

    def rows(self, query: str) -> Iterator[Tuple[Any, ...]]:
        try:
            for row in self._connection.execute(query):
                yield tuple(row)
        except sqlite3.Error as error:
            raise _explained(error, self.name, "read") from None

    def quick_check(self) -> None:
        """Raise DatabaseError unless ``pragma quick_check`` answers ok."""
        answers = [str(row[0]) for row in self.rows("pragma quick_check(5)")]
        if answers != ["ok"]:
            raise DatabaseError(
                "database {0} is damaged: {1}; repair it (sqlite3's .recover) before it is backed up".format(
                    self.name, " ".join("; ".join(answers).split())[:500]
                )
            )

    def tables(self) -> Tuple[str, ...]:
        return tuple(
            str(row[0])
            for row in self.rows(
                "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
            )
        )

    def encoding(self) -> str:
        """Return the database's text encoding, such as ``UTF-8``."""
        return str(next(self.rows("pragma encoding"))[0])


class SqliteDatabase(Database):
    """A database file."""

    dump_format = "sqlite3"

    def check(self) -> None:
        check_database_file(self.place.path, self.found_in)

    def size(self) -> int:
        """Return the size in bytes with the write-ahead log."""
        return sum(_size(self.place.path + suffix) for suffix in ("", "-wal"))

    def view(self) -> View:
        return DatabaseFile(self.place.path, self.place.path, live=True)

    @contextlib.contextmanager
    def dump(self, line: ReleaseLine, workspace: Workspace, progress: Progress) -> Iterator[Dump]:
        place = self.place.path
        size = self.size()
        status = os.stat(place)
        copy = workspace(os.path.dirname(place), size + (size >> 5) + (1 << 20))("database.sqlite3")
        report = copy_database(place, copy, progress)
        with DatabaseFile(copy, place) as view:
            view.quick_check()
            view.require_tables(line)
            facts = {
                "server_version": LIBRARY_VERSION,
                "client": "python sqlite3 {0}".format(LIBRARY_VERSION),
                "encoding": view.encoding(),
                "locale": None,
                "mode": status.st_mode & 0o777,
                "owner": owner_of(status),
                "journal_mode": report.journal_mode,
                "restarts": report.restarts,
                "locked_seconds": report.locked_seconds,
            }

            def content() -> Iterator[bytes]:
                with open(copy, "rb", buffering=0) as stream:
                    yield from pieces(stream)

            yield Dump(content, lambda: view, report.moment_ns, report.size, facts)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


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
