# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.compare import CHANGES, CompareRequest, compare

NOT_KNOWN = "(nobody knows)"
ALL = "(all)"


class ActionModule(BackupAction):
    """Compares two snapshots. Contacts no host."""

    MODULE = "snapshot_compare"
    _requires_connection = False

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        request = CompareRequest(**{name: arguments[name] for name in ("snapshot", "base", "dest")})
        place = self.place()
        base_place = self.place(arguments["base_instance"]) if arguments["base_instance"] else place
        result = compare(place, base_place, request, self.progress, write=not self.check_mode)
        return {"changed": result["dest"] is not None, **result}

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        if result.get("failed"):
            return super().rows(result)
        head = {
            "host": self.host,
            "result": "ok",
            "instance": result["instance"],
            "base": result["base"],
            "snapshot": result["snapshot"],
        }
        rows = [
            {**head, "files": "originals", "user": user["user"] or NOT_KNOWN, **_cells(user)}
            for user in result["users"] or []
        ]
        if result["users"] is None:
            rows.append({**head, "files": "originals", "user": NOT_KNOWN, **_cells(result["originals"])})
        totals = [
            {**head, "files": kind, "user": ALL, **_cells(result[kind])} for kind in ("originals", "derived", "other")
        ]
        return rows + totals


def _cells(counts: dict[str, Any]) -> dict[str, int]:
    found = {}
    for change in CHANGES:
        found[change] = counts[change]["files"]
        found[f"{change}_bytes"] = counts[change]["bytes"]
    return found
