# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single files out of parts: only the frames that hold them are read, and of these no more than is needed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.durable import ExactReader
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DamageError,
    RepositoryError,
    describe_os_error,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.tar import TarReader
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import IndexEntry
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartMember, PartRecord
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import stored_size, unpack
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import StoredMedia

#: Stored bytes that are read at once: what follows a member in its frame is not read in vain.
PIECE = 1 << 16

Content = Iterator[bytes]


def in_tar_order(record: PartRecord, wanted: Mapping[bytes, IndexEntry]) -> list[IndexEntry]:
    """Return wanted entries in the order of the part's tar. Raises DamageError where its record does not have them."""
    found = []
    for member in record.members:
        entry = wanted.get(member.path)
        if entry is not None:
            if (member.size, member.sha256) != (entry.size, entry.sha256):
                raise DamageError(f"the index and the record of part {record.part} disagree about {shown(entry.path)}")
            found.append(entry)
    if len(found) != len(wanted):
        missing = next(iter(wanted.keys() - {entry.path for entry in found}), b"a file twice")
        raise DamageError(f"part {record.part} does not hold {shown(missing)}, which the index says it does")
    return found


def read_members(
    media: StoredMedia,
    part: StoredPart,
    record: PartRecord,
    wanted: Mapping[bytes, IndexEntry],
    advance: Callable[[int], object],
) -> Iterator[tuple[IndexEntry, Content]]:
    """Yield wanted files with their contents, in the order of the tar; each content is to be read before the next.

    ``advance`` is told how many stored bytes were read. Contents have the right size, but whether they are what the
    index says is not looked at. Raises DamageError.
    """
    path = media.part_path(part)
    found = stored_size(path)
    if found != part.size:
        raise DamageError(f"{path} is missing" if found is None else f"{path} has {found:,} bytes, not {part.size:,}")
    ends = sorted({member.offset for member in record.members})[1:] + [part.size]
    frames = itertools.groupby(record.members, key=lambda member: member.offset)
    for (begin, group), end in zip(frames, ends):
        members = list(group)
        last = max((number for number, member in enumerate(members) if member.path in wanted), default=-1)
        if last < 0:
            continue
        if not begin < end:
            raise DamageError(f"the record of part {part.id} has frames that are not in their order")
        stored = _between(path, begin, end, advance)
        yield from _of_frame(stored, record, members[: last + 1], wanted, f"{path} at byte {begin:,}")


def _of_frame(
    stored: Iterator[bytes],
    record: PartRecord,
    members: list[PartMember],
    wanted: Mapping[bytes, IndexEntry],
    name: str,
) -> Iterator[tuple[IndexEntry, Content]]:
    reader = TarReader(ExactReader(unpack(stored, record.tar_size, name)).read, record.tar_size)
    for member in members:
        try:
            found = reader.next_member()
        except DamageError as error:
            raise DamageError(f"{name}: {error.message}") from None
        if found is None or (found.path, found.size) != (member.path, member.size):
            raise DamageError(f"{name} does not hold {shown(member.path)} where its record says so")
        entry = wanted.get(member.path)
        content = (bytes(piece) for piece in reader.pieces(member.size))
        if entry is not None:
            yield entry, content
        for _rest in content:
            pass


def _between(path: Path, begin: int, end: int, advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the bytes of a file from ``begin`` to ``end`` in small pieces. Raises DamageError, RepositoryError."""
    try:
        with open(path, "rb", buffering=0) as stream:
            stream.seek(begin)
            os.posix_fadvise(stream.fileno(), begin, end - begin, os.POSIX_FADV_SEQUENTIAL)
            left = end - begin
            while left and (piece := stream.read(min(left, PIECE))):
                left -= len(piece)
                advance(len(piece))
                yield piece
    except FileNotFoundError:
        raise DamageError(f"{path} is missing") from None
    except OSError as error:
        raise RepositoryError(describe_os_error(error)) from None
