# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The damaged twin: a copy of a snapshot that is damaged on purpose, to see that damage would have been seen.

Only what is damaged is copied; everything else is read where it lies, and nothing in the repository is touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import make_private_directory, write_private
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_json
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import (
    Manifest,
    checksum_line,
    decode_manifest,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import TwinDamage
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import (
    CHECKSUM,
    MANIFEST,
    InstanceDirectory,
    StoredSnapshot,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import storage_errors, store
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import StoredMedia
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import Verification, require_same_proof

#: Fills a catalog with the version rows of the restored database.
AddExpected = Callable[[Catalog], object]


class _TwinPlace(InstanceDirectory):
    """An instance's directory whose snapshot is a copy; its parts are the source's but for those that were replaced."""

    def __init__(self, source: InstanceDirectory, path: Path) -> None:
        super().__init__(path / source.name)
        self._source = source
        self.replaced: dict[str, Path] = {}

    def part_path(self, part: str) -> Path:
        return self.replaced.get(part, self._source.part_path(part))

    def record_path(self, part: str) -> Path:
        return self._source.record_path(part)


@dataclass(frozen=True)
class _TwinMedia(StoredMedia):
    """The media of a twin."""

    place: _TwinPlace = field(kw_only=True)

    def part_path(self, part: Any) -> Path:
        return self.place.part_path(part.id)

    def record_path(self, part: Any) -> Path:
        return self.place.record_path(part.id)


class Twin:
    """A copy of a snapshot below ``directory``, to be damaged once."""

    def __init__(self, place: InstanceDirectory, snapshot: StoredSnapshot, directory: Path, progress: Progress) -> None:
        make_private_directory(directory)
        self.directory = directory
        self._progress = progress
        self.manifest = snapshot.require_manifest()
        self.place = _TwinPlace(place, directory)
        self.snapshot = replace(snapshot, directory=self.place.snapshots_path / snapshot.id)
        self.snapshot.directory.mkdir(parents=True)
        files = (self.manifest.database_file, self.manifest.index_file, self.manifest.config_file)
        with storage_errors(self.snapshot.directory):
            for name in [file.name for file in files if file is not None]:
                shutil.copyfile(snapshot.directory / name, self.snapshot.directory / name)
        self._write_manifest(self.manifest.fields)

    def _write_manifest(self, fields: dict[str, Any]) -> None:
        self.manifest = decode_manifest(Manifest(fields).encode())
        text = self.manifest.encode()
        for name, content in ((MANIFEST, text), (CHECKSUM, checksum_line(text))):
            (self.snapshot.directory / name).unlink(missing_ok=True)
            write_private(self.snapshot.directory / name, content)
        self.snapshot = replace(self.snapshot, manifest=self.manifest)

    # -- damages: each returns what a message about it has to name ------------------------------------------------

    def change_byte(self) -> str:
        """Change one byte in the middle of the smallest part, or of the database where there is no part."""
        path, name = self._victim()
        with storage_errors(path), open(path, "r+b") as stream:
            stream.seek(path.stat().st_size // 2)
            byte = stream.read(1)
            stream.seek(-1, 1)
            stream.write(bytes([byte[0] ^ 1]))
        return name

    def remove_part(self) -> str:
        """Remove the smallest part, or the database where there is no part."""
        path, name = self._victim()
        path.unlink()
        return name

    def _victim(self) -> tuple[Path, str]:
        if not self.manifest.parts:
            path = self.snapshot.directory / self.manifest.database_file.name
            return path, path.name
        part = min(self.manifest.parts, key=lambda part: part.size)
        path = self.directory / part.id
        with storage_errors(path):
            shutil.copyfile(self.place.part_path(part.id), path)
        self.place.replaced[part.id] = path
        return path, part.id

    def forget_file(self, path: bytes) -> None:
        """Leave one file out of the index, and let the manifest agree with that."""
        beginning = b"{" + path_json(path).encode("ascii") + b","
        index = self.snapshot.directory / self.manifest.index_file.name
        shorter = index.with_suffix(".shorter")

        def rest() -> Iterator[bytes]:
            for line in self._media().index_lines():
                if not line.startswith(beginning):
                    yield line + b"\n"

        stored = store(shorter, rest())
        shorter.replace(index)
        fields = json.loads(self.manifest.encode())
        fields["files"]["index"].update(size=stored.size, sha256=stored.sha256, plain_size=stored.plain_size)
        fields["totals"]["files"] -= 1
        self._write_manifest(fields)

    # -- the ways by which damage is found: those of a restore ----------------------------------------------------

    def _media(self) -> StoredMedia:
        manifest = self.manifest
        return _TwinMedia(
            self.snapshot.id,
            self.snapshot.directory / manifest.index_file.name,
            manifest.index_file,
            self.place.parts_path,
            manifest.parts,
            int(manifest.totals["files"]),
            place=self.place,
        )

    def verify(self, level: str) -> None:
        """Verify the twin as any snapshot. Raises DamageError."""
        verification = Verification(self.place, self.snapshot, self._progress, self.directory)
        verification.media = self._media()
        verification.verify(level)

    def prove(self, add_expected: AddExpected) -> None:
        """Compare the rows of the restored database with the twin's index, as a restore does. Raises DamageError."""
        with Catalog(self.directory / "rows.sqlite3") as catalog:
            add_expected(catalog)
            catalog.add_entries(self._media().entries())
            require_same_proof(self.manifest, catalog)


def try_damages(
    make: Callable[[str], Twin], add_expected: AddExpected, expected_file: bytes | None
) -> list[TwinDamage]:
    """Damage a snapshot in each way and look whether that is found. ``make`` copies it under a name.

    ``expected_file``: one that a version row expects; None where no row does, and no row can be without its file.
    """
    results = []
    for damage, title, do in (
        ("byte", "one byte of a part changed", Twin.change_byte),
        ("part", "one part missing", Twin.remove_part),
    ):
        twin = make(damage)
        results.append(_outcome(damage, title, "verify", do(twin), partial(twin.verify, "full")))
        shutil.rmtree(twin.directory)
    if expected_file is not None:
        twin = make("row")
        twin.forget_file(expected_file)
        # Apart from the lost file the twin is sound: nothing else is caught here.
        twin.verify("quick")
        look = partial(twin.prove, add_expected)
        results.append(_outcome("row", "one row without its file", "proof", "", look))
        shutil.rmtree(twin.directory)
    return results


def _outcome(damage: str, title: str, how: str, named: str, look: Callable[[], object]) -> TwinDamage:
    """Look for a damage. Only a message that names what was damaged is one about it."""
    try:
        look()
    except DamageError as error:
        if named in error.message:
            return TwinDamage(damage=damage, title=title, caught=True, caught_by=how, message=error.message)
        return TwinDamage(damage=damage, title=title, caught=False, message=f"something else: {error.message}")
    return TwinDamage(damage=damage, title=title, caught=False, message="nothing was found")
