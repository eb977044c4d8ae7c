# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settle pass: what Papermerge had not finished when it was read is looked at again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import CHANGING
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_fields, path_of
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import FileState
from ansible_collections.papermerge.backup.plugins.plugin_utils.archiving import MediaArchive
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress

#: Looks that find no fewer unfinished files than before, until the pass gives up.
SETTLE_LOOKS = 3
#: Seconds between two looks. A file that was written less long ago may not be finished.
SETTLE_SECONDS = 2.0
#: Rows that one request looks at.
SETTLE_BATCH = 4096

Row = dict[str, Any]
#: Asks the agent to settle: files with keys, the nanoseconds after which a file rests, and who takes the answers.
Look = Callable[[Iterable[Row], int, Callable[[Iterator[Row]], None]], None]


class Settling:
    """One settle pass over what the catalog holds."""

    def __init__(self, catalog: Catalog, archive: MediaArchive, progress: Progress, look: Look) -> None:
        self._catalog = catalog
        self._archive = archive
        self._progress = progress
        self._look = look

    def settle(self, dumped_at_ns: int) -> None:
        """Look until everything rests, or nothing moves any more.

        Looked at are expected files that are missing or were written after the dump, and all files that were changing
        while they were read. An upload or a page operation may have been in the middle of writing them: short files,
        even empty ones, can be read without a sign of it. ``dumped_at_ns``: by the host's clock, since 1970.
        """
        fewest, idle = None, 0
        while True:
            waiting = self._look_at_all(dumped_at_ns, read=True) + self._catalog.retry(CHANGING)
            if not waiting:
                return
            self._archive.fetch()
            idle = idle + 1 if fewest is not None and waiting >= fewest else 0
            if idle == SETTLE_LOOKS - 1:
                break
            fewest = waiting if fewest is None else min(fewest, waiting)
            time.sleep(SETTLE_SECONDS)
        # Something may have been deleted before it could be read the last time.
        self._look_at_all(dumped_at_ns, read=False)

    def _look_at_all(self, dumped_at_ns: int, read: bool) -> int:
        """Look once; return how many files another look may find changed. If ``read``, changed ones become unread."""
        waiting, after = 0, b""
        while True:
            asked = self._catalog.unsettled(after, dumped_at_ns, SETTLE_BATCH)
            if not asked:
                return waiting
            if not after:
                self._progress.begin("settle", unit="files")
            after = asked[-1][0]
            waiting += self._look_at(asked, read)

    def _look_at(self, asked: list[tuple[bytes, str, FileState | None]], read: bool) -> int:
        known = {path: (state.size, state.ctime_ns) for path, _key, state in asked if state is not None}
        changed: dict[bytes, int] = {}
        young: set[bytes] = set()
        settled: set[bytes] = set()
        absent: set[bytes] = set()
        named: set[bytes] = set()

        def sort(rows: Iterator[Row]) -> None:
            for row in rows:
                path = path_of(row)
                if row["row"]:
                    named.add(path)
                if row["size"] is None:
                    # What was deleted after it had been read is in the snapshot.
                    (settled if path in known else absent).add(path)
                elif known.get(path) != (row["size"], row["ctime_ns"]):
                    changed[path] = row["size"]
                else:
                    (settled if row["rests"] else young).add(path)

        files = ({**path_fields(path), "key": key} for path, key, _state in asked)
        self._look(files, int(SETTLE_SECONDS * 1e9), sort)
        # Whoever overwrites one of them from now on does not make it less whole.
        self._catalog.mark_settled(settled)
        # Two rows may name one file.
        self._catalog.mark_deleted(absent - named)
        if read:
            self._catalog.mark_scanned(changed.items())
        return len(absent & named) + len(changed) + len(young)
