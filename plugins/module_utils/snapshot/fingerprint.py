# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fingerprint of a file's metadata: by it both sides know, for a few bytes, that a file is as it was."""

from __future__ import annotations

import hashlib

#: Long enough that no two files of any instance ever have the same one.
FINGERPRINT_BYTES = 12


def fingerprint(path: bytes, size: int, mtime_ns: int, ctime_ns: int, inode: int) -> bytes:
    """Return the fingerprint of a file: ``size`` in bytes, times in nanoseconds since 1970.

    The device is left out: some file systems have another number after each mount.
    """
    return fingerprint_of_text(path, b"%d %d %d %d" % (size, mtime_ns, ctime_ns, inode))


def fingerprint_of_text(path: bytes, numbers: bytes) -> bytes:
    """Return the fingerprint of a path and the four numbers in decimal, each but the last followed by a space."""
    return hashlib.blake2b(path + b"\0" + numbers, digest_size=FINGERPRINT_BYTES).digest()
