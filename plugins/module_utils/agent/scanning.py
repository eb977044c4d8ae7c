# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's scan, and the hashes of files whose content the controller may have already."""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import Any, Deque, Dict, Iterator, List

from ..errors import ConnectionLost
from ..media.hashing import Hasher
from ..media.root import MediaRoot
from ..media.scan import ScannedFile, Scanner
from ..paths import path_of
from ..snapshot.fingerprint import fingerprint
from .main import Channel

Arguments = Dict[str, Any]
Result = Dict[str, Any]

#: Files whose fingerprints travel together, and how many such batches wait for an answer before the scan does.
BATCH_FILES = 4096
WINDOW = 16
#: Files between two looks at whether progress is due.
STRIDE = 1024


def scan_media(channel: Channel, arguments: Arguments) -> Result:
    """Send a record for each file below the media root; with ``fingerprints`` only for those that are asked for."""
    root = MediaRoot(arguments["root"], arguments["media_allowed_roots"])
    try:
        scanner = Scanner(root, [os.fsencode(name) for name in arguments["excluded"]])
        counted = _Counted(channel, scanner)
        if arguments["fingerprints"]:
            _converse(channel, counted.files())
        else:
            channel.lines(file.as_line() for file in counted.files())
        return {
            "files": counted.count,
            "size": counted.size,
            "skipped": scanner.skipped,
            "skipped_example": os.fsdecode(scanner.skipped_example),
        }
    finally:
        root.close()


class _Counted:
    """Passes a scanner's files on, counts them, and tells how far it is."""

    def __init__(self, channel: Channel, scanner: Scanner) -> None:
        self._channel = channel
        self._scanner = scanner
        self.count = self.size = 0

    def files(self) -> Iterator[ScannedFile]:
        for file in self._scanner.files():
            self.count += 1
            self.size += file.size
            yield file
            if not self.count % STRIDE:
                self._channel.progress(self.count, 0)


def _converse(channel: Channel, files: Iterator[ScannedFile]) -> None:
    """Send fingerprints in batches as data, and a record for each file that the answer to its batch names.

    An answer is a piece of input data: the positions in the batch, two bytes each (big-endian). An event tells that
    there are no more batches.
    """
    answers = channel.input_data()
    waiting: Deque[List[ScannedFile]] = deque()

    def answer() -> None:
        batch = waiting.popleft()
        positions = next(answers, None)
        if positions is None:
            raise ConnectionLost("the controller stopped answering")
        wanted = struct.unpack(">{0}H".format(len(positions) // 2), positions)
        channel.lines(batch[position].as_line() for position in wanted)

    batch: List[ScannedFile] = []
    prints = bytearray()
    for file in files:
        batch.append(file)
        prints += fingerprint(file.path, file.size, file.mtime_ns, file.ctime_ns, file.inode)
        if len(batch) == BATCH_FILES:
            channel.data(bytes(prints))
            waiting.append(batch)
            batch, prints = [], bytearray()
            if len(waiting) == WINDOW:
                answer()
    if batch:
        channel.data(bytes(prints))
        waiting.append(batch)
    channel.event({"scan": "end"})
    while waiting:
        answer()
    for _surplus in answers:
        pass


def hash_media(channel: Channel, arguments: Arguments) -> Result:
    """Hash the files that the input records name: a record for what became of each, as of archive_media."""
    root = MediaRoot(arguments["root"], arguments["media_allowed_roots"])
    try:
        hasher = Hasher(root)
        paths = [path_of(fields) for fields in channel.input_records()]
        files = size = 0

        def rows() -> Iterator[bytes]:
            nonlocal files, size
            for path in paths:
                found = hasher.hash(path)
                files += 1
                size += found.size
                yield found.as_line()
                channel.progress(size, 0)

        channel.lines(rows())
        return {"files": files, "size": size}
    finally:
        root.close()
