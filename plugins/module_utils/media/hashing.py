# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hasher: SHA-256 of files below a media root, without moving them."""

from __future__ import annotations

import hashlib
import os
import stat

from ..durable import PIECE
from ..errors import MediaError, describe_os_error
from ..owners import group_name, owner_name
from .archive import CHANGING, OK, UNREADABLE, VANISHED, ArchivedFile
from .root import MediaRoot


class Hasher:
    """Hashes files one after another, with one buffer for all of them."""

    def __init__(self, root: MediaRoot) -> None:
        self._root = root
        self._buffer = bytearray(PIECE)
        self._view = memoryview(self._buffer)

    def hash(self, path: bytes) -> ArchivedFile:
        """Return what became of a file, as an archiver would: OK with its SHA-256, or why there is none.

        A file that changed meanwhile is CHANGING: whoever archives it will read it again.
        """
        try:
            descriptor = self._root.open_file(path)
        except FileNotFoundError:
            return ArchivedFile(path, VANISHED)
        except OSError as error:
            return ArchivedFile(path, UNREADABLE, describe_os_error(error))
        except MediaError as error:
            return ArchivedFile(path, UNREADABLE, error.message)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return ArchivedFile(path, VANISHED)
            digest = hashlib.sha256()
            size = 0
            while True:
                count = os.readv(descriptor, [self._buffer])
                if not count:
                    break
                digest.update(self._view[:count])
                size += count
            after = os.fstat(descriptor)
        except OSError as error:
            return ArchivedFile(path, UNREADABLE, describe_os_error(error))
        finally:
            os.close(descriptor)
        if size != before.st_size or _moment(before) != _moment(after):
            return ArchivedFile(path, CHANGING, "changed while it was read")
        return ArchivedFile(
            path=path,
            state=OK,
            size=size,
            mode=stat.S_IMODE(before.st_mode),
            mtime_ns=before.st_mtime_ns,
            ctime_ns=before.st_ctime_ns,
            device=before.st_dev,
            inode=before.st_ino,
            uid=before.st_uid,
            gid=before.st_gid,
            owner=owner_name(before.st_uid),
            group=group_name(before.st_gid),
            sha256=digest.hexdigest(),
        )


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
