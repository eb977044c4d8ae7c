# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verification of a snapshot: quick, full or deep. Nothing is changed but the instance's history.

- quick: manifest and checksum agree, everything that the manifest names is there with the right size;
- full: and every stored file has its SHA-256, every record and the index say the same of every media file;
- deep: and every part unpacks to what its record says, the database opens and has the manifest's row counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import (
    OwnDirectory,
    remove_abandoned,
    require_space,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.sqlite import DatabaseFile
from ansible_collections.papermerge.backup.plugins.module_utils.durable import ExactReader, open_private
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.media.tar import TarReader
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import release_line_named
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import IndexEntry, read_index
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartRecord
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import differences
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import (
    CHECKSUM,
    MANIFEST,
    InstanceDirectory,
    StoredSnapshot,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    checked,
    counted,
    load_record,
    read_stored,
    require_zstandard,
    storage_errors,
    stored_size,
    unpack,
)

SCRATCH_PURPOSE = "scratch"
LEVELS = ("quick", "full", "deep")


def check_sizes(place: InstanceDirectory, directory: Path, manifest: Manifest) -> None:
    """Raise DamageError unless everything that a manifest names is there with the right size.

    ``directory`` holds the snapshot's own files.
    """
    sizes = {directory / file.name: file.size for file in (manifest.database_file, manifest.index_file)}
    for part in manifest.parts:
        sizes[place.part_path(part.id)] = part.size
        sizes[place.record_path(part.id)] = part.record_size
    for path, size in sizes.items():
        found = stored_size(path)
        if found is None:
            raise DamageError(f"{path} is missing")
        if found != size:
            raise DamageError(f"{path} has {found:,} bytes, the manifest says {size:,}")
    strangers = sorted(
        set(os.listdir(directory)) - {path.name for path in sizes} - {MANIFEST, CHECKSUM, "config.tar.zst"}
    )
    if strangers:
        raise DamageError(f"{directory} holds files that the manifest does not name: {strangers[:3]}")


def read_entries(snapshot: StoredSnapshot) -> Iterator[IndexEntry]:
    """Yield a snapshot's index, checked against the manifest. Raises DamageError, at the end for a changed byte."""
    manifest = snapshot.require_manifest()
    file = manifest.index_file
    path = snapshot.directory / file.name
    content = unpack(checked(read_stored(path), file.size, file.sha256, str(path)), file.plain_size, str(path))
    yield from read_index(content)


def plain_database(snapshot: StoredSnapshot) -> Iterator[bytes]:
    """Yield the content of a snapshot's dump, checked against the manifest as stored and as content."""
    manifest = snapshot.require_manifest()
    file = manifest.database_file
    path = snapshot.directory / file.name
    content = unpack(checked(read_stored(path), file.size, file.sha256, str(path)), file.plain_size, str(path))
    return checked(content, file.plain_size, str(manifest.database["plain_sha256"]), f"the database in {path}")


