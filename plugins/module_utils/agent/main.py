# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's loop: requests in, frames out, and an end whatever happens to the other side.

The agent never outlives its controller: it ends when its input ends, when it has heard nothing for SILENCE_LIMIT
seconds, or at a signal, and takes away what it has made on the host. After an error it ends, too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import queue
import signal
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, cast

from ..errors import BackupError, ConnectionLost, SpaceError, describe_os_error
from . import protocol
from .manners import Manners, adopt
from .protocol import Frame, FrameWriter
from .workspace import Cleanup, OwnDirectory

EXIT_FAILED = 1
EXIT_ABANDONED = 70
#: Seconds between two looks at the file that a staged agent answers into.
OUTPUT_CHECK = 1.0


def _refusal(error: OSError) -> BackupError:
    words = describe_os_error(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError("the host has no room left: {0}; free some and run again".format(words))
    return BackupError("the host's system refused: {0}".format(words))


class Channel:
    """One conversation: what an operation may use to talk to the controller.

    ``keep``: the agent ends after each request (staging), so what an operation has to leave for the next one stays.
    """

    def __init__(self, source: io.BufferedReader, descriptor: int, batch: bool) -> None:
        self._source = source
        self._descriptor = descriptor
        self.keep = batch
        self.cleanup = Cleanup()
        self._held: Dict[str, OwnDirectory] = {}
        #: What operations of one conversation need not find out twice.
        self.memory: Dict[Any, Any] = {}
        self._writer = FrameWriter(self._write)
        self._inbox: queue.Queue[Optional[Frame]] = queue.Queue(maxsize=8)
        self._heard = time.monotonic()
        self._progressed = 0.0
        for work in (self._watch_output,) if batch else (self._listen, self._watch, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    # -- directories that live longer than one operation -------------------------------------------------------------

    def hold(self, directory: OwnDirectory) -> str:
        """Keep a directory of ours open until :meth:`release` or the agent's end. Returns its path."""
        self._held[directory.path] = directory
        return directory.path

    @contextlib.contextmanager
    def held(self, path: str, identity: Optional[List[int]] = None) -> Iterator[OwnDirectory]:
        """Yield a directory that an earlier operation has made: ours still, or opened again and locked meanwhile.

        ``identity``: of a shared directory, that agents beside this one may have made and hold.
        Raises TargetError when it is gone, in use, not ours or another.
        """
        directory = self._held.get(path)
        if directory is not None:
            yield directory
            return
        directory = OwnDirectory.reopen(path) if identity is None else OwnDirectory.join(path, identity)
        try:
            yield directory
        finally:
            directory.close()

    def release(self) -> None:
        """Close what is held; the directories stay."""
        for directory in self._held.values():
            directory.close()
        self._held.clear()

    # -- what operations use ------------------------------------------------------------------------------------------

    def data(self, piece: bytes) -> None:
        """Send bytes of the archive or dump, in frames of at most 1 MiB."""
        if len(piece) <= 1 << 20:
            self._writer.send(protocol.DATA, piece)
            return
        view = memoryview(piece)
        for start in range(0, len(view), 1 << 20):
            self._writer.send(protocol.DATA, bytes(view[start : start + (1 << 20)]))

    def records(self, rows: Iterable[Dict[str, Any]]) -> None:
        """Send records in batches."""
        self.lines(protocol.record(row) for row in rows)

    def lines(self, lines: Iterable[bytes]) -> None:
        """Send records that are JSON lines already, in batches."""
        for batch in protocol.batches(lines):
            self._writer.send(protocol.RECORDS, batch)

    def event(self, value: Dict[str, Any]) -> None:
        self._writer.send_json(protocol.EVENT, value)

    def progress(self, done: int, total: int) -> None:
        """Tell how far the operation is, at most once a second."""
        now = time.monotonic()
        if now - self._progressed >= 1.0:
            self._progressed = now
            self._writer.send_json(protocol.PROGRESS, {"done": done, "total": total})

    def input_records(self) -> Iterator[Dict[str, Any]]:
        """Yield the records that follow the request, up to their END."""
        while True:
            frame = self._next_frame()
            if frame.kind == protocol.END:
                return
            if frame.kind != protocol.RECORDS:
                raise ConnectionLost("expected records, got a frame of kind {0}".format(frame.kind))
            yield from protocol.records(frame.payload)

    def input_data(self) -> Iterator[bytes]:
        """Yield the bytes that follow the request, up to their END."""
        while True:
            frame = self._next_frame()
            if frame.kind == protocol.END:
                return
            if frame.kind != protocol.DATA:
                raise ConnectionLost("expected data, got a frame of kind {0}".format(frame.kind))
            yield frame.payload

    # -- the loop -----------------------------------------------------------------------------------------------------

    def serve(
        self,
        operations: Dict[str, Callable[[Channel, Dict[str, Any]], Dict[str, Any]]],
        refusal: Optional[BackupError] = None,
    ) -> int:
        """Answer requests until the input ends; with a refusal answer nothing but that. Returns the exit status."""
        try:
            if refusal is not None:
                raise refusal
            while True:
                frame = self._take()
                if frame is None:
                    return 0
                if frame.kind != protocol.REQUEST:
                    raise ConnectionLost("expected a request, got a frame of kind {0}".format(frame.kind))
                request = frame.json()
                result = operations[request["operation"]](self, request["arguments"])
                self._writer.send_json(protocol.RESULT, result)
        except BackupError as error:
            self._fail(error.as_result())
        except OSError as error:
            self._fail(_refusal(error).as_result())
        except Exception as error:
            self._fail(
                {"msg": "the agent failed: {0!r}".format(error), "error": "failed", "traceback": traceback.format_exc()}
            )
        finally:
            self.cleanup.run()
        return EXIT_FAILED

    def _fail(self, result: Dict[str, Any]) -> None:
        # First undo, then tell: whoever reads the error may rely on what it says about the host.
        self.cleanup.run()
        try:
            self._writer.send_json(protocol.ERROR, result)
        except OSError:
            pass

    def _next_frame(self) -> Frame:
        frame = self._take()
        if frame is None:
            raise ConnectionLost("the controller stopped sending")
        return frame

    def _take(self) -> Optional[Frame]:
        if not self.keep:
            return self._inbox.get()
        while True:
            frame = protocol.read_frame(self._source.read)
            if frame is None or frame.kind != protocol.HEARTBEAT:
                return frame

    def _read(self, length: int) -> bytes:
        """Read exactly so much, or less at the end. Over a slow link a frame takes long: every byte counts as heard."""
        taken = bytearray(length)
        view = memoryview(taken)
        have = 0
        while have < length:
            count = self._source.readinto1(view[have:])
            if not count:
                return bytes(view[:have])
            self._heard = time.monotonic()
            have += count
        # Nobody changes it any more, and bytes() would be one more copy.
        return cast(bytes, taken)

    def _listen(self) -> None:
        try:
            while True:
                frame = protocol.read_frame(self._read)
                if frame is None:
                    break
                if frame.kind == protocol.HEARTBEAT:
                    continue
                while True:
                    try:
                        self._inbox.put(frame, timeout=1.0)
                        break
                    except queue.Full:
                        # The operation is slow, not the controller.
                        self._heard = time.monotonic()
        except (ConnectionLost, OSError, ValueError):
            pass
        # Nobody waits for an answer any more. While idle that is the ordinary end.
        self.abandon()

    def _watch(self) -> None:
        while True:
            time.sleep(protocol.HEARTBEAT_INTERVAL / 4)
            if time.monotonic() - self._heard > protocol.SILENCE_LIMIT:
                self.abandon()

    def _watch_output(self) -> None:
        # Staging: nobody hears of a controller that was killed, until the next one removes the file of the answer.
        while os.fstat(self._descriptor).st_nlink:
            time.sleep(OUTPUT_CHECK)
        self.abandon()

    def _beat(self) -> None:
        # Not in _watch: a dead connection blocks whoever writes.
        while True:
            time.sleep(protocol.HEARTBEAT_INTERVAL)
            try:
                self._writer.send(protocol.HEARTBEAT)
            except OSError:
                self.abandon()

    def abandon(self) -> None:
        """Undo and end at once, from any thread."""
        try:
            self.cleanup.run()
        finally:
            os._exit(EXIT_ABANDONED)


def run(source: io.BufferedReader, batch: bool, manners: Manners) -> None:
    """Serve one controller over standard input and output, then exit."""
    refusal = None
    try:
        adopt(manners)
    except BackupError as error:
        refusal = error
    from .operations import OPERATIONS

    # Frames get a descriptor of their own: whatever prints by accident goes to standard error.
    descriptor = os.dup(1)
    os.dup2(2, 1)
    channel = Channel(source, descriptor, batch)
    names = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def end(_number: int, _frame: object) -> None:
        # A second signal must not end the agent while it still undoes.
        for name in names:
            signal.signal(name, signal.SIG_IGN)
        channel.abandon()

    for name in names:
        signal.signal(name, end)
    status = channel.serve(OPERATIONS, refusal)
    sys.stderr.flush()
    os._exit(status)
