# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a prune is to keep and to remove of one instance, and why. Removes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    DamageError,
    LossError,
    SettingError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import COMPLETE
from ansible_collections.papermerge.backup.plugins.plugin_utils.history import FullVerification
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import describe_stored, verify_one
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.retention import (
    Dated,
    Duration,
    Policy,
    apply_policy,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import id_time, iso, parse_iso, utc_now
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import check_sizes

#: How far ahead of our clock that of a former create may have been.
FUTURE_TOLERANCE = timedelta(minutes=5)
KEEP, REMOVE = "keep", "remove"
#: What a shrinking snapshot has fewer of: key of the manifest's totals, and its name for people.
MEASURES = {"documents": "documents", "media_bytes": "bytes of media"}


def sequence_of(name: str) -> int:
    """Return the number in a snapshot's id."""
    return int(name.partition("-")[0])


@dataclass(frozen=True)
class PruneRequest:
    """What a prune is to do. ``shrink_threshold`` is in percent, ``accept_shrink`` has ids and sequence numbers."""

    policy: Policy
    verified_within: Duration
    part_grace: Duration
    shrink_threshold: int
    accept_shrink: list[str]

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> PruneRequest:
        """Read the options of the module. Raises SettingError."""
        threshold = int(arguments["shrink_threshold"])
        if not 0 <= threshold <= 100:
            raise SettingError(f"papermerge_backup_shrink_threshold is {threshold}; use a percentage from 0 to 100")
        return cls(
            policy=Policy.from_arguments(arguments),
            verified_within=Duration.parse(arguments["verified_within"], "verified_within"),
            part_grace=Duration.parse(arguments["part_grace"], "part_grace"),
            shrink_threshold=threshold,
            accept_shrink=list(arguments["accept_shrink"]),
        )

    def accepts(self, name: str) -> bool:
        """Tell whether the user calls a snapshot all right although it has shrunk."""
        sequence = sequence_of(name)
        return any(wanted == name or (wanted.isdecimal() and int(wanted) == sequence) for wanted in self.accept_shrink)


@dataclass
class Candidate:
    """What a prune has to know of a snapshot; ``totals`` are those of MEASURES that its manifest has."""

    id: str
    moment: datetime
    description: dict[str, Any]
    complete: bool
    present: bool
    problem: BackupError | None
    manifest_sha256: str
    totals: dict[str, int]
    action: str = KEEP
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, place: InstanceDirectory, snapshot: StoredSnapshot) -> Candidate:
        manifest = snapshot.manifest
        totals = manifest.totals if manifest is not None else {}
        problem = None if manifest is not None else snapshot.problem or DamageError(f"{snapshot.id}: no manifest")
        return cls(
            id=snapshot.id,
            moment=id_time(snapshot.id) if manifest is None else parse_iso(manifest.started),
            description=describe_stored(place, snapshot),
            complete=manifest is not None and manifest.state == COMPLETE,
            present=snapshot.directory.exists(),
            problem=problem,
            manifest_sha256=snapshot.manifest_sha256,
            totals={name: int(totals[name]) for name in MEASURES if isinstance(totals.get(name), int)},
        )


class Soundness:
    """Which snapshots verify: as the history says, and else by looking. With ``record`` the history learns of it."""

    def __init__(self, place: InstanceDirectory, request: PruneRequest, progress: Progress, record: bool) -> None:
        self._place = place
        self._progress = progress
        self._record = record
        self._verified = place.history.verified_in_full()
        self._now = utc_now()
        self._since = request.verified_within.before(self._now)
        #: The word and the reason of everything looked at so far; no reason for what is sound.
        self._found: dict[str, tuple[str, str]] = {}
        #: The manifests of what this run itself has verified.
        self._seen_sound: set[str] = set()

    def look_again(self) -> None:
        """Let what is sound be looked at once more, though not read again: time has passed."""
        self._found = {name: found for name, found in self._found.items() if found[0] != "sound"}

    def of(self, candidate: Candidate) -> tuple[str, str]:
        """Return ``sound``, ``incomplete``, ``damaged`` or ``failed`` (nobody can tell), and the reason why."""
        if candidate.id not in self._found:
            self._found[candidate.id] = self._look(candidate)
        return self._found[candidate.id]

    def _look(self, candidate: Candidate) -> tuple[str, str]:
        if candidate.problem is not None:
            return "damaged" if isinstance(candidate.problem, DamageError) else "failed", candidate.problem.message
        if not candidate.complete:
            return "incomplete", "incomplete"
        snapshot = self._place.select(candidate.id)
        if self._is_known_sound(snapshot, self._verified.get(candidate.id)):
            return "sound", ""
        row = verify_one(self._place, snapshot, "full", self._progress, self._record)
        if row["result"] == "sound":
            self._seen_sound.add(snapshot.manifest_sha256)
            return "sound", ""
        return str(row["result"]), str(row["msg"])

    def _is_known_sound(self, snapshot: StoredSnapshot, verified: FullVerification | None) -> bool:
        """Tell whether the history has a verification that still counts, and nothing has vanished since."""
        manifest = snapshot.require_manifest()
        if snapshot.manifest_sha256 not in self._seen_sound and (
            verified is None
            or verified.manifest_sha256 != snapshot.manifest_sha256
            or not self._since < verified.moment <= self._now
            or any(part.id in verified.damaged_parts for part in manifest.parts)
        ):
            return False
        try:
            check_sizes(self._place, snapshot.directory, manifest)
        except BackupError:
            # The full verification will say it, and write it down.
            return False
        return True


