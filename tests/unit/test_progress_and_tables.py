# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see: lines of progress and the closing table."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress, human_bytes, human_seconds
from ansible_collections.papermerge.backup.plugins.plugin_utils.summary import cell, rows_for_hosts, table


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (7 << 40, "7.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_sizes_are_told_in_binary_units(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.24, "4.2 s"), (59.9, "59.9 s"), (60, "1:00"), (3599, "59:59"), (3723, "1:02:03")],
)
def test_durations_are_told_in_the_largest_units_that_matter(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_long_step_tells_share_rate_and_time_left_every_ten_seconds() -> None:
    clock, lines = Clock(), list[str]()
    progress = Progress("dms1", lines.append, clock)
    progress.begin("media", 100 << 20)
    for _second in range(25):
        clock.now += 1
        progress.advance(2 << 20)
    assert lines == [
        "dms1: media: 20 %, 20.0 MiB, 2.0 MiB/s, 40.0 s left",
        "dms1: media: 40 %, 40.0 MiB, 2.0 MiB/s, 30.0 s left",
    ]


def test_a_short_step_says_nothing_and_a_new_one_begins_from_nought() -> None:
    clock, lines = Clock(), list[str]()
    progress = Progress("dms1", lines.append, clock)
    for step in ("database", "scan"):
        progress.begin(step, unit="files")
        clock.now += 9
        progress.update(500)
    assert lines == []
    clock.now += 1
    progress.update(5000)
    assert lines == ["dms1: scan: 5,000 files, 500/s"]


def test_progress_never_tells_more_than_all_or_divides_by_nothing() -> None:
    clock, lines = Clock(), list[str]()
    progress = Progress("dms1", lines.append, clock)
    progress.begin("media", 10)
    clock.now += 10
    progress.update(20)
    progress.begin("media", 10)
    clock.now += 10
    progress.update(0)
    progress.begin("database")
    clock.now += 10
    progress.update(50, 100)
    assert lines == [
        "dms1: media: 100 %, 20 B, 2 B/s, 0.0 s left",
        "dms1: media: 0 B, 0 B/s",
        "dms1: database: 50 %, 50 B, 5 B/s, 10.0 s left",
    ]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("new_bytes", 1536, "1.5 KiB"),
        ("new_bytes", 0, "0 B"),
        ("time", 65.2, "1:05"),
        ("seconds", 1, "1.0 s"),
        ("documents", 0, "0"),
        ("version", "2.0.2", "2.0.2"),
        ("version", None, "-"),
        ("version", "", "-"),
        ("new_bytes", "unknown", "unknown"),
    ],
)
def test_a_cell_shows_a_value_by_the_name_of_its_column(column: str, value: Any, text: str) -> None:
    assert cell(column, value) == text


def test_a_table_has_a_line_a_row_numbers_to_the_right() -> None:
    rows = [
        {"host": "dms1", "result": "ok", "documents": 1200, "new_bytes": 2048},
        {"host": "a-longer-name", "result": "failed"},
    ]
    assert table(["host", "result", "documents", "new_bytes"], rows) == [
        "host           result  documents  new bytes",
        "-------------  ------  ---------  ---------",
        "dms1           ok           1200    2.0 KiB",
        "a-longer-name  failed          -          -",
    ]
    assert table(["host"], []) == ["host", "----"]


def test_a_host_without_a_result_has_failed() -> None:
    rows = rows_for_hosts(["b", "a", "c"], [{"host": "a", "result": "ok"}, {"host": "b", "result": "ok"}])
    assert [(row["host"], row["result"]) for row in rows] == [("b", "ok"), ("a", "ok"), ("c", "failed")]
    assert "no result" in rows[-1]["msg"]
