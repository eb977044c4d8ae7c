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


class Scanner:
    """Walks a media root once. After the walk ``skipped`` counts what is neither file nor directory.

    ``excluded``: directories directly below the root that are left out. Memory holds the names of the subdirectories
    still to visit, not the files.
    """

    def __init__(self, root: MediaRoot, excluded: Sequence[bytes] = ()) -> None:
        self._root = root
        self._excluded = frozenset(excluded)
        self._device = os.fstat(root.descriptor).st_dev
        self._entered: Set[Tuple[int, int]] = set()
        self.skipped = 0
        self.skipped_example = b""

    def files(self) -> Iterator[ScannedFile]:
        """Yield the files. Raises MediaError for a directory that cannot be read, and for a link or a mount that
        leads out of the allowed roots."""
        pending: List[Tuple[bytes, bool]] = [(b"", False)]
        while pending:
            directory, through_link = pending.pop()
            try:
                descriptor = self._root.open_directory(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._unreadable(directory, error) from None
            try:
                self._check(descriptor, directory, through_link)
                prefix = directory + b"/" if directory else b""
                with os.scandir(descriptor) as entries:
                    for entry in entries:
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
                            pending.append((path, through_link or linked))
            except OSError as error:
                raise self._unreadable(directory, error) from None
            finally:
                os.close(descriptor)

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
