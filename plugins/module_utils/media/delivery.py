# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files handed out: new private files below one directory, each compared with its SHA-256 as it is written."""

from __future__ import annotations

import hashlib
import os
from typing import Iterable, Optional, Tuple

from ..errors import BackupError, DamageError, SettingError, SpaceError, describe_os_error
from ..paths import is_safe_member, shown
from .root import DIRECTORY

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
_NO_ROOM = (28, 122)  # ENOSPC, EDQUOT


class Delivery:
    """Writes files below ``root``, a directory that exists. It follows no link and replaces nothing."""

    def __init__(self, root: str) -> None:
        """Raises SettingError."""
        self._name = root
        try:
            self._root = os.open(root, DIRECTORY)
        except OSError as error:
            raise SettingError("cannot write to {0}".format(describe_os_error(error))) from None
        self._cached: Optional[Tuple[bytes, int]] = None
        self.files = 0
        self.size = 0

    def close(self) -> None:
        self._forget()
        os.close(self._root)

    def _forget(self) -> None:
        if self._cached is not None:
            os.close(self._cached[1])
            self._cached = None

    def write(self, path: bytes, size: int, sha256: str, mtime_ns: int, content: Iterable[bytes]) -> None:
        """Write one file: ``size`` bytes with this SHA-256 in hex, changed at ``mtime_ns`` since 1970.

        Raises DamageError when the content is another one, SettingError for a file that is there, SpaceError.
        """
        if not is_safe_member(path):
            raise DamageError("refused a path outside the target directory: {0}".format(shown(path)))
        directory, _slash, name = path.rpartition(b"/")
        digest = hashlib.sha256()
        done = 0
        try:
            descriptor = os.open(
                name,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                FILE_MODE,
                dir_fd=self._directory(directory),
            )
            try:
                for piece in content:
                    digest.update(piece)
                    done += len(piece)
                    view = memoryview(piece)
                    while view:
                        view = view[os.write(descriptor, view) :]
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._explained(path, error) from None
        if done != size or digest.hexdigest() != sha256:
            raise DamageError("the content of {0} is not what the index says".format(shown(path)))
        self.files += 1
        self.size += size

    def _explained(self, path: bytes, error: OSError) -> BackupError:
        place = "{0}/{1}".format(self._name, shown(path))
        if error.errno in _NO_ROOM:
            return SpaceError("no room for {0}: {1}; free some".format(place, error.strerror))
        if isinstance(error, FileExistsError):
            return SettingError("{0} is there already, and nothing is overwritten; name another dest".format(place))
        return SettingError("cannot write {0}: {1}".format(place, error.strerror))

    def _directory(self, path: bytes) -> int:
        """Return a descriptor of a directory below the root, which is made where it is missing."""
        if not path:
            return self._root
        if self._cached is not None and self._cached[0] == path:
            return self._cached[1]
        self._forget()
        descriptor = os.dup(self._root)
        for name in path.split(b"/"):
            try:
                try:
                    os.mkdir(name, DIRECTORY_MODE, dir_fd=descriptor)
                except FileExistsError:
                    pass
                following = os.open(name, DIRECTORY, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = following
        self._cached = (path, descriptor)
        return descriptor
