# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of an instance that several processes are using, and what has to be true of each of them."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call
from tests.support.snapshots import WatchedSession, local_agent, take
from tests.support.writers import Writers, between

SNAPSHOTS, SOAK_SNAPSHOTS = 10, 200
PROCESSES = 4
#: Rows of these classes should have a file in the snapshot and have none, and nothing tells why.
UNEXPLAINED = ("missing", "unreadable", "empty")


@dataclass(frozen=True)
class InUse:
    """An instance on a server, its writers, and where its snapshots go."""

    media: Path
    database_url: str
    app_version: str
    writers: Writers
    place: InstanceDirectory

    def snapshot(self) -> dict[str, Any]:
        """Take one, during which each writer finishes something between dump and media. Returns its manifest."""
        waited: list[Call] = []

        def wait(call: Call) -> None:
            if call.operation == "scan_media":
                waited.append(call)
                self.writers.wait_for(more=1)

        with WatchedSession(local_agent(), wait) as watched:
            take(self, self.place, watched, app_version=self.app_version)
        assert waited
        return self.place.select("latest").require_manifest().fields


def require_explained(manifest: dict[str, Any]) -> None:
    """Fail unless every row of a snapshot has its file, or a reason why not."""
    proof = manifest["proof"]
    unexplained = {name: proof["classes"][name] for name in UNEXPLAINED if proof["classes"][name]}
    assert not unexplained, (unexplained, proof["damaged"][:5])
    assert manifest["state"] == "complete"
    assert proof["proved"] == proof["expected"] > 0


def take_many(in_use: InUse, count: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Take snapshots that are all explained; returns the manifests and what was done between dumps and ends."""
    manifests = []
    during: Counter[str] = Counter()
    for number in range(count):
        manifest = in_use.snapshot()
        ended = time.time()
        require_explained(manifest)
        done = between(in_use.writers.operations(), manifest["database"]["dumped_at_ns"] / 1e9, ended)
        assert done.total() >= PROCESSES, (number, done)
        during += done
        manifests.append(manifest)
    in_use.writers.stop()
    return manifests, during


def a_tenth_of(manifests: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """The last of them, and others by chance."""
    chosen = rng.sample(manifests[:-1], max(0, len(manifests) // 10 - 1))
    return [*chosen, manifests[-1]]


def disk_use(directory: Path) -> int:
    """Return how many bytes all below a directory take on the disk, a file of several names once."""
    seen = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def report(
    what: str, in_use: InUse, manifests: list[dict[str, Any]], during: Counter[str], opened: list[dict[str, Any]]
) -> None:
    """Print what happened, for the log of a soak."""
    classes: Counter[str] = Counter()
    for manifest in manifests:
        classes.update(manifest["proof"]["classes"])
    changed = sum(manifest["proof"]["changed"] for manifest in manifests)
    print(f"\n{what}: {len(manifests)} snapshots, {len(opened)} restored and opened; rows {dict(+classes)}")
    print(f"  {changed} changed originals reported; while they were taken: {dict(during)}")
    numbers = ", ".join(str(number) for number in sorted(manifest["sequence"] for manifest in opened))
    print(f"  seed {os.environ['PAPERMERGE_BACKUP_SEED']} chose snapshots {numbers} to be restored")
    used = {"media": in_use.media, "repository": in_use.place.path}
    print("  disk: " + ", ".join(f"{name} {disk_use(path) >> 20} MiB" for name, path in used.items()))
