# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's own directories on a host: private, locked while in use, removed whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import stat
import subprocess
import tempfile
import threading
import time
from typing import Callable, Dict, Iterator, List, Tuple

from ..durable import PRIVATE_DIRECTORY
from ..errors import SettingError, SpaceError, TargetError
from ..media.root import DIRECTORY
from ..media.scan import OWN_PREFIX

PREFIX = os.fsdecode(OWN_PREFIX)
#: Seconds for which a removal goes on while something is still being written.
REMOVE_SECONDS = 5.0
#: File systems that are memory: a copy there could take the memory of the application.
MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


class Cleanup:
    """What has to be undone when the agent ends early: by an error, a signal, silence, or a lost connection."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may have to undo what the interrupted thread was doing.
        self._lock = threading.RLock()
        self._actions: Dict[int, Callable[[], None]] = {}
        self._next = 0

    def add(self, action: Callable[[], None]) -> int:
        with self._lock:
            self._next += 1
            self._actions[self._next] = action
            return self._next

    def remove(self, token: int) -> None:
        with self._lock:
            self._actions.pop(token, None)

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """Keep other threads from undoing while a step runs that must not be undone half-way."""
        with self._lock:
            yield

    def clear(self) -> None:
        """Forget the actions: what was begun is done."""
        with self._lock:
            self._actions.clear()

    def run(self) -> None:
        """Run and forget the actions, newest first. An action that fails does not keep the others from running."""
        with self._lock:
            actions = [self._actions[token] for token in sorted(self._actions, reverse=True)]
            self._actions.clear()
            for action in actions:
                # Whatever goes wrong with one, the others have to run.
                with contextlib.suppress(Exception):
                    action()


class OwnDirectory:
    """A private directory of ours below ``parent``, locked as long as this object is open.

    The parent may belong to the application's user, who can rename what lies in it. So the content is reached through
    :meth:`inside`, by the descriptor that was checked, and never by the directory's path.
    """

    def __init__(self, parent: str, purpose: str, shared: bool = False) -> None:
        """``shared``: others may :meth:`join`, and it is locked until the last of them is gone."""
        while True:
            self._open_parent(parent)
            try:
                made = tempfile.mkdtemp(prefix="{0}{1}-".format(PREFIX, purpose), dir=self.beside(""))
                self._descriptor = os.open(made, DIRECTORY)
            except FileNotFoundError:
                os.close(self._parent)
                continue
            except OSError as error:
                os.close(self._parent)
                kind = SpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SettingError
                reason = error.strerror or str(error)
                raise kind(
                    "cannot make a directory in {0}: {1}; it takes a user who may write there (become), or "
                    "another directory".format(parent, reason)
                ) from None
            self.path = os.path.join(parent, os.path.basename(made))
            fcntl.flock(self._descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            # Another run may have taken it for abandoned before it was locked.
            if self._is_ours() and os.path.isdir(made):
                return
            self.close()

    def _open_parent(self, parent: str) -> None:
        try:
            self._parent = os.open(parent, DIRECTORY)
        except OSError as error:
            raise SettingError("directory {0} cannot be opened: {1}".format(parent, error.strerror)) from None

    @classmethod
    def reopen(cls, path: str) -> OwnDirectory:
        """Open and lock a directory that an earlier run has made.

        Raises TargetError when it is gone, in use, or not a private directory of the user that we run as.
        """
        return cls._opened(path, fcntl.LOCK_EX)

    @classmethod
    def join(cls, path: str, identity: List[int]) -> OwnDirectory:
        """Open a shared directory that another process of the same run has made, and keep it locked with that one.

        Raises TargetError as :meth:`reopen`, and for any other directory than the one whose :attr:`identity` this is.
        """
        directory = cls._opened(path, fcntl.LOCK_SH)
        if directory.identity != identity:
            directory.close()
            raise TargetError("directory {0} is not the one that this restore has made; remove it".format(path))
        return directory

    @property
    def identity(self) -> List[int]:
        """Device and inode."""
        status = os.fstat(self._descriptor)
        return [status.st_dev, status.st_ino]

    @classmethod
    def _opened(cls, path: str, lock: int) -> OwnDirectory:
        directory = cls.__new__(cls)
        directory.path = path
        directory._open_parent(os.path.dirname(path))
        directory._descriptor = -1
        try:
            directory._descriptor = os.open(os.path.basename(path), DIRECTORY, dir_fd=directory._parent)
        except OSError as error:
            directory.close()
            raise TargetError("directory {0} is gone: {1}".format(path, error.strerror)) from None
        try:
            fcntl.flock(directory._descriptor, lock | fcntl.LOCK_NB)
        except OSError:
            directory.close()
            raise TargetError("directory {0} is in use by another run".format(path)) from None
        if not directory._is_ours():
            directory.close()
            raise TargetError("directory {0} is not ours: its owner or mode is another; remove it".format(path))
        return directory

    def _is_ours(self) -> bool:
        status = os.fstat(self._descriptor)
        return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == PRIVATE_DIRECTORY

    def inside(self, name: str) -> str:
        """Return a path of something in the directory, good as long as this object is open."""
        return "/proc/self/fd/{0}/{1}".format(self._descriptor, name)

    def beside(self, name: str) -> str:
        """Return a path of something in the same parent, good as long as this object is open."""
        return "/proc/self/fd/{0}/{1}".format(self._parent, name)

    def sync_parent(self) -> None:
        """Wait until the parent's entries are on disk."""
        os.fsync(self._parent)

    def sync(self) -> None:
        """Wait until the directory's entries are on disk."""
        os.fsync(self._descriptor)

    def sync_file_system(self) -> None:
        """Wait until all data of the directory's file system is on disk. Raises OSError when some is lost (syncfs(2),
        Linux 5.8)."""
        try:
            syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        except (OSError, AttributeError):
            os.sync()
            return
        if syncfs(self._descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), self.path)

    def remove(self) -> None:
        """Remove the directory. What another thread of ours still writes into it goes as well."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while self._descriptor >= 0:
            names = os.listdir(self._descriptor)
            if names:
                # The program, because Python's own removal recurses and ends at some hundred levels.
                command = ["rm", "-rf", "--"] + [self.inside(name) for name in names]
                subprocess.run(
                    command,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[self._descriptor],
                )
            try:
                os.rmdir(os.path.basename(self.path), dir_fd=self._parent)
                break
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._parent >= 0:
            os.close(self._parent)
            self._parent = -1


def abandoned(parent: str, purpose: str) -> List[OwnDirectory]:
    """Return our directories below ``parent`` whose makers are gone, opened and locked; the caller closes them."""
    try:
        names = os.listdir(parent)
    except OSError:
        return []
    found = []
    for name in sorted(names):
        if name.startswith("{0}{1}-".format(PREFIX, purpose)):
            try:
                found.append(OwnDirectory.reopen(os.path.join(parent, name)))
            except (TargetError, SettingError):
                continue
    return found


def remove_abandoned(parent: str, purpose: str) -> None:
    """Remove what earlier runs that were killed have left below ``parent``."""
    for directory in abandoned(parent, purpose):
        directory.remove()


def _mounts() -> Iterator[Tuple[str, str, str]]:
    """Yield (device number, mount point, type) of every mount, as proc(5) describes mountinfo."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            left, _dash, right = line.partition(" - ")
            fields = left.split()
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
            yield fields[2], point, right.split()[0]


def file_system_type(path: str) -> str:
    """Return the type of the file system that holds a path; empty where unknown."""
    device = os.stat(path).st_dev
    number = "{0}:{1}".format(os.major(device), os.minor(device))
    return next((kind for device_number, _point, kind in _mounts() if device_number == number), "")


def is_mount_point(path: str) -> bool:
    """Tell whether something is mounted at a path, bind mounts of the same file system included."""
    resolved = os.path.realpath(path)
    return any(point == resolved for _number, point, _kind in _mounts())


def require_space(directory: str, size: int, what: str) -> None:
    """Raise SpaceError unless a directory's file system has room for ``size`` bytes."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < size:
        raise SpaceError("{0} needs {1:,} bytes in {2}, which has {3:,} free".format(what, size, directory, free))
