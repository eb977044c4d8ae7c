# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a snapshot that are handed out on the host, one after another in one stream."""

from __future__ import annotations

from typing import Any, Dict, Iterator

from ..durable import PIECE, ExactReader
from ..errors import DamageError
from ..media.delivery import Delivery
from ..paths import path_of
from .main import Channel


def write_files(channel: Channel, arguments: Dict[str, Any]) -> Dict[str, Any]:
    """Write new private files below ``path``: the input records name them, the input data is their content.

    A record has the file's path below that directory, ``size``, ``sha256`` and ``mtime_ns``.
    """
    rows = list(channel.input_records())
    delivery = Delivery(arguments["path"])
    source = ExactReader(channel.input_data())
    try:
        for row in rows:
            delivery.write(path_of(row), row["size"], row["sha256"], row["mtime_ns"], _next(source, row["size"]))
        if source.read(1):
            raise DamageError("more arrived than was announced")
    finally:
        delivery.close()
    return {"files": delivery.files, "size": delivery.size}


def _next(source: ExactReader, size: int) -> Iterator[bytes]:
    while size:
        piece = source.read(min(size, PIECE))
        if not piece:
            return
        size -= len(piece)
        yield piece
