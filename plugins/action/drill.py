# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import platform
from typing import Any

from ansible.release import __version__ as ansible_version

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import (
    BackupAction,
    collection_version,
    display,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import describe_snapshot, snapshot_row
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill import drill_instance
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import FAILED, PASSED, Versions
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_request import (
    DrillRequest,
    choose_snapshot,
    parse_objective,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.evidence import Evidence


class ActionModule(BackupAction):
    """Drills the restore of an instance on the controller. Contacts no host."""

    MODULE = "drill"
    _requires_connection = False

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        self.repository().require()
        place = self.place()
        request = DrillRequest(
            versions=Versions(
                collection=collection_version(),
                ansible_core=str(ansible_version),
                python=platform.python_version(),
            ),
            **{name: arguments[name] for name in ("snapshot", "days", "sample", "names", "scratch_dir")},
            command=arguments["command"] or "",
            rto=parse_objective(arguments["rto"], "rto"),
            rpo=parse_objective(arguments["rpo"], "rpo"),
        )
        request.require_sane()
        if self.check_mode:
            chosen = describe_snapshot(choose_snapshot(place, request).require_manifest(), place)
            return {"changed": False, "snapshot": chosen}
        evidence = Evidence(arguments["evidence"])
        outcome = drill_instance(place, request, evidence, self.progress, display.warning)
        report = outcome.report
        result: dict[str, Any] = {
            "changed": True,
            "verdict": report.verdict,
            "evidence": str(outcome.evidence),
            "reasons": report.reasons,
            "checks": {check.name: check.verdict for check in report.checks},
            "objectives": report.as_dict()["objectives"],
            "seconds": report.seconds,
        }
        if report.snapshot is not None:
            result["snapshot"] = {"instance": report.instance, **report.as_dict()["snapshot"]}
        if report.verdict != PASSED:
            result.update(failed=True, error=outcome.error or "failed", msg=f"{report.msg}; see {outcome.evidence}")
        return result

    def row(self, result: dict[str, Any]) -> dict[str, Any]:
        checks = list((result.get("checks") or {}).values())
        failed = checks.count(FAILED)
        return {
            **snapshot_row(result.get("snapshot") or {}),
            "instance": self.arguments["instance"] or self.host,
            "originals": (result.get("snapshot") or {}).get("originals"),
            "checks": f"{failed} of {len(checks)} failed" if failed else f"{checks.count(PASSED)} passed",
            "time": result.get("seconds"),
        }
