# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""zstd frames told apart by their headers, without unpacking them."""

from __future__ import annotations

from ..errors import ToolError
from .frames import ZSTD_MAGIC


class FrameWatch:
    """Follows zstd frames by their headers (RFC 8878) without unpacking them.

    A compressor that is cut short may say that all went well. This tells, for next to nothing, whether what came ends
    where a frame ends; whether it unpacks is for a deep verification to say.
    """

    START, BLOCK_HEADER = len(ZSTD_MAGIC) + 1, 3

    def __init__(self, name: str) -> None:
        self._name = name
        self._head = bytearray()
        self._wanted = self.START
        self._skipped = 0
        self._checksum = 0
        self._frames = 0
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises ToolError when they are no zstd frames."""
        position = 0
        while position < len(data):
            self.ended = False
            if self._skipped:
                step = min(self._skipped, len(data) - position)
                self._skipped -= step
                position += step
                continue
            step = min(self._wanted - len(self._head), len(data) - position)
            self._head += data[position : position + step]
            position += step
            if len(self._head) == self._wanted:
                self._read_header()

    def _read_header(self) -> None:
        head, self._head = bytes(self._head), bytearray()
        if len(head) == self.START:
            if head[:-1] != ZSTD_MAGIC:
                raise ToolError("{0}: the host's zstd program sent something else than zstd frames".format(self._name))
            flags = head[-1]
            single, content = flags >> 5 & 1, flags >> 6
            self._skipped = (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[content]
            self._checksum = 4 * (flags >> 2 & 1)
            self._wanted = self.BLOCK_HEADER
            return
        block = int.from_bytes(head, "little")
        # A block of kind 1 is one byte, to be repeated so many times.
        self._skipped = 1 if block >> 1 & 3 == 1 else block >> 3
        if block & 1:
            self._skipped += self._checksum
            self._wanted = self.START
            self._frames += 1

    def end(self) -> None:
        """Check that a frame has just ended, and that there was one since the last call. Raises ToolError."""
        if not self._frames or self._head or self._skipped or self._wanted != self.START:
            raise ToolError(
                "{0}: the host's zstd program did not send a whole zstd frame; look after zstd on the host".format(
                    self._name
                )
            )
        self._frames = 0
        self.ended = True
