# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive: files below a media root as one tar, cut into frames, each file hashed while it is read."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple

from ..durable import PIECE
from ..errors import MediaError, describe_os_error
from ..owners import group_name, owner_name
from ..paths import name_json, path_json, path_of
from .root import MediaRoot
from .tar import END_OF_ARCHIVE, member_header, padding, tar_bytes

#: A file up to this size is read whole before its header is written, so that what is stored is one state of it.
SMALL = 1 << 20
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


def archived_file(fields: Dict[str, Any]) -> ArchivedFile:
    """Read what :meth:`ArchivedFile.as_line` wrote."""
    return ArchivedFile(path_of(fields), *(fields[name] for name in ArchivedFile._fields[1:]))


class Archiver:
    """Writes one part's tar.

    ``write`` takes tar bytes, ``end_frame`` is called between members wherever a frame has to end, and once at the end.
    """

    def __init__(
        self, root: MediaRoot, write: Callable[[bytes], object], end_frame: Callable[[], object], frame_bytes: int
    ) -> None:
        self._root = root
        self._write = write
        self._end_frame = end_frame
        self._frame_bytes = frame_bytes
        self._pending: List[bytes] = []
        self._pending_size = 0
        self._in_frame = 0
        self.frame = 0
        self.tar_size = 0

    def archive(self, paths: Iterable[bytes]) -> Iterator[ArchivedFile]:
        """Put files into the tar one after another and yield what became of each. Ends the tar after the last."""
        for path in paths:
            yield self._one(path)
        self._put(END_OF_ARCHIVE)
        self._flush()
        self._end_frame()

    def _one(self, path: bytes) -> ArchivedFile:
        try:
            descriptor = self._root.open_file(path)
        except FileNotFoundError:
            return ArchivedFile(path, VANISHED)
        except OSError as error:
            return ArchivedFile(path, UNREADABLE, describe_os_error(error))
        except MediaError as error:
            return ArchivedFile(path, UNREADABLE, error.message)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return ArchivedFile(path, VANISHED)
            if status.st_size <= SMALL:
                return self._small(path, descriptor, status)
            return self._large(path, descriptor, status)
        finally:
            os.close(descriptor)

    def _small(self, path: bytes, descriptor: int, status: os.stat_result) -> ArchivedFile:
        for attempt in range(ATTEMPTS):
            try:
                content = os.pread(descriptor, status.st_size + 1, 0)
                after = os.fstat(descriptor)
            except OSError as error:
                return ArchivedFile(path, UNREADABLE, describe_os_error(error))
            if len(content) == status.st_size and _same(status, after):
                self._begin(path, status)
                self._put(content)
                self._put(bytes(padding(len(content))))
                return self._result(path, OK, status, hashlib.sha256(content).hexdigest())
            status = after
            if status.st_size > SMALL:
                return self._large(path, descriptor, status)
            time.sleep(0.02 * (attempt + 1))
        # Changing still: left out of this tar, the settle pass looks at it again.
        return ArchivedFile(path, CHANGING, "changed while it was read")

    def _large(self, path: bytes, descriptor: int, status: os.stat_result) -> ArchivedFile:
        self._begin(path, status)
        digest = hashlib.sha256()
        state, reason = OK, ""
        left = status.st_size
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while left:
            piece = b""
            try:
                piece = os.read(descriptor, min(left, PIECE))
            except OSError as error:
                state, reason = UNREADABLE, describe_os_error(error)
            if not piece:
                # The header has promised this many bytes; what is missing becomes zeros that nobody will ask for.
                if state == OK:
                    state, reason = CHANGING, "became shorter while it was read"
                piece = bytes(min(left, PIECE))
            digest.update(piece)
            left -= len(piece)
            self._put(piece)
        if state == OK and not _same(status, os.fstat(descriptor)):
            state, reason = CHANGING, "changed while it was read"
        self._put(bytes(padding(status.st_size)))
        return self._result(path, state, status, digest.hexdigest(), reason)

    def _begin(self, path: bytes, status: os.stat_result) -> None:
        header = member_header(
            path,
            status.st_size,
            stat.S_IMODE(status.st_mode),
            int(status.st_mtime_ns // 10**9),
            status.st_uid,
            status.st_gid,
            owner_name(status.st_uid),
            group_name(status.st_gid),
        )
        size = tar_bytes(header, status.st_size)
        if self._in_frame and self._in_frame + size > self._frame_bytes:
            self._flush()
            self._end_frame()
            self.frame += 1
            self._in_frame = 0
        self._in_frame += size
        self._put(header)

    def _result(self, path: bytes, state: str, status: os.stat_result, sha256: str, reason: str = "") -> ArchivedFile:
        return ArchivedFile(
            path,
            state,
            reason,
            self.frame,
            status.st_size,
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_dev,
            status.st_ino,
            status.st_uid,
            status.st_gid,
            owner_name(status.st_uid),
            group_name(status.st_gid),
            sha256,
        )

    def _put(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= PIECE:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            data = b"".join(self._pending) if len(self._pending) > 1 else self._pending[0]
            self.tar_size += len(data)
            self._pending, self._pending_size = [], 0
            self._write(data)


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
