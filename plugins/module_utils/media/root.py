# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories reached name by name, so that no link is followed on the way unless it was allowed."""

from __future__ import annotations

import errno
import os
from typing import Iterable, List, Optional, Tuple

from ..errors import MediaError, describe_os_error
from ..paths import shown

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


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
        self._cached: Optional[Tuple[bytes, int]] = None

    def close(self) -> None:
        self._forget()
        os.close(self.descriptor)

    def _forget(self) -> None:
        if self._cached is not None:
            os.close(self._cached[1])
            self._cached = None

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
        that leads outside. The directory of the last file stays open, since files come in the order of their paths."""
        directory, _slash, name = path.rpartition(b"/")
        parent = self._directory(directory)
        try:
            return os.open(name, FILE, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        return os.open(self.resolve_link(path), FILE)

    def _directory(self, path: bytes) -> int:
        if not path:
            return self.descriptor
        if self._cached is not None and self._cached[0] == path:
            return self._cached[1]
        self._forget()
        self._cached = (path, self.open_directory(path))
        return self._cached[1]

    def open_directory(self, path: bytes) -> int:
        """Open a directory below the root and return its descriptor. Raises OSError, or MediaError as open_file."""
        descriptor = os.open(b".", DIRECTORY, dir_fd=self.descriptor)
        if not path:
            return descriptor
        walked: List[bytes] = []
        try:
            for name in path.split(b"/"):
                walked.append(name)
                following = self.enter(descriptor, name, b"/".join(walked))
                os.close(descriptor)
                descriptor = following
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def enter(self, parent: int, name: bytes, path: bytes) -> int:
        """Open a directory below an open one, as :meth:`open_directory` would; ``path`` is that from the root."""
        try:
            return os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            # Linux answers ENOTDIR, not ELOOP, for a link opened with O_DIRECTORY and O_NOFOLLOW.
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not os.path.islink(os.path.join(self.path, path)):
                raise
        return os.open(self.resolve_link(path), DIRECTORY)
