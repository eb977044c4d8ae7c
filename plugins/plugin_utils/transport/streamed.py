# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent at the other end of a process of ours: a shell on this machine or an ssh client."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, cast

from ansible_collections.papermerge.backup.plugins.module_utils.agent import protocol
from ansible_collections.papermerge.backup.plugins.module_utils.agent.manners import Manners
from ansible_collections.papermerge.backup.plugins.module_utils.agent.protocol import Frame, FrameWriter
from ansible_collections.papermerge.backup.plugins.module_utils.agent.zstd import widen
from ansible_collections.papermerge.backup.plugins.module_utils.durable import Piece, write_pieces
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    ConnectionLost,
    DamageError,
    LoginError,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import GREETING, agent_pack
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.rate import RateLimit
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    CUT_SHORT,
    Call,
    FileFrame,
    Handlers,
    Session,
    handle_until_result,
)

#: What is kept of the other side's standard error, for messages.
COMPLAINT_BYTES = 8192
#: What a login shell may print before the agent's greeting.
CHATTER_BYTES = 1 << 20
CLOSE_SECONDS = 10.0
#: The status with which ssh itself fails, as opposed to the command that it runs.
SSH_FAILED = 255


@dataclass
class Login:
    """How to become another user at the other end.

    ``is_prompt`` recognises a password prompt in what standard error has brought so far; ``password`` may be None.
    """

    method: str = ""
    password: str | None = None
    is_prompt: Callable[[bytes], bool] = field(default=lambda _text: False)


