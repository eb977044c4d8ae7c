# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Media into parts: chosen from the catalog, fetched part by part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import ArchivedFile, archived_file
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_fields
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import (
    FRAME_BYTES,
    FRAME_MEMBERS,
    PART_CONTENT_BYTES,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pool import AgentPool
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Handlers,
    Session,
)

#: Agents that read the media of one host at the same time. More would only be in each other's way on two cores.
AGENTS = 2
#: Content bytes of a part below which sharing out is not worth it.
SMALLEST_SHARE = 32 << 20


class Part(Protocol):
    """A part in the making, on the controller or on the host."""

    id: str
    #: Where the agent has to write the part itself; empty when it sends the part.
    host_path: str

    def write(self, data: bytes) -> None:
        """Take stored or plain bytes from the agent."""

    def end_frame(self, event: dict[str, Any]) -> None:
        """Note the end of a frame."""

    def finish(self, files: Iterable[ArchivedFile], result: dict[str, Any]) -> StoredPart:
        """Write the commit record; ``result`` is the agent's."""

    def discard(self) -> None:
        """Remove a part that holds no member."""

    def close(self) -> None:
        """Give up what is open."""


class MediaArchive:
    """The media of one instance on their way into parts. ``parts`` grows with each finished one."""

    def __init__(
        self,
        session: Session,
        catalog: Catalog,
        progress: Progress,
        media: dict[str, Any],
        compress: bool,
        new_part: Callable[[], Part],
        agents: int = AGENTS,
    ) -> None:
        """``media``: the agent's arguments ``root`` and ``media_allowed_roots``."""
        self._session = session
        self._catalog = catalog
        self._progress = progress
        self._media = media
        self._compress = compress
        self._new_part = new_part
        self._agents = agents
        #: Several agents at work share the catalog and the progress.
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self.parts: list[StoredPart] = []

    def fetch(self) -> None:
        """Put every file that nobody has read yet into parts."""
        _count, size = self._catalog.scanned_totals()
        self._progress.begin("media", size)
        self._done.clear()
        with AgentPool(self._session, self._agents) as agents:
            agents.each(self._choices(size), self._fetch_part)

    def _choices(self, left: int) -> Iterator[list[tuple[bytes, int]]]:
        """Yield files (path, size) for one part after another. ``left``: the sum of all sizes."""
        after = b""
        while True:
            # Smaller parts towards the end: no agent is long at work when the others have nothing left.
            share = min(max(left // (2 * self._agents), SMALLEST_SHARE), PART_CONTENT_BYTES)
            with self._lock:
                chosen = self._catalog.next_part(after, share)
            if not chosen:
                return
            yield chosen
            after = chosen[-1][0]
            left -= sum(size for _path, size in chosen)

    def _fetch_part(self, session: Session, chosen: list[tuple[bytes, int]]) -> None:
        """Put files (path, size) into one part. Several may be under way at a time, each in a thread."""
        part = self._new_part()
        files: list[ArchivedFile] = []
        try:
            result = session.call(
                Call(
                    "archive_media",
                    {
                        **self._media,
                        "compress": self._compress,
                        "host_path": part.host_path,
                        "frame_bytes": FRAME_BYTES,
                        "frame_members": FRAME_MEMBERS,
                        "size": sum(size for _path, size in chosen),
                    },
                    records=(path_fields(path) for path, _size in chosen),
                ),
                Handlers(
                    records=lambda rows: files.extend(archived_file(row) for row in rows),
                    data=part.write,
                    event=part.end_frame,
                    progress=lambda part_done, _total: self._tell(part.id, part_done),
                    heartbeat=self._still,
                ),
            )
            if {file.path for file in files} != {path for path, _size in chosen}:
                raise BackupError("the agent did not answer for every file of a part; please report this")
            with self._lock:
                self._catalog.add_archived(files, part.id)
            if result["members"]:
                self.parts.append(part.finish(files, result))
            else:
                part.discard()
            self._tell(part.id, sum(size for _path, size in chosen))
        finally:
            part.close()

    def _tell(self, part: str, done: int) -> None:
        with self._lock:
            self._done[part] = done
            self._progress.update(sum(self._done.values()))

    def _still(self) -> None:
        with self._lock:
            self._progress.still()
