# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frames of a part: tar bytes as they are, as raw blocks of a zstd frame, or through a compressor.

Format: RFC 8878, 3.1.1. A raw frame costs three bytes for each 128 KiB, and no time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Callable, List, Optional, Protocol, Sequence

from ..durable import Piece

#: How every zstd frame begins.
ZSTD_MAGIC = bytes.fromhex("28b52ffd")
#: No block may be larger; also the window that a raw frame names, the smallest that allows such blocks.
BLOCK_BYTES = 128 << 10
#: Neither checksum nor content size; the window is 2 ** (10 + 7).
RAW_HEADER = ZSTD_MAGIC + bytes((0, 7 << 3))
#: An empty raw block that is the last one.
RAW_END = bytes((1, 0, 0))
#: Below this size headers and padding would weigh too much uncompressed.
RAW_FROM = 32 << 10
#: Pictures that were compressed as well as anybody can.
JPEG = b"\xff\xd8\xff"
SAMPLES = 4
SAMPLE_BYTES = 512
#: A sample of noise has 221 different bytes, give or take 5 (standard deviation), and text has 70. What zstd makes
#: smaller by 4 percent has 187. Compressing a sample instead would take ten times as long.
NOISE = 190


class Compressor(Protocol):
    """Packs what is written to it into one zstd frame; ``close`` returns after its sink has had the last byte."""

    def write_pieces(self, pieces: List[Piece]) -> None:
        """Take more plain bytes."""

    def close(self) -> None:
        """End the frame. Raises ToolError when it is not whole."""


class Output(Protocol):
    """Where a part goes, stored byte by stored byte."""

    def send(self, pieces: List[Piece]) -> None:
        """Take stored bytes. They may be overwritten afterwards."""

    def end_frame(self) -> None:
        """Note that a frame has ended with what was sent last."""

    def compressor(self, sink: Callable[[bytes], object]) -> Compressor:
        """Begin a frame whose stored bytes go to a sink."""


def total(pieces: Sequence[Piece]) -> int:
    """Return the number of bytes in pieces."""
    return sum(map(len, pieces))


def raw_blocks(pieces: List[Piece]) -> List[Piece]:
    """Return pieces as raw blocks, none of them the last one."""
    blocks: List[Piece] = []
    block: List[Piece] = []
    room = BLOCK_BYTES
    for piece in pieces:
        while len(piece) > room:
            view = memoryview(piece)
            block.append(view[:room])
            piece = view[room:]
            blocks.append(_raw_block_header(BLOCK_BYTES))
            blocks += block
            block, room = [], BLOCK_BYTES
        block.append(piece)
        room -= len(piece)
    if room < BLOCK_BYTES:
        blocks.append(_raw_block_header(BLOCK_BYTES - room))
        blocks += block
    return blocks


def _raw_block_header(size: int) -> bytes:
    return (size << 3).to_bytes(3, "little")


def content_shrinks(content: memoryview) -> bool:
    """Tell whether a content is worth a compressor."""
    return len(content) < RAW_FROM or shrinks(len(content), lambda start, length: content[start : start + length])


def shrinks(size: int, read: Callable[[int, int], Piece]) -> bool:
    """Tell whether a large content is worth a compressor. ``read(position, length)`` returns some of it."""
    if read(0, len(JPEG)) == JPEG:
        return False
    for number in range(SAMPLES):
        sample = read((size - SAMPLE_BYTES) * (2 * number + 1) // (2 * SAMPLES), SAMPLE_BYTES)
        if len(set(sample)) < NOISE:
            return True
    return False


class OpenFrame(ABC):
    """A frame while members are put into it. Pieces are kept until :meth:`flush`."""

    def __init__(self) -> None:
        #: Bytes of tar put into the frame.
        self.size = 0
        #: Members begun in it.
        self.members = 0
        self._pending: List[Piece] = []

    def add_member(self, pieces: List[Piece], size: int) -> None:
        """Begin a member, as :meth:`add`."""
        self.members += 1
        self._pending += pieces
        self.size += size

    def add(self, pieces: List[Piece], size: int) -> None:
        """Take ``size`` more bytes of the tar; the pieces must stay as they are until the next flush."""
        self._pending += pieces
        self.size += size

    def flush(self) -> None:
        """Pass on what is pending."""
        if self._pending:
            pieces, self._pending = self._pending, []
            self._pass_on(pieces)

    @abstractmethod
    def end(self) -> None:
        """End the frame, all of it passed on."""

    @abstractmethod
    def _pass_on(self, pieces: List[Piece]) -> None: ...


class PlainFrame(OpenFrame):
    """Tar bytes as they are, sent at once."""

    def __init__(self, send: Callable[[List[Piece]], object]) -> None:
        OpenFrame.__init__(self)
        self._send = send

    def end(self) -> None:
        self.flush()

    def _pass_on(self, pieces: List[Piece]) -> None:
        self._send(pieces)


class RawFrame(OpenFrame):
    """A zstd frame of raw blocks, sent at once."""

    def __init__(self, send: Callable[[List[Piece]], object]) -> None:
        OpenFrame.__init__(self)
        self._send = send
        self._begun = False

    def end(self) -> None:
        self.flush()
        if self._begun:
            self._send([RAW_END])

    def _pass_on(self, pieces: List[Piece]) -> None:
        blocks = raw_blocks(pieces)
        if not self._begun:
            self._begun = True
            blocks.insert(0, RAW_HEADER)
        self._send(blocks)


class PackedFrame(OpenFrame):
    """A zstd frame out of a compressor, which begins when there is something to pack."""

    def __init__(self, compressor: Callable[[], Compressor]) -> None:
        OpenFrame.__init__(self)
        self._start = compressor
        self._compressor: Optional[Compressor] = None

    def end(self) -> None:
        self.flush()
        if self._compressor is not None:
            self._compressor.close()

    def _pass_on(self, pieces: List[Piece]) -> None:
        if self._compressor is None:
            self._compressor = self._start()
        self._compressor.write_pieces(pieces)
