# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two snapshots side by side: which files came, went, or have another content, and whose they are."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.papermerge.backup.plugins.module_utils.database.view import KEY, KEYS_BATCH
from ansible_collections.papermerge.backup.plugins.module_utils.durable import open_private, sync_file
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DamageError,
    RepositoryError,
    SettingError,
    describe_os_error,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import (
    ReleaseLine,
    release_line_named,
)
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_fields
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import decode_entry, lines
from ansible_collections.papermerge.backup.plugins.plugin_utils.documents import plain_key, shown_key
from ansible_collections.papermerge.backup.plugins.plugin_utils.index_search import path_of_line
from ansible_collections.papermerge.backup.plugins.plugin_utils.pgdump import Wanted
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import require_zstandard, storage_errors
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import media_of, open_dump, scratch_directory

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
CHANGES = (ADDED, REMOVED, CHANGED)
#: ``other``: neither an original nor what Papermerge can make again, or of a release that nobody knows.
ORIGINAL, DERIVED, OTHER = "original", "derived", "other"
KINDS = {"originals": ORIGINAL, "derived": DERIVED, "other": OTHER}
#: As many differences are in the result; the others go to a file.
NAMED_DIFFERENCES = 100
NOBODY = ""
_CONTENT = re.compile(rb'"size":(\d+),.*"sha256":"([0-9a-f]{64})","part":"[0-9a-f]{32}"}\Z')
_SCHEMA = (
    "create table difference (path blob primary key, change text, kind text, size integer, size_before integer,"
    " owner_key text, owner text) without rowid"
)


class Difference(NamedTuple):
    """``size`` in bytes, in the newer snapshot, and ``size_before`` in the base; None where there is no such file."""

    path: bytes
    change: str
    size: int | None
    size_before: int | None


@dataclass(kw_only=True)
class CompareRequest:
    """``base``: the older snapshot, of ``base_place`` where that is another instance; None: the one before."""

    snapshot: str = "latest"
    base: str | None = None
    dest: str | None = None


def differences(before: Iterable[bytes], now: Iterable[bytes]) -> Iterator[Difference | None]:
    """Merge the lines of two indexes, which are sorted. Yields None for each file that both have alike."""
    old, new = _Lines(before), _Lines(now)
    while not (old.ended and new.ended):
        if old.line == new.line:
            yield None
            old.step()
            new.step()
        elif old.ended or (not new.ended and new.path < old.path):
            yield Difference(new.path, ADDED, new.content()[0], None)
            new.step()
        elif new.ended or old.path < new.path:
            yield Difference(old.path, REMOVED, None, old.content()[0])
            old.step()
        else:
            (size_before, sha256_before), (size, sha256) = old.content(), new.content()
            yield None if sha256 == sha256_before else Difference(new.path, CHANGED, size, size_before)
            old.step()
            new.step()


