# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A conversation with an agent, whatever carries it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ansible_collections.papermerge.backup.plugins.module_utils.agent import protocol
from ansible_collections.papermerge.backup.plugins.module_utils.agent.protocol import Frame
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    ConnectionLost,
    DamageError,
    error_from_dict,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.raw import Extent


@dataclass
class Handlers:
    """What to do with what an agent sends before its result, in the order of arrival. None: nobody needs it.

    What ``data`` is given is used again for the next piece.
    """

    records: Callable[[Iterator[dict[str, Any]]], object] | None = None
    data: Callable[[bytes], object] | None = None
    event: Callable[[dict[str, Any]], object] | None = None
    progress: Callable[[int, int], object] | None = None
    heartbeat: Callable[[], object] | None = None


class Step(Protocol):
    """What is told how far a step is, such as a Progress."""

    def update(self, done: int, total: int = 0) -> None:
        """Tell how much is done."""

    def still(self) -> None:
        """Tell that the step goes on."""


def told_to(step: Step, **more: Any) -> Handlers:
    """Return handlers whose progress a step is told; ``more`` are the others."""
    return Handlers(progress=step.update, heartbeat=step.still, **more)


class FilePiece(NamedTuple):
    """Data that lies in an open file: the kernel may pass it on without our reading it."""

    descriptor: int
    extents: list[Extent]


class FileFrame(NamedTuple):
    """A frame whose payload lies in a file."""

    header: bytes
    piece: FilePiece

    def encoded(self) -> bytes:
        """Return the frame as bytes. Raises DamageError when the file is shorter than it was."""
        payload = b"".join(os.pread(self.piece.descriptor, size, offset) for offset, size in self.piece.extents)
        if len(payload) != sum(size for _offset, size in self.piece.extents):
            raise DamageError(CUT_SHORT)
        return self.header + payload


CUT_SHORT = "a stored file became shorter while it was sent"


@dataclass
class Call:
    """A request and what follows it: records, then data; None where the operation takes none."""

    operation: str
    arguments: dict[str, Any]
    records: Iterable[dict[str, Any]] | None = None
    data: Iterable[bytes | FilePiece] | None = None

    def frames(self) -> Iterator[bytes | FileFrame]:
        """Yield the frames of the request, encoded but for those whose payload lies in a file."""
        yield protocol.encode_json(protocol.REQUEST, {"operation": self.operation, "arguments": self.arguments})
        if self.records is not None:
            for batch in protocol.batches(protocol.record(row) for row in self.records):
                yield protocol.encode(protocol.RECORDS, batch)
            yield protocol.encode(protocol.END)
        if self.data is not None:
            for piece in self.data:
                if isinstance(piece, FilePiece):
                    size = sum(extent.size for extent in piece.extents)
                    yield FileFrame(protocol.HEADER.pack(protocol.DATA, size), piece)
                else:
                    yield protocol.encode(protocol.DATA, piece)
            yield protocol.encode(protocol.END)


class Session(ABC):
    """An agent on a host. A context manager: leaving it ends the agent and whatever it had not finished."""

    @abstractmethod
    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        """Make a request and return its result.

        Raises the agent's error as the BackupError that it was, ConnectionLost when the agent cannot be reached.
        """

    @abstractmethod
    def close(self) -> None:
        """End the conversation."""

    #: Starts another agent on the same host, as this one was; None where there can be no other beside it.
    another: Callable[[], Session] | None = None

    #: Whether the agent is a process of ours on this machine, so that a file which it writes is as good as our own, and
    #: it can read ours.
    is_here = False

    #: Whether each request runs in a process of its own, so that the caller has to undo what an earlier one left.
    separate_requests = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def handle_until_result(frames: Iterator[Frame], handlers: Handlers) -> dict[str, Any]:
    """Pass frames to their handlers until the result. Raises the agent's error, or ConnectionLost at an early end."""
    for frame in frames:
        if frame.kind == protocol.RESULT:
            return frame.json()
        if frame.kind == protocol.ERROR:
            raise error_from_dict(frame.json())
        if frame.kind == protocol.DATA:
            if handlers.data is not None:
                handlers.data(frame.payload)
        elif frame.kind == protocol.RECORDS:
            if handlers.records is not None:
                handlers.records(protocol.records(frame.payload))
        elif frame.kind == protocol.EVENT:
            if handlers.event is not None:
                handlers.event(frame.json())
        elif frame.kind == protocol.PROGRESS:
            if handlers.progress is not None:
                values = frame.json()
                handlers.progress(int(values["done"]), int(values["total"]))
        elif frame.kind == protocol.HEARTBEAT:
            if handlers.heartbeat is not None:
                handlers.heartbeat()
        else:
            raise ConnectionLost(f"the agent sent a frame of kind {frame.kind} that no agent sends")
    raise ConnectionLost("the agent ended before it had answered")
