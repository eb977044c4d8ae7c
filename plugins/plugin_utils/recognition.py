# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files whose content a part may have already: hashed on the host, and not moved where it has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import OK, ArchivedFile, archived_file
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_fields
from ansible_collections.papermerge.backup.plugins.plugin_utils.inheritance import InheritingCatalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pool import AgentPool
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers, Session

#: Files that one request hashes, at most, and their bytes.
BATCH_FILES = 4096
BATCH_BYTES = 256 << 20
#: Agents that hash side by side.
AGENTS = 2

Batch = list[tuple[bytes, int]]


def recognise(session: Session, catalog: InheritingCatalog, progress: Progress, media: dict[str, Any]) -> None:
    """Hash every unread file whose path and size are known; those whose content a part has are in that part.

    ``media``: the agent's arguments ``root`` and ``media_allowed_roots``.
    """
    lock = threading.Lock()

    def batches() -> Iterator[Batch]:
        after = b""
        while True:
            with lock:
                chosen = _bounded(catalog.recognisable(after, BATCH_FILES))
            if not chosen:
                return
            after = chosen[-1][0]
            yield chosen

    def hash_batch(agent: Session, batch: Batch) -> None:
        files: list[ArchivedFile] = []
        agent.call(
            Call("hash_media", media, records=(path_fields(path) for path, _size in batch)),
            Handlers(
                records=lambda rows: files.extend(map(archived_file, rows)),
                heartbeat=progress.still,
            ),
        )
        with lock:
            catalog.recognise(file for file in files if file.state == OK)
            progress.advance(sum(size for _path, size in batch))

    todo = batches()
    first = next(todo, None)
    if first is None:
        return
    progress.begin("recognise")
    hash_batch(session, first)
    with AgentPool(session, AGENTS) as pool:
        pool.each(todo, hash_batch)


def _bounded(files: Batch) -> Batch:
    """Return as many of the files as one request takes, at least one of any."""
    total = 0
    for count, (_path, size) in enumerate(files):
        total += size
        if count and total > BATCH_BYTES:
            return files[:count]
    return files