class _Lines:
    """The lines of an index, one at a time. After the last it has ``ended``, and ``line`` is none that an index has."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)
        self._last = b""
        self.ended = False
        self.step()

    def step(self) -> None:
        self._path: bytes | None = None
        line = next(self._source, None)
        self.ended, self.line = line is None, line or b""

    @property
    def path(self) -> bytes:
        if self._path is None:
            self._path = path_of_line(self.line)
            if self._path <= self._last:
                raise DamageError("the index is not sorted")
            self._last = self._path
        return self._path

    def content(self) -> tuple[int, bytes]:
        """Return the size in bytes and the SHA-256 of the file."""
        found = _CONTENT.search(self.line)
        if found is not None:
            return int(found[1]), found[2]
        entry = decode_entry(self.line)
        return entry.size, entry.sha256.encode("ascii")


class Comparison:
    """The differences of two snapshots, in a scratch file in the directory ``scratch``."""

    def __init__(
        self,
        base: tuple[InstanceDirectory, StoredSnapshot],
        newer: tuple[InstanceDirectory, StoredSnapshot],
        progress: Progress,
        scratch: Path,
    ) -> None:
        require_zstandard()
        self._sides = base, newer
        self._manifests = base[1].require_manifest(), newer[1].require_manifest()
        self._lines = tuple(release_line_named(manifest.release_line) for manifest in self._manifests)
        self._progress = progress
        self._scratch = scratch
        self.unchanged = 0
        path = scratch / "differences.sqlite3"
        open_private(path).close()
        self._db = sqlite3.connect(path, isolation_level=None)
        for statement in ("pragma journal_mode = off", "pragma synchronous = off", _SCHEMA, "begin"):
            self._db.execute(statement)

    def close(self) -> None:
        self._db.close()

    def merge(self) -> None:
        """Read both indexes and keep what differs."""
        media = [media_of(place, snapshot) for place, snapshot in self._sides]
        self._progress.begin("indexes", max(one.files for one in media), "files")
        before, now = (lines(one.index_text()) for one in media)
        done = 0

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal done
            for found in differences(before, now):
                done += 1
                if not done & 0xFFFF:
                    self._progress.update(done)
                if found is None:
                    self.unchanged += 1
                else:
                    line = self._lines[0 if found.change == REMOVED else 1]
                    key = _owner_key(line, found.path)
                    yield *found[:2], _kind(line, found.path), found.size, found.size_before, key

        self._db.executemany(
            "insert into difference (path, change, kind, size, size_before, owner_key) values (?, ?, ?, ?, ?, ?)",
            rows(),
        )

    def find_owners(self) -> bool:
        """Find out whose the originals are. Returns whether anybody can tell."""
        known = True
        for number, changes in ((0, (REMOVED,)), (1, (ADDED, CHANGED))):
            line, (_place, snapshot) = self._lines[number], self._sides[number]
            condition = "kind = '{}' and change in ({})".format(ORIGINAL, ", ".join(f"'{name}'" for name in changes))
            if not self._db.execute(f"select 1 from difference where {condition} limit 1").fetchone():
                known = known and line.tree is not None
                continue
            directory = self._scratch / str(number)
            directory.mkdir(mode=0o700)
            self._db.execute("create index if not exists owner_key on difference (owner_key)")
            known = self._ask(line, snapshot, directory, condition) and known
        return known

    def _ask(self, line: ReleaseLine, snapshot: StoredSnapshot, directory: Path, condition: str) -> bool:
        if line.tree is None:
            return False
        with open_dump(snapshot, line, self._progress, directory, Wanted(line.tree)) as view:
            after = ""
            while keys := self._keys(condition, after):
                after = keys[-1]
                # Engines write UUIDs with dashes or without.
                literals = ", ".join(f"'{text}'" for key in keys for text in (key, shown_key(key)) if KEY.match(text))
                owners = view.rows(f"{line.tree.owners} where {line.tree.owners_key} in ({literals})")
                self._db.executemany(
                    f"update difference set owner = ? where owner_key = ? and {condition}",
                    [(str(name or NOBODY), plain_key(key)) for key, name in owners],
                )
        return True

    def _keys(self, condition: str, after: str) -> list[str]:
        found = self._db.execute(
            f"select distinct owner_key from difference where owner_key > ? and {condition} order by owner_key limit ?",
            (after, KEYS_BATCH),
        )
        return [key for (key,) in found]

    # -- what came out ------------------------------------------------------------------------------------------------

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return counts and bytes by kind and change; those of changed files are the bytes of the newer ones."""
        found = {kind: {change: {"files": 0, "bytes": 0} for change in CHANGES} for kind in KINDS}
        names = {kind: name for name, kind in KINDS.items()}
        for kind, change, count, size in self._db.execute(
            "select kind, change, count(*), sum(coalesce(size, size_before)) from difference group by kind, change"
        ):
            found[names[kind]][change] = {"files": count, "bytes": size}
        return found

    def users(self) -> list[dict[str, Any]]:
        """Return counts and bytes of originals by owner, for owners of which something differs."""
        users: dict[str, dict[str, Any]] = {}
        for owner, change, count, size in self._db.execute(
            "select coalesce(owner, ''), change, count(*), sum(coalesce(size, size_before)) from difference"
            f" where kind = '{ORIGINAL}' group by 1, 2 order by 1"
        ):
            user = users.setdefault(
                owner, {"user": owner or None, **{name: {"files": 0, "bytes": 0} for name in CHANGES}}
            )
            user[change] = {"files": count, "bytes": size}
        return list(users.values())

    def rows(self, limit: int = -1) -> Iterator[dict[str, Any]]:
        """Yield the differences, originals first, each kind by path."""
        for path, change, kind, size, before, owner in self._db.execute(
            "select path, change, kind, size, size_before, owner from difference"
            f" order by case kind when '{ORIGINAL}' then 0 when '{OTHER}' then 1 else 2 end, path limit ?",
            (limit,),
        ):
            yield {
                **path_fields(path),
                "change": change,
                "kind": kind,
                "user": owner or None,
                "size_before": before,
                "size": size,
            }

    def write(self, dest: Path) -> None:
        """Write all differences to a new private file, a JSON object a line."""
        with storage_errors(dest), open_private(dest) as stream:
            for row in self.rows():
                stream.write(json.dumps(row).encode("ascii") + b"\n")
            sync_file(stream)

    def row_counts(self) -> dict[str, dict[str, int | None]]:
        """Return the row counts of both databases by table."""
        before, now = (manifest.row_counts for manifest in self._manifests)
        return {table: {"before": before.get(table), "now": now.get(table)} for table in sorted({*before, *now})}


