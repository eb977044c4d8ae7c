# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of drills: private, whole or absent, with the history beside it, and readable by CI systems."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError, SpaceError
from ansible_collections.papermerge.backup.plugins.plugin_utils import evidence as evidence_module
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import DrillReport
from ansible_collections.papermerge.backup.plugins.plugin_utils.evidence import UNFINISHED, Evidence, read_drill
from ansible_collections.papermerge.backup.plugins.plugin_utils.junit import junit_xml
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import iso
from tests.support.drill_reports import START, drill_report, failed_report

FILES = {"drill.json", "junit.xml", "report.html"}
#: File names as a hostile or careless user makes them.
HOSTILE = [
    '<script>alert("x")</script>',
    "\"><img src=x onerror='1'>",
    "invoice\u202efdp.exe",
    os.fsdecode(b"scan-\xff\xfe.pdf"),
    "a]]>b &amp; & \x00\x07\x1b[31m \ufffe \N{COLLISION SYMBOL}",
    "{{ 7 * 7 }}{% raw %}",
]


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(str(tmp_path / "parent" / "drills"))


def nights(count: int) -> Iterator[DrillReport]:
    """Drills of so many nights, each a second of RTO slower than the one before."""
    for number in range(count):
        report = drill_report(started=iso(START + timedelta(days=number)), ended=iso(START + timedelta(days=number)))
        report.objectives.rto.measured_seconds = float(number)
        yield report


def hostile_report() -> DrillReport:
    """A failed drill in which every text that can come from elsewhere is hostile."""
    report = failed_report(source_host=HOSTILE[0], controller=HOSTILE[1])
    report.checks = [replace(check, title=text, detail=text, found=text) for check, text in zip(report.checks, HOSTILE)]
    report.sample = [replace(report.sample[1], path=text, kind=text, detail=text) for text in HOSTILE]
    report.twin = [replace(report.twin[2], title=text, message=text, caught_by=text) for text in HOSTILE]
    report.phases = [replace(phase, title=text) for phase, text in zip(report.phases, HOSTILE)]
    report.judge("\n".join(HOSTILE))
    return report


def test_a_drill_is_one_private_directory(evidence: Evidence) -> None:
    os.umask(0)
    try:
        written = evidence.write(drill_report())
    finally:
        os.umask(0o022)
    assert written == evidence.path / "paperhost" / "20261122T023004Z-000042"
    assert {path.name for path in written.iterdir()} == FILES
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    for directory in (written, written.parent, evidence.path, evidence.path.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in written.iterdir()} == {0o600}
    assert read_drill(written) == drill_report()


def test_earlier_drills_are_the_history(evidence: Evidence) -> None:
    for report in nights(3):
        written = evidence.write(report)
    assert [past.rto_seconds for past in read_drill(written).history] == [0.0, 1.0]
    assert "History: 3 drills" in (written / "report.html").read_text("utf-8")
    assert evidence.write(drill_report(instance="other")).parent.name == "other"
    assert evidence.past_drills("other").drills[0].verdict == "passed"
    assert len(evidence.past_drills("other").drills) == 1


def test_history_is_bounded_to_the_newest(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "MAX_HISTORY", 3)
    for report in nights(6):
        evidence.write(report)
    assert [past.rto_seconds for past in evidence.past_drills("paperhost").drills] == [3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"format": 1}', b"\xff", b"[" * 100_000, b'{"format": NaN}', None]
)
def test_damaged_evidence_is_passed_over_and_told(evidence: Evidence, content: bytes | None) -> None:
    first, second, third = nights(3)
    damaged = evidence.write(first)
    evidence.write(second)
    (damaged / "drill.json").unlink()
    if content is not None:
        (damaged / "drill.json").write_bytes(content)
    written = evidence.write(third)
    assert [past.rto_seconds for past in read_drill(written).history] == [1.0]
    assert damaged.name in (written / "report.html").read_text("utf-8")


