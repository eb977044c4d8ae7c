# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a create takes over from its repository: the newest snapshot, and the content of parts that are there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.agent.protocol import batches
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, RepositoryError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import (
    COMPLETE,
    StoredFile,
    StoredPart,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import (
    MAX_RECORD_BYTES,
    decode_record,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.inheritance import InheritingCatalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    StoredWriter,
    checked,
    read_stored,
    store,
    stored_size,
    unpack,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import media_of

#: Nanoseconds: a file that was written so shortly before the base's dump, or later, may have been written again after
#: it was read without another time to show for it. Times are no finer than some milliseconds, on old file systems than
#: two seconds.
YOUNG_NS = 2 * 10**9
#: What each member of a record's text has once.
_MEMBER = b'"offset":'


class Base:
    """The snapshot that a create follows. ``snapshot`` is None until :meth:`load` has found one.

    ``parts``: every part, by id, whose content a new snapshot may name.
    """

    def __init__(self, place: InstanceDirectory, catalog: InheritingCatalog) -> None:
        self._place = place
        self._catalog = catalog
        self._damaged = place.history.damaged_parts()
        self.snapshot: StoredSnapshot | None = None
        self.parts: dict[str, StoredPart] = {}

    def load(self) -> None:
        """Take in the newest snapshot whose manifest and index can be read, complete or not, if there is any."""
        for snapshot in self._place.readable():
            manifest = snapshot.require_manifest()
            parts = {part.id: part for part in manifest.parts if self._is_usable(part)}
            dumped_at_ns = manifest.database.get("dumped_at_ns")
            young_ns = dumped_at_ns - YOUNG_NS if isinstance(dumped_at_ns, int) else -1
            try:
                self._catalog.load_base(_index_of(self._place, snapshot), parts, young_ns)
            except DamageError:
                continue
            self.snapshot, self.parts = snapshot, parts
            if manifest.state == COMPLETE:
                self._catalog.hold_base()
            return

    def _is_usable(self, part: StoredPart) -> bool:
        return (
            part.id not in self._damaged
            and stored_size(self._place.part_path(part.id)) == part.size
            and stored_size(self._place.record_path(part.id)) == part.record_size
        )

    def store_index(self, path: Path) -> StoredFile:
        """Write the new snapshot's index to a new file. Raises DamageError when that of the base was changed."""
        if self.snapshot is None:
            return store(path, batches(self._catalog.index_lines(())))
        if not self._catalog.is_base():
            return store(path, batches(self._catalog.index_lines(_index_of(self._place, self.snapshot))))
        media = media_of(self._place, self.snapshot)
        writer = StoredWriter(path, packed=True)
        try:
            for piece in checked(
                read_stored(media.index_path), media.index.size, media.index.sha256, str(media.index_path)
            ):
                writer.write(piece)
            writer.finish()
        finally:
            writer.close()
        return replace(media.index, name=path.name)

    def compared(self) -> StoredSnapshot | None:
        """Return the newest complete snapshot that can be read; the catalog then holds its files."""
        if self.snapshot is not None and self.snapshot.require_manifest().state == COMPLETE:
            return self.snapshot
        for snapshot in self._place.complete():
            try:
                # A file that was empty then held nothing that could be lost now.
                entries = media_of(self._place, snapshot).entries()
                self._catalog.add_held((entry.path, entry.sha256) for entry in entries if entry.size)
            except DamageError:
                self._catalog.forget_held()
            else:
                return snapshot
        return None

    def find_content(self) -> None:
        """Make known what parts hold that the base does not name, where it may be what an unread file holds.

        Such content is that of older snapshots, and of parts that an interrupted create had finished.
        """
        unread, _size = self._catalog.scanned_totals()
        if not unread:
            return
        for part in self._place.kept_parts():
            if part in self._damaged:
                continue
            try:
                text, stored = self._record_text(part)
                if part in self.parts and text.count(_MEMBER) == self._catalog.base_counts[part]:
                    # The base names all of it.
                    continue
                record = decode_record(text)
                if record.part != part or stored_size(self._place.part_path(part)) != record.size:
                    continue
            except (DamageError, RepositoryError):
                # Whoever needs it will be told; here it only would have saved a transfer.
                continue
            if self._catalog.add_known(record.members, part) and part not in self.parts:
                size, sha256 = stored
                self.parts[part] = StoredPart(part, record.size, record.sha256, size, sha256)
                # Not to be taken for old and unused while this create goes on.
                for path in (self._place.part_path(part), self._place.record_path(part)):
                    with contextlib.suppress(OSError):
                        os.utime(path)

    def report_damaged(self, part: str) -> None:
        """Note in the history that a part is damaged."""
        snapshot, sha256 = ("", "") if self.snapshot is None else (self.snapshot.id, self.snapshot.manifest_sha256)
        self._place.history.append("damaged", snapshot, sha256, part=part)

    def _record_text(self, part: str) -> tuple[bytes, tuple[int, str]]:
        """Return a part's record as text, and size and SHA-256 of how it is stored. Raises DamageError."""
        path = self._place.record_path(part)
        digest, size = hashlib.sha256(), 0

        def stored() -> Iterator[bytes]:
            nonlocal size
            for piece in read_stored(path):
                digest.update(piece)
                size += len(piece)
                yield piece

        text = b"".join(unpack(stored(), MAX_RECORD_BYTES, str(path)))
        return text, (size, digest.hexdigest())


def _index_of(place: InstanceDirectory, snapshot: StoredSnapshot) -> Iterator[bytes]:
    return media_of(place, snapshot).index_lines()
