# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's own directories on a host: private, locked while in use, removed whatever happens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import threading
from typing import Callable, Dict, Iterator, List, Tuple

from ..errors import SettingError, SpaceError, describe_os_error
from ..media.scan import OWN_PREFIX

PREFIX = os.fsdecode(OWN_PREFIX)
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
                try:
                    action()
                except OSError:
                    continue


class OwnDirectory:
    """A private directory of ours below ``parent``, locked as long as this object is open."""

    def __init__(self, parent: str, purpose: str) -> None:
        while True:
            try:
                self.path = tempfile.mkdtemp(prefix="{0}{1}-".format(PREFIX, purpose), dir=parent)
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                if os.path.isdir(parent):
                    continue
                raise SettingError("directory {0} does not exist".format(parent)) from None
            except OSError as error:
                kind = SpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SettingError
                raise kind("cannot make a directory in {0}: {1}".format(parent, describe_os_error(error))) from None
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            # Another run may have taken it for abandoned before it was locked.
            if os.path.isdir(self.path):
                return
            os.close(self._descriptor)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def _lock_if_abandoned(path: str) -> Iterator[bool]:
    """Hold the lock of a directory of ours; yields False when its maker still holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def _own_directories(parent: str, purpose: str) -> List[str]:
    try:
        names = os.listdir(parent)
    except OSError:
        return []
    return [os.path.join(parent, name) for name in names if name.startswith("{0}{1}-".format(PREFIX, purpose))]


def abandoned(parent: str, purpose: str) -> List[str]:
    """Return our directories below ``parent`` whose makers are gone."""
    found = []
    for path in _own_directories(parent, purpose):
        with _lock_if_abandoned(path) as locked:
            if locked:
                found.append(path)
    return found


def remove_abandoned(parent: str, purpose: str) -> None:
    """Remove what earlier runs that were killed have left below ``parent``."""
    for path in _own_directories(parent, purpose):
        with _lock_if_abandoned(path) as locked:
            if locked:
                shutil.rmtree(path, ignore_errors=True)


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
