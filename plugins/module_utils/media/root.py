# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories reached name by name, so that no link is followed on the way unless it was allowed."""

from __future__ import annotations

import errno
import os
from typing import Iterable, List, Tuple

from ..errors import MediaError, describe_os_error
from ..paths import shown

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
#: So many directories on the way to the last file stay open.
KEPT_OPEN = 16


class MediaRoot:
    """The media directory and the other directories into which its links and mounts may lead.

    Raises MediaError when the root is missing or not a directory; ``found_in`` tells where the setting came from.
    """

    def __init__(self, root: str, allowed: Iterable[str] = (), found_in: str = "papermerge_backup_media_root") -> None:
        self.name = root
        where = "media directory {0} ({1})".format(root, found_in)
        hint = "; set papermerge_backup_media_root, or mount what belongs there"
        try:
            self.path = os.fsencode(os.path.realpath(root))
            self.descriptor = os.open(self.path, DIRECTORY)
        except FileNotFoundError:
            raise MediaError("{0} does not exist{1}".format(where, hint)) from None
        except NotADirectoryError:
            raise MediaError("{0} is not a directory{1}".format(where, hint)) from None
        except OSError as error:
            raise MediaError("{0} cannot be opened: {1}".format(where, describe_os_error(error))) from None
        self._allowed: List[bytes] = [os.fsencode(os.path.realpath(path)) for path in allowed]
        #: The way to the directory of the last file: (path, descriptor), each below the one before.
        self._way: List[Tuple[bytes, int]] = []

    def close(self) -> None:
        self._forget()
        os.close(self.descriptor)

    def _forget(self) -> None:
        while self._way:
            os.close(self._way.pop()[1])

    def allows_mount(self, target: bytes) -> bool:
        """Tell whether a resolved path lies in a directory that the user allows."""
        return any(target == root or target.startswith(root.rstrip(b"/") + b"/") for root in self._allowed)

    def allows(self, target: bytes) -> bool:
        """Tell whether a resolved path lies in the media directory or in a directory that the user allows."""
        return target.startswith(self.path.rstrip(b"/") + b"/") or self.allows_mount(target)

    def resolve_link(self, path: bytes) -> bytes:
        """Return where a link leads. Raises MediaError when that is outside, naming link and target."""
        full = os.path.join(self.path, path)
        target = os.path.realpath(full)
        if not self.allows(target):
            raise MediaError(
                "{0} in media directory {1} is a link to {2}, outside of it; remove the link or add the target's "
                "directory to papermerge_backup_media_allowed_roots".format(
                    shown(path), self.name, shown(os.readlink(full))
                ),
                path=shown(path),
            )
        return target

    def open_file(self, path: bytes) -> int:
        """Open a file below the root for reading and return its descriptor. Raises OSError, or MediaError for a link
        that leads outside. The way to the last file stays open, since files come in the order of their paths."""
        try:
            return self._open_file(path)
        except FileNotFoundError:
            if not self._way:
                raise
        # A directory on the way may be another one by now.
        self._forget()
        return self._open_file(path)

    def _open_file(self, path: bytes) -> int:
        directory, _slash, name = path.rpartition(b"/")
        try:
            return os.open(name, FILE, dir_fd=self._directory(directory))
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        return os.open(self.resolve_link(path), FILE)

    def _directory(self, path: bytes) -> int:
        """Return the descriptor of a directory, which stays ours. Raises OSError, or MediaError as open_file."""
        way = self._way
        if way and way[-1][0] == path:
            return way[-1][1]
        if not path:
            return self.descriptor
        while way and not path.startswith(way[-1][0] + b"/"):
            os.close(way.pop()[1])
        parent, end = (way[-1][1], len(way[-1][0]) + 1) if way else (self.descriptor, 0)
        for name in path[end:].split(b"/"):
            end += len(name)
            walked = path[:end]
            parent = self.enter(parent, name, walked)
            if len(way) == KEPT_OPEN:
                os.close(way.pop()[1])
            way.append((walked, parent))
            end += 1
        return parent

    def open_directory(self, path: bytes) -> int:
        """Open a directory below the root and return its descriptor. Raises OSError, or MediaError as open_file."""
        return os.open(b".", DIRECTORY, dir_fd=self._directory(path))

    def enter(self, parent: int, name: bytes, path: bytes) -> int:
        """Open a directory below an open one, as :meth:`open_directory` would; ``path`` is that from the root."""
        try:
            return os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            # Linux answers ENOTDIR, not ELOOP, for a link opened with O_DIRECTORY and O_NOFOLLOW.
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not os.path.islink(os.path.join(self.path, path)):
                raise
        return os.open(self.resolve_link(path), DIRECTORY)
