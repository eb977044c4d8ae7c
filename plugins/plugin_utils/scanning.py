# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scan of a host's media directory into a catalog, in full or against what an earlier snapshot knows."""

from __future__ import annotations

import os
import queue
import struct
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.media.scan import ScannedFile, scanned_file
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import ReleaseLine
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.fingerprint import (
    FINGERPRINT_BYTES,
    fingerprint,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.inheritance import InheritingCatalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Handlers,
    Session,
    told_to,
)


def excluded_directories(line: ReleaseLine, derived: bool) -> list[str]:
    """Return the directories below the media root that an archive leaves out."""
    return [] if derived else [os.fsdecode(name) for name in line.derived]


def scan(
    session: Session, catalog: Catalog, progress: Progress, media: dict[str, Any], excluded: list[str]
) -> dict[str, Any]:
    """Fill a catalog with the files of the host. Returns the agent's counts.

    ``media``: the agent's arguments ``root`` and ``media_allowed_roots``.
    """
    return _call(
        session,
        progress,
        {**media, "excluded": excluded, "fingerprints": False},
        told_to(progress, records=lambda rows: catalog.add_scanned(map(scanned_file, rows))),
    )


def scan_against(
    session: Session,
    catalog: InheritingCatalog,
    progress: Progress,
    media: dict[str, Any],
    excluded: list[str],
    load: Callable[[], object],
) -> dict[str, Any]:
    """Fill a catalog with the files of the host that its base does not have as they are. Returns the agent's counts.

    ``load`` brings the base into the catalog; where it can be, it runs while the agent scans.
    """
    arguments = {**media, "excluded": excluded}
    if session.separate_requests:
        # Nobody can ask and answer within a request.
        load()

        def sort(rows: Iterator[dict[str, Any]]) -> None:
            files = list(map(scanned_file, rows))
            unknown = catalog.inherit([_fingerprint(file) for file in files])
            catalog.replace([files[position] for position in unknown])

        result = _call(session, progress, {**arguments, "fingerprints": False}, told_to(progress, records=sort))
    else:
        result = _converse(session, catalog, progress, arguments, load)
    catalog.forget_unseen()
    return result


def _converse(
    session: Session,
    catalog: InheritingCatalog,
    progress: Progress,
    arguments: dict[str, Any],
    load: Callable[[], object],
) -> dict[str, Any]:
    answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    loads = [load]

    def answer(data: bytes) -> None:
        while loads:
            loads.pop()()
        # What a stream reads may be a buffer, which nothing can be looked up by.
        prints = bytes(data)
        starts = range(0, len(prints), FINGERPRINT_BYTES)
        unknown = catalog.inherit([prints[start : start + FINGERPRINT_BYTES] for start in starts])
        answers.put(struct.pack(f">{len(unknown)}H", *unknown))

    handlers = told_to(
        progress,
        data=answer,
        records=lambda rows: catalog.replace(map(scanned_file, rows)),
        event=lambda _end: answers.put(None),
    )
    try:
        result = _call(session, progress, {**arguments, "fingerprints": True}, handlers, iter(answers.get, None))
    finally:
        # Whatever has happened, nobody waits for another answer.
        answers.put(None)
    while loads:
        loads.pop()()
    return result


def _call(
    session: Session,
    progress: Progress,
    arguments: dict[str, Any],
    handlers: Handlers,
    answers: Iterator[bytes] | None = None,
) -> dict[str, Any]:
    progress.begin("scan", unit="files")
    return session.call(Call("scan_media", arguments, data=answers), handlers)


def _fingerprint(file: ScannedFile) -> bytes:
    return fingerprint(file.path, file.size, file.mtime_ns, file.ctime_ns, file.inode)
