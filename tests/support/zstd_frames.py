# SPDX-License-Identifier: GPL-3.0-or-later
"""What zstd frames consist of, read by RFC 8878 without a library."""

from __future__ import annotations

RAW, REPEATED, COMPRESSED = 0, 1, 2


def frames_of(data: bytes) -> list[tuple[bool, set[int]]]:
    """Return of each frame whether it has a checksum, and the kinds of its blocks but for empty ones."""
    found = []
    position = 0
    while position < len(data):
        assert data[position : position + 4] == bytes.fromhex("28b52ffd")
        flags = data[position + 4]
        single = flags >> 5 & 1
        position += 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        kinds = set()
        is_last = 0
        while not is_last:
            header = int.from_bytes(data[position : position + 3], "little")
            is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
            position += 3 + (1 if kind == REPEATED else size)
            if size:
                kinds.add(kind)
        has_checksum = bool(flags & 4)
        position += 4 * has_checksum
        found.append((has_checksum, kinds))
    assert position == len(data)
    return found
