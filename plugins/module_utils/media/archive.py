# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive: files below a media root as one tar, cut into frames, each file hashed while it is read."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from functools import lru_cache
from operator import itemgetter
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from ..durable import Piece
from ..errors import MediaError, describe_os_error
from ..owners import group_name, owner_name
from ..paths import name_json, path_json, path_of
from .frames import OpenFrame, Output, PackedFrame, PlainFrame, RawFrame, content_shrinks, shrinks
from .root import MediaRoot
from .tar import BLOCK, END_OF_ARCHIVE, member_header, padding, tar_bytes

#: A file up to this size is read whole before its header is written, so that what is stored is one state of it.
SMALL = 1 << 20
#: What is read into before it is passed on; it should stay within a processor's cache. Larger than SMALL.
BUFFER_BYTES = SMALL + (1 << 18)
#: Pieces in which larger files are read.
STREAMED_BYTES = 1 << 19
PADDING = memoryview(bytes(BLOCK))
#: A file that changes while it is read is read again this often.
ATTEMPTS = 3
OK, VANISHED, UNREADABLE, CHANGING = "ok", "vanished", "unreadable", "changing"


class ArchivedFile(NamedTuple):
    """What became of a file. ``state`` OK, CHANGING (in the tar, but not one state of the file), VANISHED or
    UNREADABLE (not in the tar); the other fields are the file's metadata as read, ``frame`` counts from 0."""

    path: bytes
    state: str
    reason: str = ""
    frame: int = 0
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    device: int = 0
    inode: int = 0
    uid: int = 0
    gid: int = 0
    owner: str = ""
    group: str = ""
    sha256: str = ""

    def as_line(self) -> bytes:
        """Return what became of the file as a record."""
        text = _LINE % (
            path_json(self.path),
            self.state,
            name_json(self.reason),
            *self[3:12],
            name_json(self.owner),
            name_json(self.group),
            self.sha256,
        )
        return text.encode("ascii")


_LINE = (
    '{%s,"state":"%s","reason":%s,"frame":%d,"size":%d,"mode":%d,"mtime_ns":%d,"ctime_ns":%d,"device":%d,"inode":%d,'
    '"uid":%d,"gid":%d,"owner":%s,"group":%s,"sha256":"%s"}\n'
)


_values_of = itemgetter(*ArchivedFile._fields[1:])


def archived_file(fields: Dict[str, Any]) -> ArchivedFile:
    """Read what :meth:`ArchivedFile.as_line` wrote."""
    return ArchivedFile(path_of(fields), *_values_of(fields))


