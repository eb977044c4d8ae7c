# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker and Podman, by their own programs: what containers there are, and files of them, with nothing run inside."""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import subprocess
import tarfile
import time
from typing import IO, Any, Callable, Dict, List, Optional, Tuple, cast

from ..errors import ToolError

PROGRAMS = ("docker", "podman")
PLACES = "/usr/local/bin:/usr/bin:/bin:/snap/bin"
SECONDS = 60
#: A container's description takes some 10 kB.
DESCRIPTION_BYTES = 64 << 20
FILE_BYTES = 1 << 20
COMPLAINT_BYTES = 4096
#: So that a list of containers never becomes too long an argument list.
AT_ONCE = 100
_GONE = re.compile(r"no such|not found|could not be found|could not find", re.IGNORECASE)
_NOT_RUNNING = re.compile(r"cannot connect to the docker daemon|is the docker daemon running", re.IGNORECASE)
_FORBIDDEN = re.compile(r"permission denied", re.IGNORECASE)


class Call:
    """One call of an engine's program, as a stream of its output that is bounded in bytes and seconds.

    Leaving the context ends the program. Raises ToolError past either bound.
    """

    def __init__(self, words: List[str], limit: int, seconds: float) -> None:
        self._shown = " ".join(words[:4])
        self._left = limit
        self._limit = limit
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._complaint = bytearray()
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise ToolError("{0} cannot be run: {1}".format(words[0], error.strerror)) from None
        self._output = cast(IO[bytes], self._process.stdout)
        self._errors = cast(IO[bytes], self._process.stderr)
        self._open = selectors.DefaultSelector()
        self._open.register(self._output, selectors.EVENT_READ)
        self._open.register(self._errors, selectors.EVENT_READ)

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes of output, or all of it, or nothing at its end."""
        if size >= 0:
            return self._piece(size)
        pieces: List[bytes] = []
        while True:
            piece = self._piece(1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def _piece(self, size: int) -> bytes:
        while self._open.get_map():
            seconds = self._end - time.monotonic()
            if seconds <= 0:
                raise ToolError("{0} did not end within {1:g} seconds".format(self._shown, self._seconds))
            for key, _events in self._open.select(seconds):
                stream = cast(IO[bytes], key.fileobj)
                piece = os.read(stream.fileno(), min(size, 1 << 16) if stream is self._output else COMPLAINT_BYTES)
                if not piece:
                    self._open.unregister(stream)
                elif stream is self._errors:
                    self._complaint += piece[: COMPLAINT_BYTES - len(self._complaint)]
                else:
                    self._left -= len(piece)
                    if self._left < 0:
                        raise _TooMuch("{0} wrote more than {1} bytes".format(self._shown, self._limit))
                    return piece
        return b""

    def finish(self) -> Tuple[int, str]:
        """Read to the end and return the exit status and what the program complained of."""
        while self._piece(1 << 16):
            pass
        status = self._process.wait()
        return status, self._complaint.decode("utf-8", "replace").strip()

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._open.close()
        self._output.close()
        self._errors.close()


class Engine:
    """Docker or Podman as the user that asks sees it: rootless engines show their own user's containers only."""

    def __init__(self, program: str, seconds: float = SECONDS) -> None:
        """``seconds``: how long one call may take."""
        self.program = program
        self._seconds = seconds
        self.name = os.path.basename(program)

    def __repr__(self) -> str:
        return "Engine({0!r})".format(self.program)

    def containers(self) -> List[Dict[str, Any]]:
        """Return what ``inspect`` says of every container, running or not, sorted by name.

        Raises ToolError for an engine that cannot be asked: it does not run, or not by this user.
        """
        for _attempt in range(3):
            names = self._answer(["ps", "--all", "--quiet", "--no-trunc"]).decode("ascii", "replace").split()
            try:
                found: List[Dict[str, Any]] = []
                for start in range(0, len(names), AT_ONCE):
                    found += self._inspect("container", names[start : start + AT_ONCE])
                return sorted(found, key=lambda document: str(document.get("Name", "")))
            except _Gone:
                continue  # one of them has gone since it was listed
        raise ToolError("{0}: containers come and go too fast to be looked at".format(self.program))

    def volume(self, name: str) -> Optional[Dict[str, Any]]:
        """Return what ``inspect`` says of a volume, None where there is none of that name."""
        return self._one("volume", name)

    def _one(self, kind: str, name: str) -> Optional[Dict[str, Any]]:
        try:
            return next(iter(self._inspect(kind, [name])), None)
        except _Gone:
            return None

    def _inspect(self, kind: str, names: List[str]) -> List[Dict[str, Any]]:
        text = self._answer([kind, "inspect"] + names)
        try:
            found = json.loads(text)
        except ValueError:
            raise ToolError("{0} {1} inspect gave no JSON".format(self.program, kind)) from None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ToolError("{0} {1} inspect gave no list".format(self.program, kind))
        return found

    def _answer(self, words: List[str]) -> bytes:
        with Call([self.program] + words, DESCRIPTION_BYTES, self._seconds) as call:
            answer = call.read()
            status, complaint = call.finish()
        if status == 0:
            return answer
        raise self._failure(complaint, status)

    def _failure(self, complaint: str, status: int) -> ToolError:
        if _FORBIDDEN.search(complaint):
            return ToolError(
                "{0} may not be used by this user (permission denied): set become, or log in as a user who may".format(
                    self.program
                )
            )
        if _NOT_RUNNING.search(complaint):
            return ToolError("{0} is installed, but its engine does not run".format(self.program))
        if _GONE.search(complaint):
            return _Gone(complaint)
        last = (complaint.splitlines() or ["no message"])[-1]
        return ToolError("{0} failed with status {1}: {2}".format(self.program, status, last[:300]))

    def member(
        self, container: str, path: str, wanted: Callable[[tarfile.TarInfo], bool], limit: int
    ) -> Optional[tarfile.TarInfo]:
        """Return the first wanted one of the files at and below an absolute path of a container, running or not.

        Looks at ``limit`` bytes of them at most. None where nothing is wanted, or the path does not exist.
        """
        found = self._copied(container, path, wanted, limit)
        return found[0] if found else None

    def file(self, container: str, path: str) -> Optional[bytes]:
        """Return the first MiB of a regular file of a container, running or not; None where there is none."""
        found = self._copied(container, path, tarfile.TarInfo.isfile, FILE_BYTES + (1 << 20))
        return found[1] if found else None

    def _copied(
        self, container: str, path: str, wanted: Callable[[tarfile.TarInfo], bool], limit: int
    ) -> Optional[Tuple[tarfile.TarInfo, bytes]]:
        with Call([self.program, "cp", container + ":" + path, "-"], limit, self._seconds) as call:
            try:
                with tarfile.open(fileobj=call, mode="r|") as archive:  # type: ignore[call-overload]
                    for member in archive:
                        if wanted(member):
                            stream = archive.extractfile(member) if member.isfile() else None
                            return member, stream.read(FILE_BYTES) if stream else b""
            except tarfile.ReadError:
                pass  # nothing came: the status says why
            except _TooMuch:
                return None
            status, complaint = call.finish()
        if status != 0 and not _GONE.search(complaint):
            raise self._failure(complaint, status)
        return None


class _Gone(ToolError):
    """What was asked for does not exist."""


class _TooMuch(ToolError):
    """More output than the caller was ready to read."""


def engines() -> List[Engine]:
    """Return the engines whose programs are installed."""
    path = os.environ.get("PATH", os.defpath) + ":" + PLACES
    found = [shutil.which(name, path=path) for name in PROGRAMS]
    return [Engine(program) for program in found if program]
