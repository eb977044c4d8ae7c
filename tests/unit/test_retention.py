# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy keeps: the newest of each period, counted from the newest snapshot, and only what counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.plugin_utils.retention import Dated, Duration, Policy, apply_policy

#: By number, the newest first.
SERIES = [
    "2026-11-22T20:30",
    "2026-11-22T20:10",
    "2026-11-22T09:00",
    "2026-11-21T23:59",
    "2026-11-16T00:00",  # a Monday
    "2026-11-15T12:00",
    "2026-10-31T12:00",
    "2026-01-01T12:00",  # a Thursday, so in the first week of 2026
    "2025-12-29T12:00",  # a Monday, so in the same week
    "2025-12-28T12:00",
    "2024-05-05T12:00",
    "2024-05-04T12:00",
]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def kept(times: list[str], counting: set[str] | None = None, **rules: Any) -> dict[str, list[str]]:
    for name in rules:
        if name.startswith("within"):
            rules[name] = Duration.parse(rules[name], name)
    return apply_policy(
        Policy(**rules),
        [Dated(text, moment(text)) for text in times],
        lambda name: counting is None or name in counting,
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"last": 2}, [0, 1]),
        ({"last": -1}, range(12)),
        ({"hourly": 2}, [0, 2]),
        ({"daily": 3}, [0, 3, 4]),
        ({"weekly": 2}, [0, 5]),
        ({"weekly": 4}, [0, 5, 6, 7]),
        ({"weekly": 5}, [0, 5, 6, 7, 9]),
        ({"monthly": 3}, [0, 6, 7]),
        ({"yearly": 2}, [0, 8]),
        ({"within": "1d"}, [0, 1, 2, 3]),
        ({"within": "6d20h"}, [0, 1, 2, 3]),
        ({"within": "6d21h"}, [0, 1, 2, 3, 4]),
        ({"within": "1m"}, [0, 1, 2, 3, 4, 5, 6]),
        ({"within": "11m"}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"within_daily": "8d"}, [0, 3, 4, 5]),
        ({"within_monthly": "1y"}, [0, 6, 7, 8]),
        ({"last": 1, "yearly": 1}, [0]),
        ({"last": 1, "within_yearly": "10y"}, [0, 8, 10, 11]),
    ],
)
def test_a_rule_keeps_the_newest_of_each_of_its_periods(rules: dict[str, Any], expected: Any) -> None:
    assert sorted(kept(SERIES, **rules), reverse=True) == sorted((SERIES[number] for number in expected), reverse=True)


def test_the_oldest_is_kept_as_long_as_a_rule_could_keep_more() -> None:
    reasons = kept(SERIES, yearly=5)
    assert list(reasons) == [SERIES[0], SERIES[8], SERIES[10], SERIES[11]]
    assert reasons[SERIES[11]] == ["oldest yearly snapshot"]
    assert SERIES[11] not in kept(SERIES, yearly=3)
    assert SERIES[10] in kept(SERIES, {*SERIES} - {SERIES[11]}, yearly=5)


def test_the_reasons_are_those_of_restic() -> None:
    reasons = kept(SERIES, last=1, daily=2, within="1d", within_weekly="1y2m3d4h")
    assert reasons[SERIES[0]] == ["last snapshot", "within 1d", "daily snapshot", "weekly within 1y2m3d4h"]
    assert reasons[SERIES[1]] == ["within 1d"]
    assert reasons[SERIES[3]] == ["within 1d", "daily snapshot"]


def test_what_does_not_count_takes_nobodys_place() -> None:
    counting = {SERIES[0], SERIES[2], SERIES[4], SERIES[5]}
    assert list(kept(SERIES, counting, daily=3)) == [SERIES[0], SERIES[3], SERIES[4], SERIES[5]]
    # Named all the same: it would be kept if it counted.
    assert kept(SERIES, counting, daily=3)[SERIES[3]] == ["daily snapshot"]


def test_whether_one_counts_is_asked_only_where_a_rule_wants_it() -> None:
    asked = []

    def counts(name: str) -> bool:
        asked.append(name)
        return True

    apply_policy(Policy(daily=2), [Dated(text, moment(text)) for text in SERIES], counts)
    assert asked == [SERIES[0], SERIES[3]]


def test_the_number_orders_and_a_clock_that_goes_back_uses_up_no_places() -> None:
    jumping = ["2026-11-22T10:00", "2026-11-20T10:00", "2026-11-22T09:00", "2026-11-21T10:00"]
    assert list(kept(jumping, last=2)) == jumping[:2]
    assert list(kept(jumping, daily=3)) == [jumping[0], jumping[1], jumping[3]]


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("1m", "2026-03-03T10:00"),  # of the day that February lacks
        ("1y", "2025-03-31T10:00"),
        ("1y1m", "2025-03-03T10:00"),
        ("31d", "2026-02-28T10:00"),
        ("36h", "2026-03-29T22:00"),
        ("2m1d1h", "2026-01-30T09:00"),
        ("9999y", "0001-01-01T00:00"),
    ],
)
def test_a_duration_goes_back_by_the_calendar(text: str, before: str) -> None:
    assert Duration.parse(text, "keep_within").before(moment("2026-03-31T10:00")) == moment(before)


@pytest.mark.parametrize("text", ["", " ", "5", "d", "1w", "-1d", "1d1m", "1d 2h", "1.5d", "1D", "٣d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="papermerge_backup_keep_within"):
        Duration.parse(text, "keep_within")


@pytest.mark.parametrize(
    "arguments",
    [{}, {"keep_last": None}, {"keep_last": 0, "keep_daily": 0}, {"keep_within": "0h"}, {"keep_within_daily": "0d"}],
)
def test_an_empty_policy_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="the policy is empty"):
        Policy.from_arguments(arguments)


def test_a_negative_number_is_refused_unless_it_means_all() -> None:
    assert Policy.from_arguments({"keep_last": -1}).last == -1
    with pytest.raises(SettingError, match="papermerge_backup_keep_daily is -2"):
        Policy.from_arguments({"keep_last": 1, "keep_daily": -2})
