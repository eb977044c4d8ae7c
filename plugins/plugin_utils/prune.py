# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prunes over instances of a repository: snapshots that no rule keeps, then parts that no snapshot names.

The order loses nothing wherever it is interrupted: the history learns of it, the directory is renamed away and
removed, and only then go the parts. The next prune finishes what is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import sync_directory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import PART_ID
from ansible_collections.papermerge.backup.plugins.plugin_utils.history import repository_errors
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import NO_SNAPSHOTS, nothing_in
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune_plan import (
    MEASURES,
    Candidate,
    Plan,
    PruneRequest,
    Soundness,
    make_plan,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import (
    PART_SUFFIX,
    RECORD_SUFFIX,
    InstanceDirectory,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import utc_now

#: Ends the name of a snapshot's directory that is about to go; no reader takes it for a snapshot.
PRUNED_SUFFIX = ".pruned"
_PRUNED_NAME = re.compile(r"\d{6,}-\d{8}T\d{6}Z\.pruned\Z")


def prune_snapshots(
    places: Iterable[InstanceDirectory], request: PruneRequest, progress: Progress, check: bool
) -> list[dict[str, Any]]:
    """Prune each instance. Returns a row each: ``result`` ok or failed, and what was done and why.

    With ``check`` nothing is written; the rows say what would be done. An instance that fails leaves the others.
    """
    rows = []
    for place in places:
        try:
            rows.append(_prune(place, request, progress, check))
        except BackupError as error:
            rows.append(_row(place, Plan([]), _Freed(), error))
    return rows


@dataclass
class _Freed:
    """What went: stored bytes, parts (also halves of one), and whether anything at all did; and what stays, and why."""

    bytes: int = 0
    parts: int = 0
    changed: bool = False
    warning: str = ""

    def add(self, files: Iterable[Path]) -> None:
        for path in files:
            with contextlib.suppress(FileNotFoundError):
                self.bytes += path.lstat().st_size


def _row(place: InstanceDirectory, plan: Plan, freed: _Freed, error: BackupError | None) -> dict[str, Any]:
    removed = plan.removed if error is None else []
    state = "failed" if error is not None else "pruned" if plan.candidates else NO_SNAPSHOTS
    return {
        **nothing_in(place, state),
        "result": "failed" if error is not None else "ok",
        "error": error.kind if error is not None else "",
        "msg": error.message if error is not None else freed.warning,
        "kept": len(plan.candidates) - len(removed),
        "removed": len(removed),
        "removed_parts": freed.parts,
        "freed_bytes": freed.bytes,
        "changed": freed.changed,
        "snapshots": [
            {**candidate.description, "action": candidate.action, "reasons": candidate.reasons}
            for candidate in plan.candidates
        ],
    }


def _prune(place: InstanceDirectory, request: PruneRequest, progress: Progress, check: bool) -> dict[str, Any]:
    if not place.path.is_dir():
        return _row(place, Plan([]), _Freed(), None)
    freed = _Freed()
    soundness = Soundness(place, request, progress, record=not check)
    plan = make_plan(place, request, soundness)
    if check:
        if plan.refusal is None and plan.candidates:
            _estimate(place, plan, request, freed)
        return _row(place, plan, freed, plan.refusal)
    # What may take hours, the verification, is done by now: a create need not wait for it.
    with place.locked():
        place.repair_history()
        soundness.look_again()
        plan = make_plan(place, request, soundness)
        if plan.refusal is None and plan.candidates:
            _carry_out(place, plan, request, freed)
    return _row(place, plan, freed, plan.refusal)


def _estimate(place: InstanceDirectory, plan: Plan, request: PruneRequest, freed: _Freed) -> None:
    """Add up what a prune would free."""
    gone = {candidate.id for candidate in plan.removed}
    for candidate in plan.removed:
        freed.add((place.snapshots_path / candidate.id).glob("*"))
    for directory in _leftovers(place):
        freed.add(directory.glob("*"))
    parts = _unreferenced(place, request, gone, freed)
    freed.parts = len(parts)
    freed.add(path for files in parts.values() for path in files)
    freed.changed = bool(gone or freed.parts or freed.bytes)


def _carry_out(place: InstanceDirectory, plan: Plan, request: PruneRequest, freed: _Freed) -> None:
    if all(candidate in plan.removed for candidate in plan.candidates):
        raise BackupError("a prune that would remove every snapshot is a mistake of this program; please report this")
    place.make()
    place.remove_abandoned()
    given_up = set(place.history.pruned())
    _note(place, plan, given_up)
    for candidate in plan.removed:
        _remove(place, candidate, candidate.id in given_up, freed)
    for directory in _leftovers(place):
        freed.changed = True
        freed.add(directory.glob("*"))
        with repository_errors(directory):
            shutil.rmtree(directory)
    with repository_errors(place.incoming_path):
        busy = sorted(name for name in os.listdir(place.incoming_path) if name.isdigit())
    if busy:
        # The lock is ours, but it means little on some network file systems.
        freed.warning = f"unreferenced parts stay, because somebody is still at work in {place.incoming_path / busy[0]}"
    else:
        _remove_parts(place, _unreferenced(place, request, set(), freed), freed)


def _note(place: InstanceDirectory, plan: Plan, given_up: set[str]) -> None:
    """Write down what later prunes and readers have to know before anything goes.

    ``given_up``: what the history calls pruned.
    """
    if plan.accepted is not None:
        newest = plan.accepted
        measures = {key: newest.totals[key] for key in MEASURES if key in newest.totals}
        place.history.append("accepted", newest.id, newest.manifest_sha256, **measures)
    for candidate in plan.candidates:
        if candidate.id in given_up and candidate.present and candidate not in plan.removed:
            # An interrupted prune had given it up, but by now it is wanted.
            place.history.append("kept", candidate.id, candidate.manifest_sha256)


def _remove(place: InstanceDirectory, candidate: Candidate, recorded: bool, freed: _Freed) -> None:
    freed.changed = True
    if not recorded:
        place.history.append("pruned", candidate.id, candidate.manifest_sha256, reasons=candidate.reasons)
    directory = place.snapshots_path / candidate.id
    if not candidate.present:
        return
    away = directory.with_name(candidate.id + PRUNED_SUFFIX)
    with repository_errors(directory):
        os.rename(directory, away)
        sync_directory(place.snapshots_path)
        freed.add(away.glob("*"))
        shutil.rmtree(away)


def _leftovers(place: InstanceDirectory) -> list[Path]:
    """Return the directories that an interrupted prune has renamed away."""
    with repository_errors(place.snapshots_path):
        return sorted(path for path in place.snapshots_path.iterdir() if _PRUNED_NAME.match(path.name))


def _unreferenced(
    place: InstanceDirectory, request: PruneRequest, gone: set[str], freed: _Freed
) -> dict[str, list[Path]]:
    """Return the files of the parts that no snapshot names, by id: those that are old enough to be nobody's.

    ``gone``: snapshots that count no more. Parts that somebody unknown may need all stay, and ``freed`` learns why.
    """
    named: set[str] = set()
    for snapshot in place.snapshots():
        if snapshot.id in gone:
            continue
        if snapshot.manifest is None:
            freed.warning = (
                f"unreferenced parts stay, because the manifest of snapshot {snapshot.id}, which may name them, cannot "
                "be read"
            )
            return {}
        named.update(part.id for part in snapshot.manifest.parts)
    since = request.part_grace.before(utc_now()).timestamp()
    found: dict[str, list[Path]] = {}
    with repository_errors(place.parts_path), os.scandir(place.parts_path) as entries:
        for entry in entries:
            part, suffix = entry.name[:32], entry.name[32:]
            if PART_ID.match(part) and suffix in (PART_SUFFIX, RECORD_SUFFIX) and part not in named:
                found.setdefault(part, []).append(Path(entry.path))
    with repository_errors(place.parts_path):
        return {part: files for part, files in found.items() if all(path.lstat().st_mtime <= since for path in files)}


def _remove_parts(place: InstanceDirectory, parts: dict[str, list[Path]], freed: _Freed) -> None:
    """Remove parts, their records first: a part without a record is nothing that a create would use again."""
    files = [path for group in parts.values() for path in group]
    freed.parts += len(parts)
    freed.changed = freed.changed or bool(files)
    freed.add(files)
    for suffix in (RECORD_SUFFIX, PART_SUFFIX):
        chosen = [path for path in files if path.name.endswith(suffix)]
        with repository_errors(place.parts_path):
            for path in chosen:
                path.unlink(missing_ok=True)
            if chosen:
                sync_directory(place.parts_path)
