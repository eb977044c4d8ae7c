# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins: snapshots that no prune removes."""

from __future__ import annotations

import contextlib

from ansible_collections.papermerge.backup.plugins.module_utils.errors import RepositoryError
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory


def set_pin(place: InstanceDirectory, wanted: str, note: str | None, check: bool) -> tuple[str, bool]:
    """Pin a snapshot with a note, or take its pin away (None). Returns its id and whether anything had to be done.

    With ``check`` nothing is written. Raises RepositoryError when there is no such snapshot.
    """
    if not place.path.is_dir():
        raise RepositoryError(place.without_snapshots())
    # A prune under way must not remove it meanwhile.
    with contextlib.nullcontext() if check else place.locked():
        snapshot = place.select(wanted)
        if note is not None and not snapshot.directory.exists():
            raise RepositoryError(f"snapshot {snapshot.id} cannot be pinned: {snapshot.directory} is gone")
        pin = place.history.pinned().get(snapshot.id)
        changed = (pin["note"] if pin is not None else None) != note
        if changed and not check:
            details = {} if note is None else {"note": note}
            place.history.append(
                "unpinned" if note is None else "pinned", snapshot.id, snapshot.manifest_sha256, **details
            )
    return snapshot.id, changed
