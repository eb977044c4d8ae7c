# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that do a part of the work: found, started as the right user, and never believed without their status."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
import subprocess
import threading
from typing import IO, Callable, Dict, Iterator, List, Optional, Tuple, cast

PIPE_BYTES = 1 << 16
#: What is kept of a program's standard error, for messages.
COMPLAINT_BYTES = 8192
#: Where programs are looked for beside PATH: a non-interactive login often has a short one.
PROGRAM_DIRECTORIES = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")


def _numbers(path: str) -> List[int]:
    return [int(digits) for digits in re.findall(r"\d+", path)]


def find_program(name: str, directories: Tuple[str, ...] = ()) -> Optional[str]:
    """Return the path of a program, or None. ``directories`` (glob patterns) come before PATH."""
    places: List[str] = []
    for pattern in directories:
        places += sorted(glob.glob(pattern), key=_numbers, reverse=True)
    path = os.pathsep.join(places + [os.environ.get("PATH", os.defpath)] + list(PROGRAM_DIRECTORIES))
    return shutil.which(name, path=path)


def find_programs(name: str, directories: Tuple[str, ...]) -> List[str]:
    """Return the paths of a program in all of ``directories`` (glob patterns), of PATH and of the usual places."""
    found: Dict[str, str] = {}
    places = [directory for pattern in directories for directory in sorted(glob.glob(pattern))]
    places += os.environ.get("PATH", os.defpath).split(os.pathsep) + list(PROGRAM_DIRECTORIES)
    for directory in places:
        path = shutil.which(name, path=directory) if directory else None
        if path is not None:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def demotion(user_id: int, group_id: int) -> Optional[Callable[[], None]]:
    """Return what a child process calls to give up root's rights for a user's; None where there is nothing to give up.

    ``group_id`` counts where the user has no entry in the system's database.
    """
    if os.geteuid() != 0 or user_id == 0:
        return None
    try:
        entry = pwd.getpwuid(user_id)
        gid, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        gid, groups = group_id, []

    def demote() -> None:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(user_id)

    return demote


class Program:
    """A child process between pipes. ``finish`` waits for its end and returns its status; leaving the context ends it.

    ``complaint`` is the end of what it wrote to standard error.
    """

    def __init__(
        self,
        argv: List[str],
        environment: Dict[str, str],
        demote: Optional[Callable[[], None]] = None,
        pass_fds: Tuple[int, ...] = (),
    ) -> None:
        self._complaint = bytearray()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            preexec_fn=demote,
            cwd="/",
            pass_fds=pass_fds,
        )
        streams = self._process.stdin, self._process.stdout, self._process.stderr
        self.stdin, self.stdout, self._errors = cast(Tuple[IO[bytes], IO[bytes], IO[bytes]], streams)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while True:
            try:
                piece = os.read(self._errors.fileno(), 4096)
            except (OSError, ValueError):
                return
            if not piece:
                return
            self._complaint += piece
            del self._complaint[:-COMPLAINT_BYTES]

    @property
    def complaint(self) -> str:
        return self._complaint.decode("utf-8", "replace").strip()

    def write(self, data: bytes) -> bool:
        """Write all of the data. Returns False when the program has stopped reading: its status tells why."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.stdin.fileno(), view) :]
        except BrokenPipeError:
            return False
        return True

    def output(self) -> Iterator[bytes]:
        """Yield what the program writes, to its end."""
        while True:
            piece = os.read(self.stdout.fileno(), PIPE_BYTES)
            if not piece:
                return
            yield piece

    def close_input(self) -> None:
        try:
            self.stdin.close()
        except OSError:
            pass

    def finish(self) -> int:
        """Wait for the end and return the status; negative for a signal."""
        self.close_input()
        status = self._process.wait()
        self._listener.join(1.0)
        return status

    def stop(self) -> None:
        """End the program if it has not ended by itself."""
        self.close_input()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join(1.0)
        for stream in (self.stdout, self._errors):
            stream.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()
