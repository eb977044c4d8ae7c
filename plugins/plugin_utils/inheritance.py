# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog of a create that follows another: what is as it was is taken over, line by line of the base's index."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import OK, ArchivedFile
from ansible_collections.papermerge.backup.plugins.module_utils.media.scan import ScannedFile
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.fingerprint import fingerprint_of_text
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import decode_entry, index_line
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartMember
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import _ENTRY, SCANNED, Catalog, _number

_SCHEMA = """
create table fingerprint (line integer primary key, value blob);
create table known (path blob, size integer, sha256 text, part text);
create index known_path on known (path);
"""
#: Lines that are taken in at once, rows that are looked for at once.
CHUNK = 4096
LOOKUPS = 512
#: How this collection writes a line whose texts hold nothing that JSON escapes. Reading all of it as JSON takes longer.
_PLAIN = re.compile(
    rb'\{"path":"([ !#-\[\]-~]+)","size":(\d+),"mode":\d+,"mtime_ns":(-?\d+),"ctime_ns":(-?\d+),"device":\d+,'
    rb'"inode":(\d+),"uid":\d+,"gid":\d+,"owner":"[ !#-\[\]-~]*","group":"[ !#-\[\]-~]*",'
    rb'"sha256":"([0-9a-f]{64})","part":"([0-9a-f]{32})"\}'
)


