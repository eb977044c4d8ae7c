# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists and verifications over instances of a repository."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, RepositoryError
from ansible_collections.papermerge.backup.plugins.plugin_utils.damage import damaged_parts
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import describe_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import (
    InstanceDirectory,
    Repository,
    StoredSnapshot,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import Verification, scratch_directory

NO_SNAPSHOTS = "no snapshots"


def instances_in(repositories: list[Repository], instance: str | None, excluded: list[str]) -> list[InstanceDirectory]:
    """Return the instances that a user names, or all but the excluded. Raises RepositoryError when there are none."""
    for repository in repositories:
        repository.require()
    if instance is not None:
        return [repository.instance(instance) for repository in repositories]
    found = [place for repository in repositories for place in map(repository.instance, repository.instances())]
    if not found and not excluded:
        names = ", ".join(str(repository.path) for repository in repositories)
        raise RepositoryError(f"repository {names} holds no snapshots; set papermerge_backup_repository")
    return [place for place in found if place.name not in excluded]


def nothing_in(place: InstanceDirectory, state: str) -> dict[str, Any]:
    """Return the row of an instance that has no snapshot to speak of."""
    return {"instance": place.name, "state": state, "path": str(place.path)}


def last_verified(row: dict[str, Any]) -> str:
    """Return when and how a listed snapshot was last verified, for a table."""
    verified = row.get("verified") or {}
    return "{time:.19}Z {level} {result}".format(**verified) if verified else ""


def list_snapshots(repositories: list[Repository], instance: str | None, excluded: list[str]) -> list[dict[str, Any]]:
    """Describe the committed snapshots, oldest first within each instance.

    A snapshot that cannot be read has the state ``damaged`` and a ``msg``; an instance without any has one row with the
    state ``no snapshots``. Raises RepositoryError for a repository that does not exist or holds nothing.
    """
    rows = []
    for place in instances_in(repositories, instance, excluded):
        verified, pins = place.history.last_verified(), place.history.pinned()
        found = [
            {
                **describe_stored(place, snapshot),
                "verified": verified.get(snapshot.id),
                "pinned": pins.get(snapshot.id),
            }
            for snapshot in place.snapshots()
        ]
        rows += found or [nothing_in(place, NO_SNAPSHOTS)]
    return rows


def describe_stored(place: InstanceDirectory, snapshot: StoredSnapshot) -> dict[str, Any]:
    """Return what results and tables say of a snapshot, readable or not."""
    if snapshot.manifest is not None:
        return describe_snapshot(snapshot.manifest, place)
    problem = snapshot.problem or BackupError("no manifest")
    return {
        "id": snapshot.id,
        "sequence": snapshot.sequence,
        "instance": place.name,
        "state": "damaged",
        "path": str(snapshot.directory),
        "msg": problem.message,
    }


def verify_snapshots(
    repositories: list[Repository],
    instance: str | None,
    excluded: list[str],
    wanted: str,
    level: str,
    progress: Progress,
    record: bool,
) -> list[dict[str, Any]]:
    """Verify the wanted snapshot of each instance, or ``all``. Returns a row each with ``result`` sound or damaged.

    With ``record`` the outcome goes into the instance's history. An instance without the wanted snapshot is a failed
    row, and a repository without any raises RepositoryError: silence would look like success.
    """
    rows = []
    for place in instances_in(repositories, instance, excluded):
        try:
            chosen = list(place.snapshots()) if wanted == "all" else [place.select(wanted)]
        except RepositoryError as error:
            rows.append({**nothing_in(place, "failed"), "result": "failed", "msg": error.message, "error": error.kind})
            continue
        if not chosen:
            text = place.without_snapshots()
            rows.append({**nothing_in(place, "failed"), "result": "failed", "msg": text, "error": "repository"})
        rows += [verify_one(place, snapshot, level, progress, record) for snapshot in chosen]
    return rows


def verify_one(
    place: InstanceDirectory, snapshot: StoredSnapshot, level: str, progress: Progress, record: bool
) -> dict[str, Any]:
    """Verify a snapshot. Returns its row with the ``result`` sound, damaged, or failed where nobody can tell."""
    begun = time.monotonic()
    row = {**describe_stored(place, snapshot), "level": level, "result": "sound", "msg": "", "error": ""}
    try:
        with scratch_directory() as scratch:
            row.update(Verification(place, snapshot, progress, scratch).verify(level))
    except BackupError as error:
        row.update(result="damaged" if error.kind == "damage" else "failed", msg=error.message, error=error.kind)
    except (KeyError, TypeError, ValueError) as error:
        # Whoever wrote this manifest was not us: the other snapshots have to be looked at all the same.
        text = f"snapshot {snapshot.id}: its manifest cannot be understood: {error!r}"
        row.update(result="damaged", msg=text, error="damage")
    row["seconds"] = round(time.monotonic() - begun, 3)
    if record and snapshot.manifest is not None:
        try:
            if row["result"] == "damaged":
                _name_damage(place, snapshot, level, progress)
            place.history.append(
                "verified", snapshot.id, snapshot.manifest_sha256, level=level, result=row["result"], message=row["msg"]
            )
        except RepositoryError as error:
            # A repository that is only readable can be verified, but not told so.
            row["msg"] = "; ".join(filter(None, [row["msg"], f"not recorded: {error.message}"]))
    return row


def _name_damage(place: InstanceDirectory, snapshot: StoredSnapshot, level: str, progress: Progress) -> None:
    """Note in the history which parts of a snapshot are damaged: the next create brings their content again."""
    known = place.history.damaged_parts()
    for part, found in damaged_parts(place, snapshot.require_manifest(), level, progress):
        if part not in known:
            place.history.append("damaged", snapshot.id, snapshot.manifest_sha256, part=part, message=found)
