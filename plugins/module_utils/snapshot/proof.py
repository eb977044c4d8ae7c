# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof: every version row of the database falls into one class, and some classes mean loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..paths import shown

PRESENT = "present"
WRITTEN_AFTER_DUMP = "written_after_dump"
NOT_EXPECTED = "not_expected"
NOT_COMPUTABLE = "not_computable"
MISSING = "missing"
DELETED_DURING_BACKUP = "deleted_during_backup"
UNREADABLE = "unreadable"
EMPTY = "empty"
IN_OBJECT_STORAGE = "in_object_storage"
CLASSES = (
    PRESENT,
    WRITTEN_AFTER_DUMP,
    NOT_EXPECTED,
    NOT_COMPUTABLE,
    MISSING,
    DELETED_DURING_BACKUP,
    UNREADABLE,
    EMPTY,
    IN_OBJECT_STORAGE,
)
#: Classes in which an original that should be in the snapshot is not.
DAMAGED = (MISSING, UNREADABLE, EMPTY)
#: Share of the expected files of a first snapshot that may be missing before it counts as loss.
FIRST_SNAPSHOT_TOLERANCE = 0.01
#: As many rows of each damaged class, and as many changed originals, are named in the manifest.
NAMED_ROWS = 1000


@dataclass(frozen=True)
class FileState:
    """What the backup knows of an expected file: in the index with these values, or why it is not."""

    size: int = 0
    ctime_ns: int = 0
    indexed: bool = False
    unreadable: bool = False
    row_deleted: bool = False


def classify(state: Optional[FileState], dumped_at_ns: int, elsewhere: bool = False) -> str:
    """Return the class of a row whose file is expected. ``state`` is None for a file that nobody has seen.

    ``elsewhere``: originals are in object storage only, and those of them that are not here are there.
    """
    if state is not None and state.indexed:
        if state.size == 0:
            return EMPTY
        return WRITTEN_AFTER_DUMP if state.ctime_ns > dumped_at_ns else PRESENT
    if state is not None and state.row_deleted:
        return DELETED_DURING_BACKUP
    if state is not None and state.unreadable:
        return UNREADABLE
    return IN_OBJECT_STORAGE if elsewhere else MISSING


@dataclass
class Proof:
    """Counts of rows by class, and the damaged rows by name.

    ``lost``: damaged rows whose file the newest complete snapshot holds. ``orphans``: files among the originals in a
    directory that no row knows; ``unlisted``: files beside an original, such as its older versions.
    ``unreadable_files`` and ``changing_files``: files of any kind that are left out for that reason. ``changed``:
    originals with another content than in the newest complete snapshot; the first of them are in ``changed_originals``.
    ``layout_known``: without that nobody knows which files are expected, and the proof says nothing of them.
    """

    classes: Dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    damaged: List[Dict[str, str]] = field(default_factory=list)
    lost: int = 0
    orphans: int = 0
    unlisted: int = 0
    unreadable_files: int = 0
    changing_files: int = 0
    changed: int = 0
    changed_originals: List[Dict[str, str]] = field(default_factory=list)
    layout_known: bool = True

    def add(self, name: str, row: str, path: bytes, held_before: bool) -> None:
        """Count an expected row. ``held_before``: the newest complete snapshot holds a file at this path."""
        self.classes[name] += 1
        if name in DAMAGED:
            if held_before:
                self.lost += 1
            if self.classes[name] <= NAMED_ROWS:
                self.damaged.append(
                    {"class": name, "row": row, "path": shown(path), "held_before": "yes" if held_before else "no"}
                )

    def add_changed(self, path: bytes, before: str, now: str) -> None:
        """Count an original whose content changed. ``before`` and ``now`` are SHA-256 in hex."""
        self.changed += 1
        if self.changed <= NAMED_ROWS:
            self.changed_originals.append({"path": shown(path), "before": before, "now": now})

    @property
    def expected(self) -> int:
        """Rows whose file must be in the snapshot."""
        return sum(self.classes[name] for name in (PRESENT, WRITTEN_AFTER_DUMP) + DAMAGED)

    @property
    def proved(self) -> int:
        """Rows whose file is in the snapshot."""
        return self.classes[PRESENT] + self.classes[WRITTEN_AFTER_DUMP]

    def as_dict(self) -> Dict[str, Any]:
        return {
            "layout_known": self.layout_known,
            "classes": dict(self.classes),
            "expected": self.expected,
            "proved": self.proved,
            "lost": self.lost,
            "orphans": self.orphans,
            "unlisted": self.unlisted,
            "unreadable_files": self.unreadable_files,
            "changing_files": self.changing_files,
            "damaged": list(self.damaged),
            "changed": self.changed,
            "changed_originals": list(self.changed_originals),
        }


def losses(proof: Proof, first: bool) -> List[str]:
    """Return the reasons for which a snapshot counts as a loss; none for a sound one."""
    reasons = []
    if proof.lost:
        reasons.append(
            "{0} originals that the last complete snapshot holds are now missing, unreadable or empty".format(
                proof.lost
            )
        )
    damaged = sum(proof.classes[name] for name in DAMAGED)
    if first and damaged > FIRST_SNAPSHOT_TOLERANCE * proof.expected:
        reasons.append(
            "{0} of {1} originals that the database expects are missing, unreadable or empty".format(
                damaged, proof.expected
            )
        )
    if proof.unreadable_files:
        reasons.append("{0} files of the media directory could not be read".format(proof.unreadable_files))
    return reasons


def differences(stored: Mapping[str, Any], found: Mapping[str, Any]) -> List[Tuple[str, Any, Any]]:
    """Compare two sets of counts: a list of (name, stored, found) for every name whose values differ."""
    return [
        (name, stored.get(name), found.get(name))
        for name in sorted(set(stored) | set(found))
        if stored.get(name) != found.get(name)
    ]