class InheritingCatalog(Catalog):
    """A catalog whose files may be lines of an earlier snapshot's index, the base.

    An inherited file has the number of its line, and of the line only what a create asks for.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._db.executescript(_SCHEMA)
        self._db.execute("begin")
        self._seen = bytearray()
        self._inherited = 0
        self._moved = False
        #: How many lines of the base name each part, and how many bytes of content these have.
        self.base_counts: Counter[str | None] = Counter()
        self.base_bytes: Counter[str | None] = Counter()

    def __enter__(self) -> InheritingCatalog:
        return self

    @contextlib.contextmanager
    def _little_memory(self) -> Iterator[None]:
        """Let SQLite sort on disk: sorting takes as much memory as the cache may have."""
        self._db.execute("pragma cache_size = -1024")
        try:
            yield
        finally:
            self._db.execute("pragma cache_size = -16384")

    # -- the base -----------------------------------------------------------------------------------------------------

    def load_base(self, lines: Iterable[bytes], usable: Iterable[str], young_ns: int) -> int:
        """Take in the lines of a base's index, and return how many there are. Raises DamageError, then nothing is left.

        ``usable``: the parts whose content can be relied on. A file with a ctime after ``young_ns`` may have been
        changed without a trace after it was read: it is taken in, but recognised by its content only.
        """
        parts = {part.encode("ascii"): part for part in usable}
        self._seen = bytearray()
        self._inherited = 0
        self.base_counts.clear()
        self.base_bytes.clear()
        last = b""
        source = iter(lines)
        try:
            while True:
                rows, prints = [], []
                for number, line in enumerate(islice(source, CHUNK), len(self._seen)):
                    path, size, ctime_ns, sha256, part, value = _parse(line)
                    if path <= last:
                        raise DamageError(f"the index is not sorted at {shown(path)}")
                    last = path
                    rows.append((path, size, _number(ctime_ns), sha256, parts.get(part), number))
                    if part in parts and ctime_ns <= young_ns:
                        prints.append((number, value))
                if not rows:
                    break
                self._seen.extend(bytes(len(rows)))
                for row in rows:
                    self.base_counts[row[4]] += 1
                    self.base_bytes[row[4]] += row[1]
                self._db.executemany(
                    "insert into file (path, size, ctime_ns, sha256, part, line, state)"
                    f" values (?, ?, ?, ?, ?, ?, '{OK}')",
                    rows,
                )
                self._db.executemany("insert into fingerprint values (?, ?)", prints)
            with self._little_memory():
                self._db.execute("create index fingerprint_value on fingerprint (value)")
        except DamageError:
            self._db.execute("delete from file where line is not null")
            self._db.execute("delete from fingerprint")
            self._seen = bytearray()
            raise
        return len(self._seen)

    def hold_base(self) -> None:
        """Note that the base is the newest complete snapshot: what it holds can be lost."""
        # A file that was empty then held nothing that could be lost now.
        self._db.execute("insert into held select path, sha256 from file where line is not null and size > 0")

    # -- the scan -----------------------------------------------------------------------------------------------------

    def inherit(self, prints: Sequence[bytes]) -> list[int]:
        """Take over the files with these fingerprints. Returns the positions of those that the base does not have."""
        found: dict[bytes, int] = {}
        for start in range(0, len(prints), LOOKUPS):
            asked = prints[start : start + LOOKUPS]
            marks = ",".join("?" * len(asked))
            found.update(self._db.execute(f"select value, line from fingerprint where value in ({marks})", asked))
        for number in found.values():
            self._seen[number] = 1
        self._inherited += len(found)
        return [position for position, value in enumerate(prints) if value not in found]

    def replace(self, files: Iterable[ScannedFile]) -> None:
        """Take files that are not as the base has them. What it has of them stays known as content."""
        rows = list(files)
        self._db.executemany(
            "insert into known select path, size, sha256, part from file"
            " where path = ? and line is not null and part is not null",
            ((file.path,) for file in rows),
        )
        self.add_scanned(rows)

    def forget_unseen(self) -> None:
        """Forget what the base has and the host has no more."""
        if self._inherited == len(self._seen):
            return
        after = b""
        while True:
            found = self._db.execute(
                "select path, line from file where line is not null and path > ? order by path limit ?",
                (after, CHUNK),
            ).fetchall()
            if not found:
                return
            after = found[-1][0]
            gone = ((path,) for path, number in found if not self._seen[number])
            self._db.executemany("delete from file where path = ?", gone)

    # -- content that is known ----------------------------------------------------------------------------------------

    def add_known(self, members: Iterable[PartMember], part: str) -> int:
        """Note members of a part that may be what an unread file holds. Returns how many were."""
        return self._db.executemany(
            "insert into known select ?1, ?2, ?3, ?4 where exists"
            f" (select 1 from file where path = ?1 and size = ?2 and state = '{SCANNED}')",
            ((member.path, member.size, member.sha256, part) for member in members),
        ).rowcount

    def recognisable(self, after: bytes, limit: int) -> list[tuple[bytes, int]]:
        """Return the next unread files behind a path whose path and size are known: (path, size in bytes)."""
        return self._db.execute(
            "select distinct f.path, f.size from known k join file f on f.path = k.path and f.size = k.size"
            f" where f.state = '{SCANNED}' and k.path > ? order by k.path limit ?",
            (after, limit),
        ).fetchall()

    def recognise(self, files: Iterable[ArchivedFile]) -> None:
        """Take files as hashed on the host; those whose content a part has are in that part, the others stay unread."""
        by_part: dict[str, list[ArchivedFile]] = {}
        for file in files:
            found = self._db.execute(
                "select part from known where path = ? and size = ? and sha256 = ? order by rowid limit 1",
                (file.path, file.size, file.sha256),
            ).fetchone()
            if found is not None:
                by_part.setdefault(found[0], []).append(file)
        for part, known in by_part.items():
            self.add_archived(known, part)

    # -- content that is copied ---------------------------------------------------------------------------------------

    def files_of(self, part: str) -> dict[bytes, str]:
        """Return the files that a part holds of this snapshot: SHA-256 by path."""
        return dict(self._db.execute("select path, sha256 from file where part = ?", (part,)).fetchall())

    def move(self, paths: Iterable[bytes], part: str) -> None:
        """Note that files are in another part, as they were in the one before."""
        self._moved = True
        self._db.executemany("update file set part = ? where path = ?", ((part, path) for path in paths))

    def distrust(self, paths: Iterable[bytes]) -> None:
        """Make files unread that no part has after all."""
        self._db.executemany(
            f"update file set part = null, line = null, state = '{SCANNED}' where path = ?", ((path,) for path in paths)
        )

    # -- asking -------------------------------------------------------------------------------------------------------

    def used_parts(self) -> dict[str, int]:
        """Return the parts that hold a file, each with the bytes of content that are used of it."""
        with self._little_memory():
            return dict(
                self._db.execute("select part, sum(size) from file where part is not null group by part").fetchall()
            )

    def is_base(self) -> bool:
        """Tell whether the index is that of the base, line by line."""
        if self._moved or not self._seen:
            return False
        stored, inherited = self._db.execute("select count(*), count(line) from file where part is not null").fetchone()
        return bool(stored == inherited == len(self._seen))

    def index_lines(self, base: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines of the new index, each with its newline. ``base``: the lines that were loaded."""
        lines = iter(base)
        position = -1
        line = b""
        for *fields, number in self._db.execute(
            f"select {_ENTRY}, line from file where part is not null order by path"
        ):
            if number is None:
                yield index_line(*fields)
                continue
            while position < number:
                line = next(lines, b"")
                position += 1
                if not line:
                    raise DamageError("the index of the snapshot before became shorter while it was read")
            if line[-34:-2] == fields[-1].encode("ascii"):
                yield line + b"\n"
            else:
                # Its content was copied into another part, or somebody else wrote the line.
                yield decode_entry(line)._replace(part=fields[-1]).encode()


def _parse(line: bytes) -> tuple[bytes, int, int, str, bytes, bytes]:
    """Return path, size, ctime in nanoseconds, SHA-256, part and fingerprint of an index line. Raises DamageError."""
    match = _PLAIN.fullmatch(line)
    if match is None:
        entry = decode_entry(line)
        numbers = b"%d %d %d %d" % (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode)
        value = fingerprint_of_text(entry.path, numbers)
        return entry.path, entry.size, entry.ctime_ns, entry.sha256, entry.part.encode("ascii"), value
    path, size, mtime, ctime, inode, sha256, part = match.groups()
    value = fingerprint_of_text(path, b"%b %b %b %b" % (size, mtime, ctime, inode))
    return path, int(size), int(ctime), sha256.decode("ascii"), part, value