class StreamedSession(Session):
    """Runs ``argv``, which must end up in the agent's bootstrap, and talks to it over its standard streams.

    ``limit`` is told of every byte that passes, either way; sessions may share one.
    """

    def __init__(
        self,
        argv: list[str],
        host: str,
        login: Login | None = None,
        timeout: float = 30.0,
        environment: dict[str, str] | None = None,
        manners: Manners | None = None,
        limit: RateLimit | None = None,
    ) -> None:
        self._host = host
        self._manners = manners or Manners()
        self._limit = limit
        self._login = login or Login()
        self._refused = ""
        self._complaint = bytearray()
        self._prompts = 0
        self._buffer = bytearray()
        self._data = bytearray()
        self._at_end = self._is_silent = False
        try:
            # A session of its own: an interrupt at the terminal reaches us, and we end the agent in order.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env=environment,
            )
        except OSError as error:
            raise ConnectionLost(f"{host}: cannot start {argv[0]}: {error.strerror}") from None
        streams = self._process.stdin, self._process.stdout, self._process.stderr
        self._input, self._output, self._errors = cast(tuple[IO[bytes], IO[bytes], IO[bytes]], streams)
        widen(self._input)
        widen(self._output)
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen_to_errors, daemon=True)
        self._listener.start()
        self._writer = FrameWriter(self._write)
        try:
            self._greet(timeout)
        except BaseException:
            self._kill()
            raise
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id of the client, for tests that end it."""
        return self._process.pid

    def _write(self, written: list[Piece]) -> None:
        if not self._limit:
            write_pieces(self._input.fileno(), written)
            return
        for piece in written:
            view = memoryview(piece)
            while view:
                count = os.write(self._input.fileno(), view[: self._limit.piece])
                view = view[count:]
                self._limit.passed(count)

    def _listen_to_errors(self) -> None:
        while True:
            try:
                piece = os.read(self._errors.fileno(), 4096)
            except (OSError, ValueError):
                return
            if not piece:
                return
            self._complaint += piece
            if self._login.is_prompt(bytes(self._complaint)):
                self._answer_prompt()
            del self._complaint[:-COMPLAINT_BYTES]

    def _answer_prompt(self) -> None:
        self._prompts += 1
        self._complaint.clear()
        if self._login.password is None or self._prompts > 1:
            what = "asks for a password" if self._login.password is None else "refused the password"
            self._refused = f"{self._login.method} {what}; set ansible_become_password"
            self._process.kill()
            return
        with contextlib.suppress(OSError):
            self._write([self._login.password.encode("utf-8") + b"\n"])

    def _greet(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while GREETING not in self._buffer:
            if len(self._buffer) > CHATTER_BYTES:
                raise ConnectionLost(f"{self._host}: the login prints without end")
            if not self._fill(deadline - time.monotonic()):
                raise self._not_started()
        del self._buffer[: self._buffer.index(GREETING) + len(GREETING)]
        with contextlib.suppress(BrokenPipeError):
            self._write([agent_pack(False, self._manners)])

    def _fill(self, timeout: float) -> bool:
        """Wait for more of the agent's output. Returns False at its end. Raises ConnectionLost after ``timeout``."""
        self._wait(timeout)
        piece = os.read(self._output.fileno(), 1 << 16)
        self._buffer += piece
        self._at_end = not piece
        return bool(piece)

    def _wait(self, timeout: float) -> None:
        ready, _writable, _failed = select.select([self._output], [], [], max(timeout, 0.0))
        if not ready:
            self._is_silent = True
            raise ConnectionLost(f"{self._host}: nothing heard for {timeout:.0f} s{self._last_words()}")

    def _read(self, length: int) -> bytes:
        """Read exactly so much, or less at the end."""
        # Nobody changes it any more; bytes() would be one more copy.
        return cast(bytes, self._read_into(bytearray(length)))

    def _read_data(self, length: int) -> bytes:
        """Read as above, into a buffer that the next frame of data uses again: new memory costs as much as a copy."""
        if length > len(self._data):
            self._data = bytearray(length)
        return cast(bytes, self._read_into(memoryview(self._data)[:length]))

    def _read_into(self, taken: bytearray | memoryview) -> bytearray | memoryview:
        length = len(taken)
        have = min(length, len(self._buffer))
        taken[:have] = self._buffer[:have]
        del self._buffer[:have]
        view = memoryview(taken)
        while have < length:
            self._wait(protocol.SILENCE_LIMIT)
            most = have + self._limit.piece if self._limit else length
            count = os.readv(self._output.fileno(), [view[have:most]])
            if self._limit:
                self._limit.passed(count)
            if not count:
                self._at_end = True
                return taken[:have]
            have += count
        return taken

    def _last_words(self) -> str:
        lines = self._complaint.decode("utf-8", "replace").strip().splitlines()
        return ": " + " / ".join(line.strip() for line in lines[-3:]) if lines else ""

    def _not_started(self) -> BackupError:
        lost = self._ended("cannot be reached")
        if self._refused:
            return LoginError(f"{self._host}: {self._refused}")
        if self._process.returncode == SSH_FAILED:
            return lost
        hint = "; set ansible_become_password" if self._login.method and self._login.password is None else ""
        return LoginError(
            f"{self._host}: the agent could not be started (status {self._process.returncode}){self._last_words()}"
            + (hint if "password" in self._last_words() else "")
        )

    def _ended(self, what: str) -> ConnectionLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        self._listener.join(1.0)
        return ConnectionLost(f"{self._host}: {what} (status {self._process.returncode}){self._last_words()}")

    def _beat(self) -> None:
        while not self._closing.wait(protocol.HEARTBEAT_INTERVAL):
            try:
                self._writer.send(protocol.HEARTBEAT)
            except (OSError, ValueError):
                return

    def _frames(self) -> Iterator[Frame]:
        while True:
            try:
                frame = protocol.read_frame(self._read, self._read_data)
            except ConnectionLost as error:
                # The process may need a moment more than its output to end.
                if not self._at_end:
                    raise
                raise self._ended(f"the connection was lost: {error.message}") from None
            if frame is None:
                raise self._ended("the connection was lost")
            yield frame

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        problems: list[BaseException] = []
        sending = threading.Thread(target=self._send, args=(call, problems), daemon=True)
        sending.start()
        try:
            result = handle_until_result(self._frames(), handlers or Handlers())
        except ConnectionLost as error:
            # What failed on our side while sending, such as a damaged part, is the cause, not the effect.
            raise next((cause for cause in problems if isinstance(cause, BackupError)), error) from None
        sending.join()
        if problems:
            raise problems[0]
        return result

    def _send(self, call: Call, problems: list[BaseException]) -> None:
        try:
            for frame in call.frames():
                if isinstance(frame, bytes):
                    self._writer.send_encoded(frame)
                else:
                    self._writer.send_whole(partial(self._pass_on, frame))
        except BrokenPipeError:
            return  # the reader learns why
        except BaseException as error:
            problems.append(error)
            # The agent must not wait for the rest, and must undo what it has.
            with contextlib.suppress(OSError):
                self._input.close()

    def _pass_on(self, frame: FileFrame) -> None:
        """Send a frame whose payload lies in a file, from the kernel to the kernel where it can do so."""
        output = self._input.fileno()
        most = self._limit.piece if self._limit else protocol.MAX_PAYLOAD
        # A pipe takes so little whole or not at all.
        os.write(output, frame.header)
        for offset, size in frame.piece.extents:
            end = offset + size
            while offset < end:
                try:
                    count = os.sendfile(output, frame.piece.descriptor, offset, min(most, end - offset))
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    # A file system whose files cannot be passed on.
                    count = os.write(output, os.pread(frame.piece.descriptor, min(most, end - offset), offset))
                if not count:
                    raise DamageError(CUT_SHORT)
                if self._limit:
                    self._limit.passed(count)
                offset += count

    def close(self) -> None:
        """End the agent: it ends by itself when its input does; a silent one, or after CLOSE_SECONDS, is made to."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._input.close()
        if not self._is_silent:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        self._kill()

    def _kill(self) -> None:
        self._closing.set()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join(1.0)
        for stream in (self._input, self._output, self._errors):
            with contextlib.suppress(OSError):
                stream.close()
