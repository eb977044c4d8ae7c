# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill as JUnit XML: each check, each damage of the twin and each objective is a test case."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import (
    FAILED,
    PASSED,
    SKIPPED,
    Check,
    DrillReport,
)

#: What XML 1.0 cannot hold, not even as a reference, and (the second line) what turns the direction of text.
UNPRINTABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    r"|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


@dataclass
class _Case:
    name: str
    verdict: str
    seconds: float = 0.0
    message: str = ""
    output: str = ""


def junit_xml(report: DrillReport) -> bytes:
    """Return the XML as CI systems read it: testsuites, one testsuite, a testcase each with failure or skipped."""
    cases = _cases(report)
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.verdict == FAILED for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.verdict == SKIPPED for case in cases)),
        "time": _seconds(report.seconds),
    }
    suite_name = f"papermerge.backup.drill.{report.instance}"
    totals = {name: value for name, value in counts.items() if name != "skipped"}
    root = ET.Element("testsuites", {"name": "papermerge.backup.drill", **totals})
    suite = ET.SubElement(
        root,
        "testsuite",
        # The schema's times have no zone.
        {"name": suite_name, **counts, "timestamp": report.started[:19], "hostname": _plain(report.controller)},
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report).items():
        ET.SubElement(properties, "property", {"name": name, "value": _plain(value)})
    for case in cases:
        attributes = {"name": _plain(case.name), "classname": suite_name, "time": _seconds(case.seconds)}
        element = ET.SubElement(suite, "testcase", attributes)
        if case.verdict == FAILED:
            first = case.message.splitlines()[0] if case.message else "failed"
            failure = ET.SubElement(element, "failure", {"message": _plain(first), "type": "drill"})
            failure.text = _plain(case.message)
        elif case.verdict == SKIPPED:
            ET.SubElement(element, "skipped", {"message": _plain(case.message)})
        if case.output:
            ET.SubElement(element, "system-out").text = _plain(case.output)
    ET.SubElement(suite, "system-out").text = _plain(f"{report.verdict}: {report.msg}")
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _cases(report: DrillReport) -> list[_Case]:
    cases = [_of_check(check) for check in report.checks]
    cases += [
        _Case(
            f"damaged twin: {damage.title}",
            PASSED if damage.caught else FAILED,
            message="" if damage.caught else f"the damage was not caught. {damage.message}".strip(),
            output=f"caught by {damage.caught_by}: {damage.message}" if damage.caught else "",
        )
        for damage in report.twin
    ]
    rto, rpo = report.objectives.rto, report.objectives.rpo
    objectives = (
        ("recovery time objective (RTO)", rto.met, rto.limit_seconds, rto.measured_seconds),
        ("recovery point objective (RPO)", rpo.met, rpo.limit_seconds, rpo.snapshot_age_seconds),
    )
    for title, met, limit, measured in objectives:
        text = f"measured {_seconds(measured)} s, objective {_seconds(limit)} s"
        verdict = SKIPPED if met is None else PASSED if met else FAILED
        cases.append(_Case(title, verdict, message="no objective is set" if met is None else text, output=text))
    if report.verdict != PASSED and not any(case.verdict == FAILED for case in cases):
        cases.append(_Case("drill", FAILED, report.seconds, report.msg))
    return cases


def _of_check(check: Check) -> _Case:
    found = f"expected {check.expected}, found {check.found} {check.unit}".rstrip()
    verdict = check.verdict if check.verdict in (PASSED, SKIPPED) else FAILED
    message = check.detail if verdict == SKIPPED else "\n".join(filter(None, [check.detail, found]))
    return _Case(check.title, verdict, check.seconds, message, found if verdict == PASSED else "")


def _properties(report: DrillReport) -> dict[str, str]:
    found = {
        "instance": report.instance,
        "source_host": report.source_host,
        "target": f"{report.target.kind} {report.target.name}",
        "collection": report.versions.collection,
    }
    if report.snapshot is not None:
        found["snapshot"] = report.snapshot.id
        found["manifest_sha256"] = report.snapshot.manifest_sha256
        found["papermerge"] = report.snapshot.version
    return found


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """Return a text as XML can hold it: every other character, and marks of direction, by its number."""
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