def test_evidence_of_another_instance_is_no_history(evidence: Evidence) -> None:
    written = evidence.write(drill_report(instance="other"))
    (evidence.path / "paperhost").mkdir()
    written.rename(evidence.path / "paperhost" / written.name)
    past = evidence.past_drills("paperhost")
    assert past.drills == []
    assert "it is of the instance other" in past.damaged[0]


def test_a_file_too_large_for_evidence_is_not_read(evidence: Evidence) -> None:
    written = evidence.write(drill_report())
    with (written / "drill.json").open("r+b") as stream:
        stream.truncate(1 << 40)
    assert "larger than any drill's" in evidence.past_drills("paperhost").damaged[0]


def test_two_drills_of_one_second_are_both_kept(evidence: Evidence) -> None:
    names = [evidence.write(drill_report()).name for _number in range(3)]
    assert names == ["20261122T023004Z-000042", "20261122T023004Z-000042-2", "20261122T023004Z-000042-3"]
    assert len(evidence.past_drills("paperhost").drills) == 3


def test_a_drill_without_a_snapshot_leaves_evidence_too(evidence: Evidence) -> None:
    report = drill_report(snapshot=None, checks=[], twin=[], sample=[], phases=[])
    report.judge("the repository holds no snapshot of paperhost")
    written = evidence.write(report)
    assert written.name == "20261122T023004Z-000000"
    assert "holds no snapshot of paperhost" in (written / "report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["../other", "", ".hidden", "a/b", "a b"])
def test_an_instance_cannot_lead_elsewhere(evidence: Evidence, name: str) -> None:
    with pytest.raises(SettingError, match="cannot name an instance"):
        evidence.write(drill_report(instance=name))
    assert not evidence.path.exists()


def test_a_file_in_the_way_is_named_with_the_setting(evidence: Evidence) -> None:
    evidence.path.parent.mkdir()
    evidence.path.write_text("")
    with pytest.raises(SettingError, match=r"Not a directory.*papermerge_backup_evidence"):
        evidence.write(drill_report())


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from ansible_collections.papermerge.backup.plugins.plugin_utils import evidence
from tests.support.drill_reports import drill_report
count = int(sys.argv[2])
def counted(function):
    def call(*arguments):
        global count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
for name in ("write_private", "sync_directory", "_publish"):
    setattr(evidence, name, counted(getattr(evidence, name)))
print(evidence.Evidence(sys.argv[1]).write(drill_report()))
"""


def test_a_killed_drill_leaves_whole_evidence_or_none(evidence: Evidence) -> None:
    outcomes = []
    place = evidence.path / "paperhost"
    for moment in range(1, 20, 2):
        words = [sys.executable, "-c", KILLED.format(path=sys.path), str(evidence.path), str(moment)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        seen = sorted(place.glob("[!.]*")) if place.exists() else []
        for directory in seen:
            assert {path.name for path in directory.iterdir()} == FILES
            read_drill(directory)
        outcomes.append((done.returncode, len(seen)))
        if done.returncode == 0:
            break
    assert outcomes[-1][0] == 0
    assert sum(count == 0 for _status, count in outcomes) >= 2, outcomes
    hidden = sorted(place.glob(UNFINISHED + "*"))
    assert hidden, "no kill came between the files"
    for path in hidden:
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    evidence.write(drill_report())
    assert not list(place.glob(UNFINISHED + "*"))


def test_evidence_that_is_just_being_written_stays(evidence: Evidence) -> None:
    (evidence.path / "paperhost" / f"{UNFINISHED}another").mkdir(parents=True)
    evidence.write(drill_report())
    assert (evidence.path / "paperhost" / f"{UNFINISHED}another").is_dir()


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(SpaceError, match="papermerge_backup_evidence"):
            Evidence(str(disk)).write(drill_report())
        assert list((disk / "paperhost").iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_hostile_names_survive_in_json(evidence: Evidence) -> None:
    report = hostile_report()
    written = evidence.write(report)
    assert (written / "drill.json").read_text("ascii")
    assert [file.path for file in read_drill(written).sample] == HOSTILE


def test_writing_stays_small_with_a_long_history(evidence: Evidence) -> None:
    place = evidence.path / "paperhost"
    text = json.dumps(drill_report(history=[past.as_past() for past in nights(400)]).as_dict())
    for number in range(420):
        directory = place / f"2025{number // 28 % 12 + 1:02}{number % 28 + 1:02}T000000Z-{number:06}"
        directory.mkdir(parents=True)
        (directory / "drill.json").write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    written = evidence.write(drill_report())
    assert time.monotonic() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert len(read_drill(written).history) == 400


# JUnit: the structure that Jenkins' schema gives and that GitHub's and GitLab's readers rely on.

ATTRIBUTES: dict[str, tuple[set[str], set[str]]] = {
    # element: required, allowed besides
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors", "disabled"}),
    "testsuite": (
        {"name", "tests"},
        {"failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id", "package"},
    ),
    "properties": (set(), set()),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "classname"}, {"assertions", "time", "status"}),
    "failure": (set(), {"message", "type"}),
    "skipped": (set(), {"message"}),
    "system-out": (set(), set()),
}
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out", "system-err"],  # in this order
    "properties": ["property"],
    "testcase": ["skipped", "error", "failure", "system-out", "system-err"],
}


def require_junit(element: ET.Element) -> None:
    required, allowed = ATTRIBUTES[element.tag]
    assert required <= set(element.attrib) <= required | allowed, element.attrib
    for name in {"time", "tests", "failures", "errors", "skipped"} & set(element.attrib):
        assert float(element.get(name, "")) >= 0
    order = CHILDREN.get(element.tag, [])
    positions = [order.index(child.tag) for child in element]
    assert positions == sorted(positions)
    for child in element:
        require_junit(child)


@pytest.mark.parametrize("report", [drill_report(), failed_report(), hostile_report()], ids=["passed", "failed", "bad"])
def test_junit_has_the_structure_that_ci_systems_read(report: DrillReport) -> None:
    root = ET.fromstring(junit_xml(report))
    assert root.tag == "testsuites"
    require_junit(root)
    (suite,) = root
    cases = suite.findall("testcase")
    assert len(cases) == len(report.checks) + len(report.twin) + 2
    assert suite.get("tests") == root.get("tests") == str(len(cases))
    assert suite.get("failures") == root.get("failures") == str(len(suite.findall("testcase/failure")))
    assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
    assert suite.get("timestamp") == "2026-11-22T02:30:04"
    assert (suite.findtext("system-out") or "").startswith(report.verdict)


def failures(report: DrillReport) -> dict[str, str]:
    root = ET.fromstring(junit_xml(report))
    return {
        case.get("name", ""): found.get("message", "")
        for case in root.iter("testcase")
        for found in case.iter("failure")
    }


def test_junit_says_what_failed_and_why() -> None:
    assert failures(drill_report()) == {}
    found: dict[str, Any] = failures(failed_report())
    assert list(found) == [
        "Every expected file is there, with its hash",
        "damaged twin: A row was given without its file",
        "recovery point objective (RPO)",
    ]
    assert found["Every expected file is there, with its hash"].startswith("3 files are missing")


def test_junit_is_red_whenever_the_drill_is() -> None:
    report = drill_report(checks=[], twin=[])
    report.judge("the database server did not start")
    assert failures(report) == {"drill": report.msg}
    twinless = drill_report(twin=[])
    twinless.judge()
    assert list(failures(twinless)) == ["drill"]


def test_what_is_skipped_says_why_in_junit() -> None:
    root = ET.fromstring(junit_xml(drill_report()))
    (skipped,) = root.iter("skipped")
    assert skipped.get("message") == "papermerge_backup_drill_command is not set"