class Verification:
    """One snapshot's verification. ``scratch`` is a directory for files that can be thrown away."""

    def __init__(self, place: InstanceDirectory, snapshot: StoredSnapshot, progress: Progress, scratch: Path) -> None:
        self._place = place
        self._snapshot = snapshot
        self._progress = progress
        self._scratch = scratch
        self.manifest = snapshot.require_manifest()

    def verify(self, level: str) -> dict[str, Any]:
        """Verify at a level of LEVELS. Returns counts of what was checked; raises DamageError at the first damage."""
        check_sizes(self._place, self._snapshot.directory, self.manifest)
        checked_parts = len(self.manifest.parts)
        result: dict[str, Any] = {"level": level, "parts": checked_parts}
        if level == "quick":
            return result
        require_zstandard()
        with Catalog(self._scratch / "verify.sqlite3") as catalog:
            result.update(self.check_stored(catalog))
            if level == "deep":
                result.update(self._unpack_parts())
                result.update(self._open_database())
        return result

    def check_stored(self, catalog: Catalog) -> dict[str, Any]:
        """Check every stored byte and fill a catalog from the index. Raises DamageError."""
        sizes = [part.size + part.record_size for part in self.manifest.parts]
        self._progress.begin("verify", sum(sizes) + self.manifest.database_file.size + self.manifest.index_file.size)
        files = 0

        def entries() -> Iterator[IndexEntry]:
            nonlocal files
            for entry in read_entries(self._snapshot):
                files += 1
                yield entry

        catalog.add_entries(entries())
        catalog.index_by_part()
        if files != self.manifest.totals.get("files"):
            raise DamageError(
                "the index of {} has {:,} files, its manifest says {}".format(
                    self._snapshot.id, files, self.manifest.totals.get("files")
                )
            )
        found = 0
        for part in self.manifest.parts:
            record = load_record(self._place.record_path(part.id), part)
            found += self._compare(catalog, record)
            path = self._place.part_path(part.id)
            for piece in checked(read_stored(path), part.size, part.sha256, str(path)):
                self._progress.advance(len(piece))
        if found != files:
            raise DamageError(
                f"the index of {self._snapshot.id} names {files - found} files that no part of the manifest holds"
            )
        for piece in plain_database(self._snapshot):
            self._progress.advance(len(piece))
        return {"files": files, "stored_bytes": sum(sizes)}

    @staticmethod
    def _compare(catalog: Catalog, record: PartRecord) -> int:
        """Check that a part's record has every file that the index says it has; returns how many."""
        members = {member.path: member for member in record.members}
        count = 0
        for entry in catalog.entries(record.part):
            member = members.get(entry.path)
            if member is None or (member.size, member.sha256) != (entry.size, entry.sha256):
                raise DamageError(f"the index and the record of part {record.part} disagree about {shown(entry.path)}")
            count += 1
        return count

    def _unpack_parts(self) -> dict[str, Any]:
        sizes = sum(part.size for part in self.manifest.parts)
        self._progress.begin("unpack", sizes)
        files = 0
        for part in self.manifest.parts:
            record = load_record(self._place.record_path(part.id), part)
            path = self._place.part_path(part.id)
            files += check_part(counted(read_stored(path), self._progress.advance), record, str(path))
        return {"unpacked_files": files}

    def _open_database(self) -> dict[str, Any]:
        """Unpack the database to a file, open it, and compare its counts with the manifest."""
        self._progress.begin("database", self.manifest.database_file.plain_size)
        line = release_line_named(self.manifest.release_line)
        path = self._scratch / "database.sqlite3"
        require_space(str(self._scratch), self.manifest.database_file.plain_size, "a deep verification")
        with storage_errors(path), open_private(path) as stream:
            for piece in plain_database(self._snapshot):
                stream.write(piece)
                self._progress.advance(len(piece))
        proved = 0
        with (
            DatabaseFile(str(path), f"of {self._snapshot.id}") as database,
            Catalog(self._scratch / "rows.sqlite3") as catalog,
        ):
            database.quick_check()
            require_same_counts(self.manifest, database.row_counts(line), database.schema_marker(line))
            catalog.add_expected(
                (row.path, row.row, row.key) for row in database.expected_rows(line) if row.path is not None
            )
            catalog.add_entries(read_entries(self._snapshot))
            proved = require_same_proof(self.manifest, catalog)
        return {"row_counts_compared": len(self.manifest.row_counts), "proved": proved}


def require_same_counts(manifest: Manifest, counts: dict[str, int], marker: str) -> None:
    """Raise DamageError unless a database has the manifest's row counts and schema marker."""
    for table, stored, found in differences(manifest.row_counts, counts):
        raise DamageError(f"table {table} has {found} rows, the manifest of {manifest.id} says {stored}")
    if marker != manifest.database["schema_marker"]:
        raise DamageError(
            "the database has schema {}, the manifest of {} says {}".format(
                marker, manifest.id, manifest.database["schema_marker"]
            )
        )


def require_same_proof(manifest: Manifest, catalog: Catalog) -> int:
    """Check that of the expected files exactly as many are in the index as the manifest's proof says.

    Returns that number. Raises DamageError.
    """
    proved = sum(
        1
        for _path, _row, state, _held in catalog.expected_states()
        if state is not None and state.indexed and state.size > 0
    )
    if proved != manifest.proof["proved"]:
        raise DamageError(
            "{} of the files that the database expects are in the index, the proof of {} says {}".format(
                proved, manifest.id, manifest.proof["proved"]
            )
        )
    return proved


def check_part(stored: Iterator[bytes], record: PartRecord, name: str) -> int:
    """Unpack a part's stored bytes in bounded streams and compare every member with its record. Returns how many."""
    plain = unpack(stored, record.tar_size, name)
    reader = TarReader(ExactReader(plain).read, record.tar_size)
    for expected in record.members:
        member = reader.next_member()
        if member is None or (member.path, member.size) != (expected.path, expected.size):
            raise DamageError(f"{name} does not hold {shown(expected.path)} where its record says so")
        digest = hashlib.sha256()
        reader.content(member.size, digest.update)
        if digest.hexdigest() != expected.sha256:
            raise DamageError(f"{name}: the content of {shown(expected.path)} is not what its record says")
    if reader.next_member() is not None:
        raise DamageError(f"{name} holds more than its record says")
    reader.finish()
    return len(record.members)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Yield a private directory for what can be thrown away: in TMPDIR, else in /var/tmp, which is on a disk."""
    parent = os.environ.get("TMPDIR", "/var/tmp")
    remove_abandoned(parent, SCRATCH_PURPOSE)
    directory = OwnDirectory(parent, SCRATCH_PURPOSE)
    try:
        yield Path(directory.path)
    finally:
        directory.remove()
