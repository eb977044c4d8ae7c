# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a drill: passed only if everything was, and read back as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import (
    FAILED,
    PASSED,
    SKIPPED,
    Check,
    DrillReport,
    RecoveryPoint,
    RecoveryTime,
    SampledFile,
    read_report,
)
from tests.support.drill_reports import drill_report, failed_report, past_drills


def judged(change: Callable[[DrillReport], None]) -> DrillReport:
    report = drill_report()
    change(report)
    report.judge()
    return report


def fail_check(report: DrillReport) -> None:
    report.checks[2] = replace(report.checks[2], verdict=FAILED, found=7)


def skip_without_reason(report: DrillReport) -> None:
    report.checks[5] = replace(report.checks[5], detail="")


def unknown_verdict(report: DrillReport) -> None:
    report.checks[0] = replace(report.checks[0], verdict="ok")


def no_check(report: DrillReport) -> None:
    report.checks = [Check(name="all", title="All", verdict=SKIPPED, detail="no time")]


def bad_sample(report: DrillReport) -> None:
    report.sample[0] = replace(report.sample[0], verdict=FAILED, detail="no PDF header")


def uncaught_damage(report: DrillReport) -> None:
    report.twin[1] = replace(report.twin[1], caught=False)


def no_twin(report: DrillReport) -> None:
    report.twin = []


def slow(report: DrillReport) -> None:
    report.objectives.rto = RecoveryTime.against(60.0, 60.1)


def not_timed(report: DrillReport) -> None:
    report.objectives.rto = RecoveryTime.against(60.0, None)


def old(report: DrillReport) -> None:
    report.objectives.rpo = RecoveryPoint.against(3600.0, 3601.0, None)


def nothing_restored(report: DrillReport) -> None:
    report.snapshot = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (fail_check, "Row counts are those of the snapshot: expected 184220, found 7 rows"),
        (skip_without_reason, "skipped without a reason"),
        (unknown_verdict, "Every stored byte is sound"),
        (no_check, "no check has passed"),
        (bad_sample, "no PDF header"),
        (uncaught_damage, "the damaged twin was not caught: A part was removed"),
        (no_twin, "no damaged twin was tried"),
        (slow, "the recovery time objective was missed"),
        (not_timed, "the recovery time objective was missed"),
        (old, "the recovery point objective was missed"),
        (nothing_restored, "no snapshot was restored"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_shortcoming_is_enough_to_fail(change: Callable[[DrillReport], None], said: str) -> None:
    report = judged(change)
    assert report.verdict == FAILED
    assert len(report.reasons) == 1, report.reasons
    assert said in report.msg


def test_a_drill_without_shortcomings_is_passed_and_says_what_was_skipped() -> None:
    report = drill_report()
    assert (report.verdict, report.reasons) == (PASSED, [])
    assert report.msg == "Restored and proved: 5 checks passed, 1 skipped"


def test_what_ended_a_drill_comes_first() -> None:
    report = drill_report(checks=[], twin=[], snapshot=None)
    report.judge("initdb is not installed; install postgresql")
    assert report.verdict == FAILED
    assert report.msg.startswith("initdb is not installed; install postgresql; no snapshot was restored")


def test_no_objectives_are_none_missed() -> None:
    report = drill_report()
    report.objectives.rto = RecoveryTime.against(None, 1e6)
    report.objectives.rpo = RecoveryPoint.against(None, 1e9, None)
    report.judge()
    assert report.verdict == PASSED
    assert (report.objectives.rto.met, report.objectives.rpo.met) == (None, None)


def test_an_objective_is_met_to_the_last_second() -> None:
    assert RecoveryTime.against(60.0, 60.0).met is True
    assert RecoveryPoint.against(60.0, 60.0, 1e9).met is True


def test_a_twin_may_be_left_out_with_a_reason() -> None:
    report = drill_report(twin=[])
    report.checks.append(Check(name="twin", title="Twin", verdict=SKIPPED, detail="papermerge_backup_drill_twin=false"))
    report.judge()
    assert report.verdict == PASSED


def test_a_sampled_file_is_named_only_when_asked_for() -> None:
    facts: dict[str, Any] = {"sha256": "ab" * 32, "size": 1, "kind": "pdf", "verdict": PASSED}
    path = "docs/user_1/Kündigung.pdf".encode()
    hidden = SampledFile.of(path, False, **facts)
    assert "ndigung" not in json.dumps(hidden.__dict__)
    assert hidden.label == "file " + hidden.path_sha256[:12]
    assert SampledFile.of(path, True, **facts).label == "docs/user_1/Kündigung.pdf"
    assert SampledFile.of(b"\xff\n.pdf", True, **facts).label == r"\\xff\n.pdf"


@pytest.mark.parametrize("report", [drill_report(history=past_drills(3)), failed_report(), drill_report(snapshot=None)])
def test_a_report_is_read_as_it_was_written(report: DrillReport) -> None:
    assert read_report(json.loads(json.dumps(report.as_dict()))) == report


def test_keys_of_later_versions_are_ignored() -> None:
    fields = drill_report().as_dict()
    fields["later"] = 1
    fields["snapshot"]["later"] = {}
    assert read_report(fields) == drill_report()


def change(path: str, value: Any) -> dict[str, Any]:
    fields = drill_report(history=past_drills(2)).as_dict()
    place: Any = fields
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in way:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return fields


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("format", KeyError),
        ("verdict", "<b>passed</b>"),
        ("instance", None),
        ("instance", KeyError),
        ("seconds", "1"),
        ("seconds", float("inf")),
        ("seconds", True),
        ("snapshot", []),
        ("snapshot.documents", 1.5),
        ("checks", {}),
        ("checks.0", "passed"),
        ("checks.0.expected", []),
        ("twin.0.caught", 1),
        ("objectives.rto.met", "yes"),
        ("history.1.media_bytes", "<script>"),
    ],
)
def test_anything_else_is_damage(path: str, value: Any) -> None:
    with pytest.raises(DamageError):
        read_report(change(path, value))


@pytest.mark.parametrize("value", [None, [], "drill", 1])
def test_what_is_no_report_is_damage(value: Any) -> None:
    with pytest.raises(DamageError):
        read_report(value)
