# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has happened to an instance's snapshots: history.jsonl."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import sync_directory, sync_file
from ansible_collections.papermerge.backup.plugins.module_utils.errors import RepositoryError, describe_os_error
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import SNAPSHOT_ID
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import iso, parse_iso, utc_now


class History:
    """history.jsonl: one JSON object a line, appended and synced. A last line that was cut short is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, snapshot: str, manifest_sha256: str, **details: Any) -> None:
        """Record an event; docs/snapshot-format.md lists them."""
        row = {
            "event": event,
            "snapshot": snapshot,
            "manifest_sha256": manifest_sha256,
            "time": iso(utc_now()),
            **details,
        }
        with repository_errors(self.path):
            made = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "r+b") as stream:
                end = stream.seek(0, os.SEEK_END)
                line = json.dumps(row).encode("ascii") + b"\n"
                if end and os.pread(stream.fileno(), 1, end - 1) != b"\n":
                    line = b"\n" + line
                stream.write(line)
                sync_file(stream)
            if made:
                sync_directory(self.path.parent)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the events, oldest first."""
        if not self.path.exists():
            return
        with repository_errors(self.path), open(self.path, "rb") as stream:
            for line in stream:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    yield row

    def committed(self) -> dict[str, str]:
        """Return the SHA-256 of the manifest of every snapshot that was ever committed, by id."""
        return {
            str(row["snapshot"]): str(row["manifest_sha256"])
            for row in self.rows()
            if row.get("event") == "committed"
            and SNAPSHOT_ID.match(str(row.get("snapshot")))
            and "manifest_sha256" in row
        }

    def pruned(self) -> list[str]:
        """Return the ids of the snapshots that were removed on purpose."""
        found: dict[str, None] = {}
        for row in self.rows():
            if row.get("event") == "pruned":
                found[str(row.get("snapshot"))] = None
            elif row.get("event") == "kept":
                found.pop(str(row.get("snapshot")), None)
        return list(found)

    def pinned(self) -> dict[str, dict[str, Any]]:
        """Return the pins of the snapshots that are never to be pruned, by id: each with its time and note."""
        pins: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            if row.get("event") == "pinned":
                pins[str(row.get("snapshot"))] = {name: str(row.get(name, "")) for name in ("time", "note")}
            elif row.get("event") == "unpinned":
                pins.pop(str(row.get("snapshot")), None)
        return pins

    def accepted(self) -> dict[str, Any] | None:
        """Return what a prune noted of the newest snapshot that it found in order; None before the first."""
        found = None
        for row in self.rows():
            if row.get("event") == "accepted" and SNAPSHOT_ID.match(str(row.get("snapshot"))):
                found = row
        return found

    def damaged_parts(self) -> set[str]:
        """Return the ids of the parts that a verification has found damaged; content is never relied on there again."""
        return {str(row.get("part")) for row in self.rows() if row.get("event") == "damaged"}

    def last_verified(self) -> dict[str, dict[str, Any]]:
        """Return the last verification of every snapshot, by id.

        A weaker one that found nothing does not replace a stronger one that found damage.
        """
        last: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            if row.get("event") != "verified":
                continue
            before = last.get(str(row.get("snapshot")))
            outweighed = before is not None and before.get("result") != "sound" and _level(row) < _level(before)
            if not outweighed or row.get("result") != "sound":
                last[str(row.get("snapshot"))] = row
        return last

    def verified_in_full(self) -> dict[str, FullVerification]:
        """Return the last verification of every stored byte that found a snapshot sound, by id.

        One that was followed by any verification that found damage is not in it.
        """
        found: dict[str, FullVerification] = {}
        for row in self.rows():
            name = str(row.get("snapshot"))
            if row.get("event") == "damaged":
                for verification in found.values():
                    verification.damaged_parts.add(str(row.get("part")))
            elif row.get("event") != "verified":
                continue
            elif row.get("result") == "sound" and _level(row) >= LEVELS.index("full"):
                with contextlib.suppress(ValueError):
                    moment = parse_iso(str(row.get("time")))
                    found[name] = FullVerification(moment, str(row.get("manifest_sha256")), set())
            elif row.get("result") == "damaged":
                found.pop(name, None)
        return found


@dataclass(frozen=True)
class FullVerification:
    """When a snapshot was found sound, with which manifest, and which parts were found damaged afterwards."""

    moment: datetime
    manifest_sha256: str
    damaged_parts: set[str]


def _level(row: dict[str, Any]) -> int:
    return LEVELS.index(row["level"]) if row.get("level") in LEVELS else -1


#: From the least to the most thorough.
LEVELS = ("quick", "full", "deep")


@contextlib.contextmanager
def repository_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the repository's storage into a RepositoryError; ``path`` is what was worked on."""
    try:
        yield
    except OSError as error:
        raise RepositoryError(f"repository: {describe_os_error(error)}; see {path}") from None
