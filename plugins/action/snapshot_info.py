# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import snapshot_row
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import last_verified, list_snapshots


class ActionModule(BackupAction):
    """Lists the snapshots of a repository. Contacts no host."""

    MODULE = "snapshot_info"
    _requires_connection = False

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        return {
            "changed": False,
            "snapshots": list_snapshots(self.repositories(), arguments["instance"], arguments["excluded_instances"]),
        }

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        if result.get("failed"):
            return super().rows(result)
        return [
            {
                **snapshot_row(found),
                "host": self.host,
                "result": found["state"],
                "path": found["path"],
                "msg": found.get("msg", ""),
                "verified": last_verified(found),
                "pinned": (found["pinned"]["note"] or "yes") if found.get("pinned") else "",
            }
            for found in result["snapshots"]
        ]
