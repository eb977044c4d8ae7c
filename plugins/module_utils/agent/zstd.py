# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams through the zstd program: one process a frame when packing, one a part when unpacking."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
from typing import IO, Callable, Iterable, List, Optional, Tuple, Type, cast

from ..durable import Piece, write_pieces
from ..errors import BackupError, DamageError, ToolError

LEVEL = 1
PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


def zstd_program() -> Optional[str]:
    """Return the path of the zstd program, or None on a host without it."""
    return shutil.which("zstd", path=os.environ.get("PATH", os.defpath) + ":/usr/local/bin:/usr/bin:/bin")


def widen(stream: IO[bytes]) -> None:
    """Give a pipe the largest buffer that an unprivileged process may have; a smaller one is only slower."""
    try:
        fcntl.fcntl(stream.fileno(), _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass


class Pipe:
    """A zstd process between ``write`` calls and a ``sink`` that a thread of ours calls with its output.

    ``close`` waits for the end and raises ToolError (or DamageError when unpacking) unless the process ended well.
    Leaving the context without ``close`` ends the process.
    """

    def __init__(
        self,
        program: str,
        arguments: List[str],
        sink: Callable[[bytes], object],
        failure: Type[BackupError] = ToolError,
    ) -> None:
        self._failure = failure
        self._problem: Optional[BaseException] = None
        self._process = subprocess.Popen(
            [program, "-q", "-c"] + arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        streams = self._process.stdin, self._process.stdout, self._process.stderr
        self._input, self._output, self._errors = cast(Tuple[IO[bytes], IO[bytes], IO[bytes]], streams)
        widen(self._input)
        widen(self._output)
        self._sink = sink
        self._pump = threading.Thread(target=self._run, daemon=True)
        self._pump.start()

    def _run(self) -> None:
        try:
            while True:
                piece = os.read(self._output.fileno(), PIPE_BYTES)
                if not piece:
                    return
                self._sink(piece)
        except BaseException as error:  # handed to the thread that closes
            self._problem = error
            self._process.kill()

    def write(self, data: bytes) -> None:
        self.write_pieces([data])

    def write_pieces(self, pieces: List[Piece]) -> None:
        """Write pieces one after another, without joining them."""
        try:
            write_pieces(self._input.fileno(), pieces)
        except BrokenPipeError:
            self.close()
            raise self._failure("the zstd program stopped reading") from None

    @property
    def closed(self) -> bool:
        """Whether its process has ended."""
        return self._process.returncode is not None

    def close(self) -> None:
        self._input.close()
        self._pump.join()
        complaint = self._errors.read().decode("utf-8", "replace").strip()
        self._errors.close()
        self._output.close()
        status = self._process.wait()
        if self._problem is not None:
            raise self._problem
        if status != 0:
            raise self._failure("the zstd program failed with status {0}: {1}".format(status, complaint[:500]))

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process if it has not ended by itself."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def compressor(program: str, sink: Callable[[bytes], object]) -> Pipe:
    """Return a pipe that packs what is written to it into one zstd frame."""
    return Pipe(program, ["-{0}".format(LEVEL), "-T1"], sink)


def decompressor(program: str, sink: Callable[[bytes], object]) -> Pipe:
    """Return a pipe that unpacks the zstd frames written to it. Damage raises DamageError."""
    return Pipe(program, ["-d", "--memory=128MB"], sink, DamageError)


def compress(program: Optional[str], pieces: Iterable[bytes], sink: Callable[[bytes], object]) -> None:
    """Pass pieces to a sink, packed when there is a program."""
    if program is None:
        for piece in pieces:
            sink(piece)
        return
    with compressor(program, sink) as pipe:
        for piece in pieces:
            pipe.write(piece)
        pipe.close()
