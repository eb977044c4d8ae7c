# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scan: every regular file below the media root, in directory order."""

from __future__ import annotations

import os
import stat
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..errors import MediaError, describe_os_error
from ..paths import MAX_PATH, path_json, path_of, shown
from .root import MediaRoot

#: Names of this collection's own files on a host; what begins so is never part of a snapshot.
OWN_PREFIX = b".papermerge-backup."
#: Directories that are open at once on the way down, two descriptors each. Deeper ones are reached from the root again.
OPEN_LEVELS = 64


class ScannedFile(NamedTuple):
    """Metadata of a file: ``size`` in bytes, times in nanoseconds since 1970."""

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int

    def as_line(self) -> bytes:
        """Return the file as a record."""
        text = '{%s,"size":%d,"mtime_ns":%d,"ctime_ns":%d,"device":%d,"inode":%d}\n' % (
            path_json(self.path),
            *self[1:],
        )
        return text.encode("ascii")


def scanned_file(fields: Dict[str, Any]) -> ScannedFile:
    """Read what :meth:`ScannedFile.as_line` wrote."""
    return ScannedFile(
        path_of(fields), fields["size"], fields["mtime_ns"], fields["ctime_ns"], fields["device"], fields["inode"]
    )


class _Level(NamedTuple):
    """An open directory on the way down, and what is left of its entries. ``path`` is empty for the root."""

    path: bytes
    descriptor: int
    entries: Iterator[os.DirEntry[str]]
    through_link: bool

    def close(self) -> None:
        self.entries.close()  # type: ignore[attr-defined]
        os.close(self.descriptor)


class Scanner:
    """Walks a media root once, depth first. After the walk ``skipped`` counts what is neither file nor directory.

    ``excluded``: directories directly below the root that are left out. Memory holds neither the files nor the
    directories, except those whose depth is a multiple of OPEN_LEVELS until they are visited.
    """

    def __init__(self, root: MediaRoot, excluded: Sequence[bytes] = ()) -> None:
        self._root = root
        self._excluded = frozenset(excluded)
        self._device = os.fstat(root.descriptor).st_dev
        self._entered: Set[Tuple[int, int]] = set()
        self._levels: List[_Level] = []
        self.skipped = 0
        self.skipped_example = b""

    def files(self) -> Iterator[ScannedFile]:
        """Yield the files. Raises MediaError for a directory that cannot be read, and for a link or a mount that
        leads out of the allowed roots."""
        pending: List[Tuple[bytes, bool]] = [(b"", False)]
        try:
            while pending:
                path, through_link = pending.pop()
                self._enter(path, through_link)
                while self._levels:
                    yield from self._walk(pending)
        finally:
            while self._levels:
                self._levels.pop().close()

    def _enter(self, path: bytes, through_link: bool) -> None:
        """Open a directory, below the one that was entered last if there is any, and make it the next to be read."""
        try:
            if self._levels:
                descriptor = self._root.enter(self._levels[-1].descriptor, path.rpartition(b"/")[2], path)
            else:
                descriptor = self._root.open_directory(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(path, error) from None
        try:
            self._check(descriptor, path, through_link)
            self._levels.append(_Level(path, descriptor, os.scandir(descriptor), through_link))
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise self._unreadable(path, error) from None
            raise

    def _walk(self, pending: List[Tuple[bytes, bool]]) -> Iterator[ScannedFile]:
        """Yield the files of the directory that was entered last, up to its next directory or its end."""
        level = self._levels[-1]
        prefix = level.path + b"/" if level.path else b""
        try:
            for entry in level.entries:
                path = prefix + os.fsencode(entry.name)
                if len(path) > MAX_PATH:
                    raise self._too_long(path)
                status, linked = self._status(entry, path)
                if status is None:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield ScannedFile(
                        path,
                        status.st_size,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                        status.st_dev,
                        status.st_ino,
                    )
                elif not stat.S_ISDIR(status.st_mode):
                    self.skipped += 1
                    self.skipped_example = self.skipped_example or path
                elif path not in self._excluded and not path.startswith(OWN_PREFIX):
                    through_link = level.through_link or linked
                    if len(self._levels) == OPEN_LEVELS:
                        pending.append((path, through_link))
                    else:
                        self._enter(path, through_link)
                        return
        except OSError as error:
            raise self._unreadable(level.path, error) from None
        self._levels.pop().close()

    def _status(self, entry: os.DirEntry[str], path: bytes) -> Tuple[Optional[os.stat_result], bool]:
        try:
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                return status, False
            return os.stat(self._root.resolve_link(path)), True
        except FileNotFoundError:
            return None, False

    def _too_long(self, path: bytes) -> MediaError:
        return MediaError(
            "media directory {0} holds a path longer than {1:,} bytes; remove it or make it shorter: {2}...".format(
                self._root.name, MAX_PATH, shown(path[:200])
            )
        )

    def _unreadable(self, directory: bytes, error: OSError) -> MediaError:
        return MediaError(
            "directory {0} in media directory {1} cannot be read: {2}".format(
                shown(directory) or ".", self._root.name, describe_os_error(error)
            )
        )

    def _check(self, descriptor: int, path: bytes, through_link: bool) -> None:
        status = os.fstat(descriptor)
        if status.st_dev != self._device and not through_link:
            target = os.path.realpath(os.path.join(self._root.path, path))
            if not self._root.allows_mount(target):
                raise MediaError(
                    "{0} in media directory {1} is a mount of another file system; add {2} to "
                    "papermerge_backup_media_allowed_roots if it belongs to the media".format(
                        shown(path), self._root.name, shown(target)
                    ),
                    path=shown(path),
                )
        if through_link:
            key = (status.st_dev, status.st_ino)
            if key in self._entered:
                raise MediaError(
                    "{0} in media directory {1} is reached twice through links; remove one of them".format(
                        shown(path), self._root.name
                    ),
                    path=shown(path),
                )
            self._entered.add(key)


def count_and_size(root: MediaRoot, excluded: Sequence[bytes], tick: Callable[[int, int], None]) -> Tuple[int, int]:
    """Return the number of files below a root and the sum of their sizes in bytes."""
    files = size = 0
    for found in Scanner(root, excluded).files():
        files += 1
        size += found.size
        if not files % 4096:
            tick(files, size)
    return files, size
