# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's side of one part: files in, frames out, and what became of each file."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Optional

from ..durable import Piece
from ..media.archive import Archiver, in_tar
from ..media.frame_watch import FrameWatch
from ..media.frames import Compressor, total
from ..media.root import MediaRoot
from ..paths import path_of
from .hostfile import HostFile, sink
from .main import Channel
from .zstd import compressor, zstd_program


def archive_media(channel: Channel, arguments: Dict[str, Any]) -> Dict[str, Any]:
    """Send one part: the files named by the input records as tar data, and a record for what became of each.

    With ``compress`` each frame is a zstd frame; an event ends each frame either way. The records of files in the tar
    come in its order.
    """
    root = MediaRoot(arguments["root"], arguments["media_allowed_roots"])
    program = zstd_program() if arguments["compress"] else None
    try:
        paths = [path_of(fields) for fields in channel.input_records()]
        with contextlib.ExitStack() as stack:
            _write, file = stack.enter_context(sink(arguments, channel.data, channel.cleanup))
            output = stack.enter_context(_PartOutput(channel, program, file))
            archiver = Archiver(root, output, program is not None, arguments["frame_bytes"], arguments["frame_members"])
            members = done = 0

            def rows() -> Iterator[bytes]:
                nonlocal members, done
                for found in archiver.archive(paths):
                    members += in_tar(found)
                    done += found.size
                    yield found.as_line()
                    channel.progress(done, arguments["size"])

            channel.lines(rows())
            stored = {"size": file.size, "sha256": file.finish()} if file is not None else None
        return {"members": members, "tar_size": archiver.tar_size, "stored": stored}
    finally:
        root.close()


class _WatchedPipe:
    """A compressor whose output is seen to be one whole zstd frame, since nobody else looks at a part on the host."""

    def __init__(self, program: str, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._watch = FrameWatch("the part")
        self._pipe = compressor(program, self._take)

    def _take(self, piece: bytes) -> None:
        self._watch.feed(piece)
        self._sink(piece)

    @property
    def closed(self) -> bool:
        return self._pipe.closed

    def write_pieces(self, pieces: List[Piece]) -> None:
        self._pipe.write_pieces(pieces)

    def close(self) -> None:
        self._pipe.close()
        self._watch.end()

    def stop(self) -> None:
        self._pipe.stop()


class _PartOutput:
    """Takes a part to the controller, or into a file on the host.

    The event at the end of a frame tells how many stored bytes there are by then.
    """

    def __init__(self, channel: Channel, program: Optional[str], file: Optional[HostFile]) -> None:
        self._channel = channel
        self._program = program
        self._file = file
        self._pipes: List[_WatchedPipe] = []
        self._stored = 0

    def send(self, pieces: List[Piece]) -> None:
        self._stored += total(pieces)
        if self._file is None:
            self._channel.data_pieces(pieces)
        else:
            self._file.write_pieces(pieces)

    def end_frame(self) -> None:
        self._channel.event({"frame": "end", "stored": self._stored})

    def compressor(self, sink: Callable[[bytes], object]) -> Compressor:
        # Two at most work at a time: one is collected, one is sent as it grows.
        self._pipes = [pipe for pipe in self._pipes if not pipe.closed]
        self._pipes.append(_WatchedPipe(self._program or "zstd", sink))
        return self._pipes[-1]

    def __enter__(self) -> _PartOutput:
        return self

    def __exit__(self, *exception: object) -> None:
        for pipe in self._pipes:
            pipe.stop()
