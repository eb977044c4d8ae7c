# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asks of a drill: which snapshot, what it may take, what is looked at."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import timedelta

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import COMPLETE
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import Versions
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import id_time, utc_now

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:d|h|min|s))+\Z", re.ASCII)


def parse_objective(text: str | None, setting: str) -> float | None:
    """Return an objective in seconds: a number of them, or such as ``4h`` or ``1d12h``. Raises SettingError."""
    if text is None or not text.strip():
        return None
    words = text.strip().lower()
    try:
        seconds = float(words)
    except ValueError:
        if not _DURATION.match(words):
            raise SettingError(
                f"papermerge_backup_{setting} is {text!r}; use seconds, or such as 90min, 4h or 1d12h"
            ) from None
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(d|h|min|s)", words))
    if not 0 < seconds < 1e10:
        raise SettingError(f"papermerge_backup_{setting} is {text!r}; an objective is a time greater than nothing")
    return seconds


@dataclass(kw_only=True)
class DrillRequest:
    """What to drill. ``days``: a random snapshot of the last so many days instead of ``snapshot``; 0: not.

    ``rto`` and ``rpo`` in seconds. ``sample``: how many originals are opened. ``names``: keep their paths.
    """

    versions: Versions
    snapshot: str = "latest"
    days: int = 0
    sample: int = 20
    names: bool = False
    command: str = ""
    rto: float | None = None
    rpo: float | None = None
    scratch_dir: str = ""

    def require_sane(self) -> None:
        """Raise SettingError for settings that make no sense."""
        if self.days < 0 or self.sample < 0:
            raise SettingError("papermerge_backup_drill_days and papermerge_backup_drill_sample cannot be negative")
        if self.days and self.snapshot != "latest":
            raise SettingError("set papermerge_backup_snapshot or papermerge_backup_drill_days, not both")


def choose_snapshot(place: InstanceDirectory, request: DrillRequest) -> StoredSnapshot:
    """Return the snapshot to drill. Raises RepositoryError where there is none.

    One that is damaged is chosen like any other. Where the last days have none, it is the newest.
    """
    if request.days:
        since = utc_now() - timedelta(days=request.days)
        recent = [place.select(name) for name in place.snapshot_names() if id_time(name) >= since]
        usable = [found for found in recent if found.manifest is None or found.manifest.state == COMPLETE]
        if usable:
            return random.choice(usable)
    return place.select(request.snapshot)
