# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshots a policy keeps, with the semantics of restic's forget. Touches nothing.

Snapshots go by their number, not by the clock; hours, days, weeks (ISO 8601), months and years are those of UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError

#: Keep as many as there are.
ALL = -1
_DURATION = re.compile(r"(?=.)(?:(\d{1,5})y)?(?:(\d{1,5})m)?(?:(\d{1,6})d)?(?:(\d{1,7})h)?\Z", re.ASCII)
_BEGINNING = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Duration:
    """A time span as users write it, such as 2y5m7d3h."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str, setting: str) -> Duration:
        """Read years, months, days and hours, in this order. Raises SettingError, which names the setting."""
        found = _DURATION.match(text.strip())
        if found is None:
            raise SettingError(
                f"{text!r} is no duration; set papermerge_backup_{setting} to years, months, days and hours, in this "
                "order, such as 2y5m7d3h or 36h"
            )
        return cls(*(int(group or 0) for group in found.groups()))

    def before(self, moment: datetime) -> datetime:
        """Return the moment that was so long before another; of a day that its month lacks, the month goes on."""
        months = moment.year * 12 + moment.month - 1 - self.years * 12 - self.months
        try:
            first = moment.replace(year=months // 12, month=months % 12 + 1, day=1)
            return first + timedelta(days=moment.day - 1 - self.days, hours=-self.hours)
        except (ValueError, OverflowError):
            return _BEGINNING

    def __str__(self) -> str:
        pairs = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in pairs if number) or "0h"


@dataclass(frozen=True)
class Policy:
    """How many snapshots of each kind are kept (0: none, -1: all), and since when; None: no such rule."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Duration | None = None
    within_hourly: Duration | None = None
    within_daily: Duration | None = None
    within_weekly: Duration | None = None
    within_monthly: Duration | None = None
    within_yearly: Duration | None = None

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Policy:
        """Read the keep_* options of a module. Raises SettingError for an empty or impossible policy."""
        values: dict[str, Any] = {}
        for rule in fields(cls):
            option, value = f"keep_{rule.name}", arguments.get(f"keep_{rule.name}")
            if rule.name.startswith("within"):
                values[rule.name] = None if value is None else Duration.parse(value, option)
            else:
                values[rule.name] = value or 0
                if values[rule.name] < ALL:
                    raise SettingError(f"papermerge_backup_{option} is {value}; use a number, or -1 to keep all")
        policy = cls(**values)
        if all(value in (None, 0, Duration()) for value in values.values()):
            raise SettingError(
                "the policy is empty, so nothing would be kept; set papermerge_backup_keep_last, _hourly, _daily, "
                "_weekly, _monthly, _yearly or _within"
            )
        return policy


@dataclass(frozen=True)
class Dated:
    """A snapshot as the policy sees it."""

    id: str
    moment: datetime


_KEYS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda moment: (moment.year, moment.month, moment.day, moment.hour),
    "daily": lambda moment: (moment.year, moment.month, moment.day),
    "weekly": lambda moment: tuple(moment.isocalendar())[:2],
    "monthly": lambda moment: (moment.year, moment.month),
    "yearly": lambda moment: (moment.year,),
}


@dataclass
class _Rule:
    """One rule at work. ``key``: the period of a moment, None for none; ``left``: how many may still be kept."""

    reason: str
    key: Callable[[datetime], tuple[int, ...]] | None
    left: int = ALL
    after: datetime | None = None
    seen: set[tuple[int, ...]] = field(default_factory=set)

    def reaches(self, moment: datetime) -> bool:
        return self.left != 0 and (self.after is None or moment > self.after)

    def wants(self, moment: datetime) -> bool:
        return self.reaches(moment) and (self.key is None or self.key(moment) not in self.seen)

    def take(self, moment: datetime) -> None:
        if self.key is not None:
            self.seen.add(self.key(moment))
        if self.left > 0:
            self.left -= 1


def _rules(policy: Policy, newest: datetime) -> list[_Rule]:
    rules = []
    if policy.last:
        rules.append(_Rule("last snapshot", None, left=policy.last))
    if policy.within is not None and policy.within != Duration():
        rules.append(_Rule(f"within {policy.within}", None, after=policy.within.before(newest)))
    for period, key in _KEYS.items():
        count, within = getattr(policy, period), getattr(policy, f"within_{period}")
        if count:
            rules.append(_Rule(f"{period} snapshot", key, left=count))
        if within is not None and within != Duration():
            rules.append(_Rule(f"{period} within {within}", key, after=within.before(newest)))
    return rules


def apply_policy(policy: Policy, snapshots: Sequence[Dated], counts: Callable[[str], bool]) -> dict[str, list[str]]:
    """Return the reasons to keep snapshots, by id; a snapshot that no rule wants is not in it.

    ``snapshots``: by number, the newest first. ``counts``: whether a snapshot counts, asked only of those that a rule
    wants; one that does not is in the result with the rules that would keep it, and takes nobody's place. As long as
    a rule could keep more, it also keeps the oldest snapshot that counts.
    """
    reasons: dict[str, list[str]] = {}
    if not snapshots:
        return reasons
    rules = _rules(policy, snapshots[0].moment)
    for snapshot in snapshots:
        wanting = [rule for rule in rules if rule.wants(snapshot.moment)]
        if wanting:
            reasons[snapshot.id] = [rule.reason for rule in wanting]
            if counts(snapshot.id):
                for rule in wanting:
                    rule.take(snapshot.moment)
    for snapshot in reversed(snapshots):
        known = reasons.get(snapshot.id, [])
        reaching = [rule for rule in rules if rule.key is not None and rule.reaches(snapshot.moment)]
        more = [f"oldest {rule.reason}" for rule in reaching if rule.reason not in known]
        if not reaching:
            break
        if counts(snapshot.id):
            if more:
                reasons[snapshot.id] = known + more
            break
    return reasons