@dataclass
class Plan:
    """The candidates of one instance, oldest first. With a ``refusal`` none of them may be removed.

    ``accepted``: the newest snapshot, where the history has yet to learn that it was found in order.
    """

    candidates: list[Candidate]
    refusal: BackupError | None = None
    accepted: Candidate | None = None

    @property
    def removed(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates if candidate.action == REMOVE]


def make_plan(place: InstanceDirectory, request: PruneRequest, soundness: Soundness) -> Plan:
    """Decide about every snapshot of an instance; verifies what the decision needs."""
    candidates = [Candidate.of(place, snapshot) for snapshot in place.snapshots()]
    if not candidates:
        return Plan(candidates)
    newest = candidates[-1]
    try:
        _require_sane(newest)
        _require_no_shrinking(place, request, candidates)
        _require_sound(newest, soundness)
    except BackupError as refusal:
        return Plan(candidates, refusal)
    _decide(place, request, candidates, soundness)
    accepted = place.history.accepted() or {}
    known = accepted.get("snapshot") == newest.id and accepted.get("manifest_sha256") == newest.manifest_sha256
    return Plan(candidates, accepted=None if known else newest)


def _require_sane(newest: Candidate) -> None:
    """Raise unless the newest snapshot is of the past and complete."""
    if newest.problem is not None:
        kind = type(newest.problem)
        raise kind(f"nothing is removed, because the newest snapshot cannot be read: {newest.problem.message}")
    now = utc_now()
    if newest.moment > now + FUTURE_TOLERANCE:
        raise BackupError(
            f"nothing is removed, because the newest snapshot {newest.id} is dated in the future (started "
            f"{iso(newest.moment):.19}Z, the controller's clock says {iso(now):.19}Z); set the clock right and take "
            "another snapshot"
        )
    if not newest.complete:
        raise LossError(
            f"nothing is removed, because the newest snapshot {newest.id} is incomplete; what it lacks may be in older "
            "ones only: restore it and take another snapshot"
        )


def _require_sound(newest: Candidate, soundness: Soundness) -> None:
    word, reason = soundness.of(newest)
    if word != "sound":
        kind = DamageError if word == "damaged" else BackupError
        raise kind(
            f"nothing is removed, because the newest snapshot {newest.id} does not verify: {reason}; take another one"
        )


def _require_no_shrinking(place: InstanceDirectory, request: PruneRequest, candidates: list[Candidate]) -> None:
    """Raise LossError when the newest snapshot is much smaller than the last one that was in order.

    One that has shrunk is no measure for those after it, unless the user has accepted it: else a second small
    snapshot would make the first one look all right.
    """
    accepted = place.history.accepted()
    name, totals, sequence = "", {}, 0
    if accepted is not None:
        name = str(accepted["snapshot"])
        sequence = sequence_of(name)
        totals = {key: int(accepted[key]) for key in MEASURES if isinstance(accepted.get(key), int)}
    shrunk = ""
    for candidate in candidates:
        if not candidate.complete or sequence_of(candidate.id) <= sequence:
            continue
        shrunk = "" if request.accepts(candidate.id) else _shrunk(candidate, name, totals, request.shrink_threshold)
        if not shrunk:
            name, totals = candidate.id, candidate.totals
    if shrunk:
        raise LossError(
            f"nothing is removed, because the newest snapshot {shrunk}; look whether that is meant, and then set "
            f"papermerge_backup_accept_shrink to {candidates[-1].id}"
        )


def _shrunk(candidate: Candidate, before: str, totals: dict[str, int], threshold: int) -> str:
    for key, word in MEASURES.items():
        old, new = totals.get(key), candidate.totals.get(key)
        if old is not None and new is not None and new * 100 < old * (100 - threshold):
            return (
                f"{candidate.id} has {new:,} {word}, {before} had {old:,}: more than {threshold} % fewer "
                "(papermerge_backup_shrink_threshold)"
            )
    return ""


def _decide(place: InstanceDirectory, request: PruneRequest, candidates: list[Candidate], soundness: Soundness) -> None:
    """Set action and reasons of every candidate; the newest one is known to be sound."""
    by_id = {candidate.id: candidate for candidate in candidates}
    dated = [Dated(candidate.id, candidate.moment) for candidate in reversed(candidates)]
    wanted = apply_policy(request.policy, dated, lambda name: soundness.of(by_id[name])[0] == "sound")
    pins = place.history.pinned()
    newest_sound = next(candidate for candidate in reversed(candidates) if soundness.of(candidate)[0] == "sound")
    for candidate in candidates:
        rules = wanted.get(candidate.id, [])
        reasons = []
        if candidate.id in pins:
            reasons.append("pinned: {note}".format(**pins[candidate.id]) if pins[candidate.id]["note"] else "pinned")
        if candidate is newest_sound:
            reasons.append("newest that verifies")
        # Looking at what no rule wants would mean to read all that there is.
        word, why = soundness.of(candidate) if rules or candidate.problem or not candidate.complete else ("", "")
        if rules:
            reasons += rules if word == "sound" else [f"no sound one in its place yet ({', '.join(rules)})"]
        if word == "failed":
            reasons.append("nobody can tell what it holds")
        candidate.action = KEEP if reasons else REMOVE
        if not reasons:
            reasons = ["no rule keeps it"]
        if word not in ("", "sound"):
            reasons.append("does not count: " + (why if word == "incomplete" else f"{word}, {why}"))
        candidate.reasons = reasons
