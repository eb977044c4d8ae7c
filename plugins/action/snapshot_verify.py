# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import snapshot_row
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import verify_snapshots


class ActionModule(BackupAction):
    """Verifies snapshots of a repository. Contacts no host."""

    MODULE = "snapshot_verify"
    _requires_connection = False

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        results = verify_snapshots(
            self.repositories(),
            arguments["instance"],
            arguments["excluded_instances"],
            arguments["snapshot"],
            arguments["level"],
            self.progress,
            record=not self.check_mode,
        )
        damaged = [row for row in results if row["result"] != "sound"]
        result: dict[str, Any] = {"changed": False, "snapshots": results}
        if damaged:
            result.update(
                failed=True,
                error=damaged[0]["error"],
                msg="{} of {} snapshots did not verify: {}".format(
                    len(damaged), len(results), "; ".join(row["msg"] for row in damaged)
                ),
            )
        return result

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        if "snapshots" not in result:
            return super().rows(result)
        return [
            {
                **snapshot_row(found),
                "host": self.host,
                "result": found["result"],
                "path": found["path"],
                "msg": found["msg"],
                "level": found.get("level"),
            }
            for found in result["snapshots"]
        ]
