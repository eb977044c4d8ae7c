# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives and dumps that stay on the host: private files that appear whole, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ..durable import Piece, open_private, sync_directory, sync_file, write_pieces
from ..errors import SettingError, describe_os_error
from .workspace import Cleanup

PARTIAL = ".partial"


class HostFile:
    """A new file on the host. It gets its name when it is finished; until then a name of ours stands beside it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._partial = path + PARTIAL
        self._digest = hashlib.sha256()
        self.size = 0
        if os.path.lexists(path):
            raise SettingError("{0} exists already on the host".format(path))
        try:
            self._stream = open_private(self._partial)
        except OSError as error:
            raise SettingError("cannot write on the host: {0}".format(describe_os_error(error))) from None

    def write(self, data: bytes) -> None:
        self.write_pieces([data])

    def write_pieces(self, pieces: List[Piece]) -> None:
        """Write pieces one after another, without joining them."""
        write_pieces(self._stream.fileno(), pieces)
        for piece in pieces:
            self._digest.update(piece)
            self.size += len(piece)

    def finish(self) -> str:
        """Bring the file to disk under its name and return its SHA-256 in hex."""
        sync_file(self._stream)
        self._stream.close()
        os.rename(self._partial, self._path)
        sync_directory(os.path.dirname(self._path))
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Remove what is unfinished."""
        self._stream.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial)


@contextlib.contextmanager
def sink(
    arguments: Dict[str, Any], send: Callable[[bytes], object], cleanup: Cleanup
) -> Iterator[Tuple[Callable[[bytes], object], Optional[HostFile]]]:
    """Yield where stored bytes go: a file on the host where ``host_path`` names one, else the controller."""
    if not arguments["host_path"]:
        yield send, None
        return
    file = HostFile(arguments["host_path"])
    token = cleanup.add(file.discard)
    try:
        yield file.write, file
    finally:
        cleanup.remove(token)
        file.discard()
