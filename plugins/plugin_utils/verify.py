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
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.agent.configuration import read_configuration
from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import (
    OwnDirectory,
    remove_abandoned,
    require_space,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.rows import read_dump
from ansible_collections.papermerge.backup.plugins.module_utils.database.sqlite import DatabaseFile
from ansible_collections.papermerge.backup.plugins.module_utils.database.view import View
from ansible_collections.papermerge.backup.plugins.module_utils.durable import open_private
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, UnsupportedError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import (
    ReleaseLine,
    release_line_named,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import differences
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.pgdump import Wanted, read_archive
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
    read_stored,
    require_zstandard,
    storage_errors,
    stored_size,
    unpack,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import StoredMedia

SCRATCH_PURPOSE = "scratch"


def check_sizes(place: InstanceDirectory, directory: Path, manifest: Manifest) -> None:
    """Raise DamageError unless everything that a manifest names is there with the right size.

    ``directory`` holds the snapshot's own files.
    """
    files = (manifest.database_file, manifest.index_file, manifest.config_file)
    sizes = {directory / file.name: file.size for file in files if file is not None}
    for part in manifest.parts:
        sizes[place.part_path(part.id)] = part.size
        sizes[place.record_path(part.id)] = part.record_size
    for path, size in sizes.items():
        found = stored_size(path)
        if found is None:
            raise DamageError(f"{path} is missing")
        if found != size:
            raise DamageError(f"{path} has {found:,} bytes, the manifest says {size:,}")
    strangers = sorted(set(os.listdir(directory)) - {path.name for path in sizes} - {MANIFEST, CHECKSUM})
    if strangers:
        raise DamageError(f"{directory} holds files that the manifest does not name: {strangers[:3]}")


def media_of(place: InstanceDirectory, snapshot: StoredSnapshot) -> StoredMedia:
    """Return the media of a snapshot."""
    manifest = snapshot.require_manifest()
    index_path = snapshot.directory / manifest.index_file.name
    files = int(manifest.totals.get("files", -1))
    return StoredMedia(snapshot.id, index_path, manifest.index_file, place.parts_path, manifest.parts, files)


def plain_database(snapshot: StoredSnapshot) -> Iterator[bytes]:
    """Yield the content of a snapshot's dump, checked against the manifest as stored and as content."""
    manifest = snapshot.require_manifest()
    file = manifest.database_file
    path = snapshot.directory / file.name
    content = unpack(checked(read_stored(path), file.size, file.sha256, str(path)), file.plain_size, str(path))
    return checked(content, file.plain_size, str(manifest.database["plain_sha256"]), f"the database in {path}")


def plain_config(snapshot: StoredSnapshot) -> Iterator[bytes]:
    """Yield the tar of a snapshot's settings, checked against the manifest; nothing where it has none."""
    manifest = snapshot.require_manifest()
    file = manifest.config_file
    if file is None:
        return
    path = snapshot.directory / file.name
    content = unpack(checked(read_stored(path), file.size, file.sha256, str(path)), file.plain_size, str(path))
    yield from checked(content, file.plain_size, manifest.fields["config"]["plain_sha256"], f"the settings in {path}")


class Verification:
    """One snapshot's verification. ``scratch`` is a directory for files that can be thrown away."""

    def __init__(self, place: InstanceDirectory, snapshot: StoredSnapshot, progress: Progress, scratch: Path) -> None:
        self._place = place
        self._snapshot = snapshot
        self._progress = progress
        self._scratch = scratch
        self.manifest = snapshot.require_manifest()
        self.media = media_of(place, snapshot)

    def verify(self, level: str) -> dict[str, Any]:
        """Verify at a level: quick, full or deep. Returns counts; raises DamageError at the first damage."""
        check_sizes(self._place, self._snapshot.directory, self.manifest)
        checked_parts = len(self.manifest.parts)
        result: dict[str, Any] = {"level": level, "parts": checked_parts}
        if level == "quick":
            return result
        require_zstandard()
        with Catalog(self._scratch / "verify.sqlite3") as catalog:
            result.update(self.check_stored(catalog))
            if level == "deep":
                result["unpacked_files"] = self.media.unpack_all(self._progress)
                result.update(self._open_database())
        return result

    def check_stored(self, catalog: Catalog) -> dict[str, Any]:
        """Check every stored byte and fill a catalog from the index. Raises DamageError."""
        stored = self.media.stored_bytes + self.manifest.database_file.size
        self._progress.begin("verify", stored)
        self.media.check(catalog, self._progress)
        for _piece in plain_database(self._snapshot):
            pass
        if self.manifest.config_file is not None:
            read_configuration(plain_config(self._snapshot), self.manifest.config_entries)
        return {"files": self.media.files, "checked_bytes": stored}

    def _open_database(self) -> dict[str, Any]:
        """Look into the database without its server, and compare its counts and rows with the manifest."""
        line = release_line_named(self.manifest.release_line)
        view = open_dump(self._snapshot, line, self._progress, self._scratch)
        with view, Catalog(self._scratch / "rows.sqlite3") as catalog:
            require_same_counts(self.manifest, view.row_counts(line), view.schema_marker(line))
            catalog.add_expected(
                (row.path, row.row, row.key) for row in view.expected_rows(line) if row.path is not None
            )
            catalog.add_entries(self.media.entries())
            proved = require_same_proof(self.manifest, catalog)
        return {"row_counts_compared": len(self.manifest.row_counts), "proved": proved}


def open_dump(
    snapshot: StoredSnapshot, line: ReleaseLine, progress: Progress, scratch: Path, wanted: Wanted | None = None
) -> View:
    """Return what a snapshot's dump holds, looked into without its server; the caller closes it.

    ``scratch``: where an SQLite database is unpacked to. It is checked, unless only titles and owners are ``wanted``.
    Raises DamageError, DatabaseError, ToolError where no pg_restore is at hand.
    """
    manifest = snapshot.require_manifest()
    progress.begin("database", manifest.database_file.plain_size)
    content = counted(plain_database(snapshot), progress.advance)
    name = f"the database of {snapshot.id}"
    if manifest.engine == "postgresql":
        return read_archive(content, name, line, [str(name) for name in manifest.database.get("schemas") or []], wanted)
    if manifest.engine == "mysql":
        return read_dump(content, name, line, wanted.tree if wanted is not None else None)
    if manifest.engine != "sqlite":
        raise UnsupportedError(f"a dump of {manifest.engine} cannot be looked into")
    path = scratch / "database.sqlite3"
    require_space(str(scratch), manifest.database_file.plain_size, "the unpacked database")
    with storage_errors(path), open_private(path) as stream:
        for piece in content:
            stream.write(piece)
    database = DatabaseFile(str(path), f"of {snapshot.id}")
    try:
        if wanted is None:
            database.quick_check()
    except BaseException:
        database.close()
        raise
    return database


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