class Archiver:
    """Writes one part's tar into an output, frame by frame.

    Two frames are open at a time: one is sent as it grows, raw or plain, the other is collected while a compressor
    packs it, and is sent when it is full. So files that do not shrink pass by the compressor. The members of a
    collected frame are told of when their place in the tar is known.
    """

    def __init__(self, root: MediaRoot, output: Output, packs: bool, frame_bytes: int, frame_members: int) -> None:
        """``packs``: frames are zstd frames; otherwise they are plain tar.

        A frame holds at most ``frame_bytes`` of tar, or one member, and at most ``frame_members``.
        """
        self._root = root
        self._output = output
        self._packs = packs
        self._frame_bytes = frame_bytes
        self._frame_members = frame_members
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._used = 0
        self._streamed = self._new_streamed()
        self._collected: List[bytes] = []
        self._packed = self._new_packed()
        self._waiting: List[ArchivedFile] = []
        self._frame = 0
        self.tar_size = 0

    def archive(self, paths: Iterable[bytes]) -> Iterator[ArchivedFile]:
        """Put files into the tar and yield what became of each, those in the tar in its order. Ends the tar."""
        for path in paths:
            yield from self._archived(path)
        last = self._packed if self._packed.size else self._streamed
        last.add([END_OF_ARCHIVE], len(END_OF_ARCHIVE))
        self.tar_size += len(END_OF_ARCHIVE)
        yield from self._end_packed()
        self._end_streamed()

    def _archived(self, path: bytes) -> List[ArchivedFile]:
        """Return the files whose place in the tar, or that they are not there, is known by now."""
        try:
            descriptor = self._root.open_file(path)
        except FileNotFoundError:
            return [ArchivedFile(path, VANISHED)]
        except OSError as error:
            return [ArchivedFile(path, UNREADABLE, describe_os_error(error))]
        except MediaError as error:
            return [ArchivedFile(path, UNREADABLE, error.message)]
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return [ArchivedFile(path, VANISHED)]
            if status.st_size <= SMALL:
                return self._small(path, descriptor, status)
            return self._large(path, descriptor, status)
        finally:
            os.close(descriptor)

    # -- small files --------------------------------------------------------------------------------------------------

    def _small(self, path: bytes, descriptor: int, status: os.stat_result) -> List[ArchivedFile]:
        for attempt in range(ATTEMPTS):
            size = status.st_size
            if self._used + size >= BUFFER_BYTES:
                self._flush()
            content = self._buffer[self._used : self._used + size]
            try:
                # One byte more than there should be, to see a file that grows.
                count = os.preadv(descriptor, [self._buffer[self._used : self._used + size + 1]], 0)
                after = os.fstat(descriptor)
            except OSError as error:
                return [ArchivedFile(path, UNREADABLE, describe_os_error(error))]
            if count == size and _same(status, after):
                self._used += size
                return self._add_small(path, status, content)
            status = after
            if status.st_size > SMALL:
                return self._large(path, descriptor, status)
            time.sleep(0.02 * (attempt + 1))
        # Changing still: left out of this tar, the settle pass looks at it again.
        return [ArchivedFile(path, CHANGING, "changed while it was read")]

    def _add_small(self, path: bytes, status: os.stat_result, content: memoryview) -> List[ArchivedFile]:
        header = _header(path, status)
        size = tar_bytes(header, len(content))
        pieces: List[Piece] = [header, content, PADDING[: size - len(header) - len(content)]]
        sha256 = hashlib.sha256(content).hexdigest()
        self.tar_size += size
        if not self._packs or not content_shrinks(content):
            if self._is_full(self._streamed, size):
                self._end_streamed()
            self._streamed.add_member(pieces, size)
            return [_result(path, OK, status, sha256, self._frame)]
        ended = self._end_packed() if self._is_full(self._packed, size) else []
        self._packed.add_member(pieces, size)
        self._waiting.append(_result(path, OK, status, sha256, 0))
        return ended

    # -- large files --------------------------------------------------------------------------------------------------

    def _large(self, path: bytes, descriptor: int, status: os.stat_result) -> List[ArchivedFile]:
        """Stream a file. What is collected meanwhile stays open, since its place comes later."""
        header = _header(path, status)
        size = tar_bytes(header, status.st_size)
        try:
            is_packed = self._packs and shrinks(
                status.st_size, lambda start, length: os.pread(descriptor, length, start)
            )
        except OSError as error:
            return [ArchivedFile(path, UNREADABLE, describe_os_error(error))]
        self._flush()
        self.tar_size += size
        if is_packed and size <= self._frame_bytes:
            ended = self._end_packed() if self._is_full(self._packed, size) else []
            state, reason, sha256 = self._stream(self._packed, header, descriptor, status)
            self._waiting.append(_result(path, state, status, sha256, 0, reason))
            return ended
        if is_packed or self._is_full(self._streamed, size):
            self._end_streamed()
        if is_packed:
            # Too large to be collected: the frame that is sent as it grows is, for once, one that is packed.
            self._streamed = PackedFrame(lambda: self._output.compressor(lambda piece: self._output.send([piece])))
        state, reason, sha256 = self._stream(self._streamed, header, descriptor, status)
        found = _result(path, state, status, sha256, self._frame, reason)
        if is_packed:
            self._end_streamed()
        return [found]

    def _stream(self, frame: OpenFrame, header: bytes, descriptor: int, status: os.stat_result) -> Tuple[str, str, str]:
        """Put a member into a frame piece by piece. Returns its state, the reason and the SHA-256 of what is there."""
        digest = hashlib.sha256()
        state, reason = OK, ""
        frame.add_member([header], len(header))
        left = status.st_size
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while left:
            piece = self._buffer[: min(left, STREAMED_BYTES)]
            count = 0
            try:
                count = os.readv(descriptor, [piece])
            except OSError as error:
                state, reason = UNREADABLE, describe_os_error(error)
            if count:
                piece = piece[:count]
            else:
                # The header has promised this many bytes; what is missing becomes zeros that nobody will ask for.
                if state == OK:
                    state, reason = CHANGING, "became shorter while it was read"
                piece[:] = bytes(len(piece))
            digest.update(piece)
            left -= len(piece)
            frame.add([piece], len(piece))
            frame.flush()
        if state == OK and not _same(status, os.fstat(descriptor)):
            state, reason = CHANGING, "changed while it was read"
        frame.add([PADDING[: padding(status.st_size)]], padding(status.st_size))
        return state, reason, digest.hexdigest()

    # -- frames -------------------------------------------------------------------------------------------------------

    def _is_full(self, frame: OpenFrame, size: int) -> bool:
        """Tell whether a frame has to end before a member that takes so many bytes of the tar."""
        return bool(frame.size) and (frame.size + size > self._frame_bytes or frame.members >= self._frame_members)

    def _new_streamed(self) -> OpenFrame:
        return RawFrame(self._output.send) if self._packs else PlainFrame(self._output.send)

    def _new_packed(self) -> OpenFrame:
        return PackedFrame(lambda: self._output.compressor(self._collected.append))

    def _flush(self) -> None:
        """Pass on what lies in the buffer."""
        self._streamed.flush()
        self._packed.flush()
        self._used = 0

    def _end_streamed(self) -> None:
        if self._streamed.size:
            self._streamed.end()
            self._end_frame()
            self._streamed = self._new_streamed()

    def _end_packed(self) -> List[ArchivedFile]:
        """Send the frame that was collected. Returns its members."""
        if not self._packed.size:
            return []
        self._packed.end()
        self._end_streamed()
        members = [file._replace(frame=self._frame) for file in self._waiting]
        self._output.send(list(self._collected))
        self._end_frame()
        self._waiting.clear()
        self._collected.clear()
        self._packed = self._new_packed()
        return members

    def _end_frame(self) -> None:
        self._output.end_frame()
        self._frame += 1


@lru_cache(maxsize=256)
def _names(uid: int, gid: int) -> Tuple[str, str]:
    return owner_name(uid), group_name(gid)


def _header(path: bytes, status: os.stat_result) -> bytes:
    mode, uid, gid = status.st_mode & 0o7777, status.st_uid, status.st_gid
    return member_header(path, status.st_size, mode, status.st_mtime_ns // 10**9, uid, gid, *_names(uid, gid))


def _result(path: bytes, state: str, status: os.stat_result, sha256: str, frame: int, reason: str = "") -> ArchivedFile:
    uid, gid = status.st_uid, status.st_gid
    return ArchivedFile(
        path,
        state,
        reason,
        frame,
        status.st_size,
        status.st_mode & 0o7777,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_dev,
        status.st_ino,
        uid,
        gid,
        *_names(uid, gid),
        sha256,
    )


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether nobody wrote to a file between two looks at it."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def in_tar(file: ArchivedFile) -> bool:
    """Tell whether the tar holds a member for a file, sound or not."""
    return bool(file.sha256)