def _kind(line: ReleaseLine, path: bytes) -> str:
    top = path.partition(b"/")[0]
    return ORIGINAL if top in line.originals else DERIVED if top in line.derived else OTHER


def _owner_key(line: ReleaseLine, path: bytes) -> str | None:
    found = line.tree.owner_key.match(path) if line.tree is not None else None
    return plain_key(found[1].decode("utf-8", "replace")) if found is not None else None


def free_file(dest: str) -> Path:
    """Return a file on the controller that does not exist yet, in a directory that does. Raises SettingError."""
    path = Path(dest).expanduser().absolute()
    if not path.parent.is_dir():
        raise SettingError(f"directory {path.parent} does not exist on the controller")
    try:
        path.lstat()
    except FileNotFoundError:
        return path
    except OSError as error:
        raise SettingError(f"cannot write to {describe_os_error(error)}") from None
    raise SettingError(f"{path} is there already, and nothing is overwritten; name another dest")


def _base_of(place: InstanceDirectory, newer: StoredSnapshot, base_place: InstanceDirectory, base: str | None) -> str:
    if base is not None:
        return base
    if base_place.path != place.path:
        return "latest"
    for snapshot in place.complete():
        if snapshot.sequence < newer.sequence:
            return snapshot.id
    raise RepositoryError(
        f"instance {place.name} has no complete snapshot before {newer.id} to compare it with; set "
        "papermerge_backup_base"
    )


def compare(
    place: InstanceDirectory, base_place: InstanceDirectory, request: CompareRequest, progress: Progress, write: bool
) -> dict[str, Any]:
    """Compare a snapshot with an older one; returns counts, and the first of the differences.

    ``write``: all of them go to the request's ``dest``, if it names a file. Raises a BackupError.
    """
    begun = time.monotonic()
    dest = free_file(request.dest) if request.dest is not None else None
    newer = place.select(request.snapshot)
    base = base_place.select(_base_of(place, newer, base_place, request.base))
    with scratch_directory() as scratch:
        comparison = Comparison((base_place, base), (place, newer), progress, scratch)
        try:
            comparison.merge()
            by_user = comparison.find_owners()
            if dest is not None and write:
                comparison.write(dest)
            totals = comparison.totals()
            first = list(comparison.rows(NAMED_DIFFERENCES))
            users = comparison.users() if by_user else None
            counts = comparison.row_counts()
        finally:
            comparison.close()
    layouts = [str(one.require_manifest().media.get("layout")) for one in (base, newer)]
    return {
        "instance": place.name,
        "snapshot": newer.id,
        "base_instance": base_place.name,
        "base": base.id,
        "same_layout": layouts[0] == layouts[1],
        "unchanged": comparison.unchanged,
        **totals,
        "users": users,
        "differences": first,
        "difference_count": sum(one["files"] for kind in totals.values() for one in kind.values()),
        "row_counts": counts,
        "dest": str(dest) if dest is not None else None,
        "seconds": round(time.monotonic() - begun, 3),
    }
