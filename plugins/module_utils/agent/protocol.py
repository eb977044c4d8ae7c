# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frames that agent and controller exchange, in both directions.

A frame is one byte of kind, four bytes of payload length (big-endian), and the payload. JSON payloads are UTF-8
objects; a RECORDS payload is a batch of JSON lines. See docs/agent.md for the conversation.
"""

from __future__ import annotations

import json
import struct
import threading
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional

from ..errors import ConnectionLost

REQUEST = 1
DATA = 2
RECORDS = 3
EVENT = 4
PROGRESS = 5
HEARTBEAT = 6
RESULT = 7
ERROR = 8
END = 9

HEADER = struct.Struct(">BI")
#: No side sends more in one frame; a larger length means that the stream is not ours.
MAX_PAYLOAD = 16 * 1024 * 1024
#: Seconds between heartbeats, and the silence after which a side gives up. Together they stay below 60 s.
HEARTBEAT_INTERVAL = 10.0
SILENCE_LIMIT = 45.0
#: A payload up to this size is joined with its header; copying a larger one costs more than a second write.
COPIED_BYTES = 16 * 1024
#: Records travel in batches of about this many bytes.
BATCH_BYTES = 128 * 1024


class Frame(NamedTuple):
    kind: int
    payload: bytes

    def json(self) -> Dict[str, Any]:
        value = json.loads(self.payload.decode("utf-8"))
        if not isinstance(value, dict):
            raise ConnectionLost("the other side sent a frame that is not an object")
        return value


def encode(kind: int, payload: bytes = b"") -> bytes:
    """Return one frame as bytes."""
    return HEADER.pack(kind, len(payload)) + payload


def encode_json(kind: int, value: Dict[str, Any]) -> bytes:
    """Return one frame whose payload is a JSON object."""
    return encode(kind, json.dumps(value).encode("utf-8"))


def read_frame(read: Callable[[int], bytes]) -> Optional[Frame]:
    """Read one frame with ``read(n)``, which returns exactly n bytes, or fewer at the end of the stream.

    Returns None at the end of the stream between two frames. Raises ConnectionLost inside a frame or for a stream
    that is not made of frames.
    """
    header = read(HEADER.size)
    if not header:
        return None
    if len(header) < HEADER.size:
        raise ConnectionLost("the connection ended inside a frame")
    kind, length = HEADER.unpack(header)
    if not REQUEST <= kind <= END or length > MAX_PAYLOAD:
        raise ConnectionLost("the stream holds something else than frames: {0!r}".format(header))
    payload = read(length)
    if len(payload) < length:
        raise ConnectionLost("the connection ended inside a frame")
    return Frame(kind, payload)


class FrameWriter:
    """Writes frames from several threads, each frame whole."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._lock = threading.Lock()

    def send(self, kind: int, payload: bytes = b"") -> None:
        header = HEADER.pack(kind, len(payload))
        with self._lock:
            if len(payload) > COPIED_BYTES:
                self._write(header)
                self._write(payload)
            else:
                self._write(header + payload)

    def send_encoded(self, frame: bytes) -> None:
        with self._lock:
            self._write(frame)

    def send_whole(self, write: Callable[[], Any]) -> None:
        """Let ``write`` write one frame by other means, while nobody else writes."""
        with self._lock:
            write()

    def send_json(self, kind: int, value: Dict[str, Any]) -> None:
        self.send(kind, json.dumps(value).encode("utf-8"))


def batches(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines (each with its newline) to payloads of about BATCH_BYTES."""
    pending: List[bytes] = []
    size = 0
    for line in lines:
        pending.append(line)
        size += len(line)
        if size >= BATCH_BYTES:
            yield b"".join(pending)
            pending, size = [], 0
    if pending:
        yield b"".join(pending)


def record(value: Dict[str, Any]) -> bytes:
    """Return a record as one JSON line."""
    return json.dumps(value, separators=(",", ":")).encode("utf-8") + b"\n"


def records(payload: bytes) -> Iterator[Dict[str, Any]]:
    """Split a RECORDS payload into its objects."""
    for line in payload.splitlines():
        yield json.loads(line.decode("utf-8"))
