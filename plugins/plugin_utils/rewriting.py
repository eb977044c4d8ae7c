# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of which little is used any more: what is used is copied into new ones, so that the old can go one day."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.durable import ExactReader, pieces
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DamageError,
    RepositoryError,
    describe_os_error,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import CHANGING, OK, ArchivedFile
from ansible_collections.papermerge.backup.plugins.module_utils.media.tar import (
    END_OF_ARCHIVE,
    TarReader,
    padding,
    tar_bytes,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import (
    FRAME_BYTES,
    FRAME_MEMBERS,
    PART_CONTENT_BYTES,
    PART_MEMBERS,
    PART_PATH_BYTES,
    PartMember,
    PartRecord,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.inheritance import InheritingCatalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import PartWriter, load_record, unpack

#: A member up to this size is checked before it is copied; a larger one is copied first.
SMALL = 1 << 20


def half_used(place: InstanceDirectory, catalog: InheritingCatalog, parts: dict[str, StoredPart]) -> Iterator[str]:
    """Yield the parts of which a snapshot uses less than half of the content.

    Only those are looked into of which it uses less than the base did; for each of the others that was judged before.
    A part whose record cannot be read is among them: it cannot be restored.
    """
    used = catalog.used_parts()
    for part in sorted(used):
        if part not in parts or used[part] == catalog.base_bytes.get(part):
            continue
        try:
            record = load_record(place.record_path(part), parts[part])
        except (DamageError, RepositoryError):
            yield part
            continue
        if 2 * used[part] < sum(member.size for member in record.members):
            yield part


class Rewriting:
    """Copies what a snapshot uses of old parts into new ones. ``parts`` grows with each new part that is finished.

    ``new_part`` begins a part that compresses what is written to it.
    """

    def __init__(
        self,
        place: InstanceDirectory,
        catalog: InheritingCatalog,
        progress: Progress,
        new_part: Callable[[], PartWriter],
    ) -> None:
        self._place = place
        self._catalog = catalog
        self._progress = progress
        self._new_part = new_part
        self._copy: _Copy | None = None
        self.parts: list[StoredPart] = []

    def rewrite(self, old: list[StoredPart]) -> dict[str, int]:
        """Copy what is used of these parts. Files that cannot be had from them become unread.

        Returns how many those are, by part.
        """
        damaged: dict[str, int] = {}
        try:
            for part in old:
                wanted = self._catalog.files_of(part.id)
                lost = self._rewrite(part, wanted)
                if lost:
                    self._catalog.distrust(lost)
                    damaged[part.id] = len(lost)
            self._finish()
        finally:
            if self._copy is not None:
                self._copy.part.close()
        return damaged

    def _rewrite(self, part: StoredPart, wanted: dict[bytes, str]) -> set[bytes]:
        """Copy the wanted files of a part; returns those that could not be had."""
        left = dict(wanted)
        path = self._place.part_path(part.id)
        try:
            record = load_record(self._place.record_path(part.id), part)
        except (DamageError, RepositoryError):
            return set(left)
        self._progress.begin("rewrite", sum(member.size for member in record.members if member.path in wanted))
        for offset, members in groupby(record.members, lambda member: member.offset):
            frame = list(members)
            while frame and frame[-1].path not in left:
                frame.pop()
            try:
                for member in self._members(path, offset, record, frame, left):
                    del left[member.path]
                    self._progress.advance(member.size)
            except (DamageError, RepositoryError):
                continue
        return set(left)

    def _members(
        self, path: Path, offset: int, record: PartRecord, frame: list[PartMember], wanted: dict[bytes, str]
    ) -> Iterator[PartMember]:
        """Copy the wanted members of a frame, and yield each that was copied as it should be."""
        if not frame:
            return
        source = _Tee(ExactReader(unpack(_read_from(path, offset), record.tar_size, str(path))).read)
        reader = TarReader(source.read, record.tar_size)
        for member in frame:
            source.taken.clear()
            found = reader.next_member()
            if found is None or (found.path, found.size) != (member.path, member.size):
                raise DamageError(f"{path} does not hold what its record says")
            header = b"".join(source.taken)
            source.taken.clear()
            if wanted.get(member.path) != member.sha256:
                reader.content(member.size, lambda _piece: source.taken.clear())
            elif self._copy_for(member).take(member, header, reader, source):
                yield member

    def _copy_for(self, member: PartMember) -> _Copy:
        """Return the copy that goes on, or a new one where this member does not fit."""
        if self._copy is not None and not self._copy.has_room(member):
            self._finish()
        if self._copy is None:
            self._copy = _Copy(self._new_part())
        return self._copy

    def _finish(self) -> None:
        if self._copy is not None:
            stored = self._copy.finish()
            if stored is not None:
                self._catalog.move((file.path for file in self._copy.files if file.state == OK), stored.id)
                self.parts.append(stored)
            self._copy = None


class _Tee:
    """Passes reads on and keeps what was read last."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.taken: list[bytes] = []

    def read(self, length: int) -> bytes:
        data = self._read(length)
        self.taken.append(data)
        return data


class _Copy:
    """A new part that members of old ones are copied to, header and all."""

    def __init__(self, part: PartWriter) -> None:
        self.part = part
        self.files: list[ArchivedFile] = []
        self._content = self._names = self._in_frame = self._frame_members = self._frame = self._tar_size = 0

    def has_room(self, member: PartMember) -> bool:
        return not self.files or (
            self._content + member.size <= PART_CONTENT_BYTES
            and len(self.files) < PART_MEMBERS
            and self._names + len(member.path) <= PART_PATH_BYTES
        )

    def take(self, member: PartMember, header: bytes, reader: TarReader, source: _Tee) -> bool:
        """Copy one member, and tell whether it is what its record says.

        A small one that is not stays out. A large one is in the tar by then, and in the new record with what the tar
        has of it; no index names it.
        """
        if member.size <= SMALL:
            content: list[bytes] = []
            # A piece may be a view of a buffer that is used again.
            reader.content(member.size, lambda piece: content.append(bytes(piece)))
            data = b"".join(content)
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 != member.sha256:
                return False
            self._begin(member, header)
            self._put(data)
        else:
            self._begin(member, header)
            digest, done = hashlib.sha256(), 0

            def put(piece: bytes | memoryview[int]) -> None:
                nonlocal done
                source.taken.clear()
                digest.update(piece)
                done += len(piece)
                self._put(bytes(piece))

            try:
                reader.content(member.size, put)
            except (DamageError, RepositoryError):
                # The header has promised this many bytes.
                while done < member.size:
                    put(bytes(min(SMALL, member.size - done)))
                self._end(member, digest.hexdigest())
                raise
            sha256 = digest.hexdigest()
        self._end(member, sha256)
        return sha256 == member.sha256

    def _begin(self, member: PartMember, header: bytes) -> None:
        size = tar_bytes(header, member.size)
        if self._in_frame and (self._in_frame + size > FRAME_BYTES or self._frame_members >= FRAME_MEMBERS):
            self.part.end_frame({})
            self._frame += 1
            self._in_frame = self._frame_members = 0
        self._frame_members += 1
        self._in_frame += size
        self._put(header)

    def _put(self, data: bytes) -> None:
        self._tar_size += len(data)
        self.part.write(data)

    def _end(self, member: PartMember, sha256: str) -> None:
        self._put(bytes(padding(member.size)))
        self._content += member.size
        self._names += len(member.path)
        state = OK if sha256 == member.sha256 else CHANGING
        self.files.append(
            ArchivedFile(path=member.path, state=state, frame=self._frame, size=member.size, sha256=sha256)
        )

    def finish(self) -> StoredPart | None:
        """End the part and keep it. Returns None for one without a member."""
        if not self.files:
            self.part.discard()
            return None
        self._put(END_OF_ARCHIVE)
        self.part.end_frame({})
        return self.part.finish(self.files, {"tar_size": self._tar_size})


def _read_from(path: Path, offset: int) -> Iterator[bytes]:
    """Yield a part from a place in it. Raises DamageError when it is gone, RepositoryError when it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as stream:
            stream.seek(offset)
            yield from pieces(stream)
    except FileNotFoundError:
        raise DamageError(f"{path} is missing") from None
    except OSError as error:
        raise RepositoryError(describe_os_error(error)) from None
