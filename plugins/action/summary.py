# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.summary import rows_for_hosts, table

display = Display()


class ActionModule(BackupAction):
    """Prints the closing table of a play. Contacts no host."""

    MODULE = "summary"
    _requires_connection = False

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        rows = rows_for_hosts(arguments["hosts"], arguments["results"])
        lines = table(arguments["columns"], rows)
        for line in ["", arguments["title"], *lines, ""]:
            display.display(line)
        for row in rows:
            if row.get("msg"):
                # Errors of a connection name their host already.
                name = f"{row.get('host')}: "
                display.display(name + str(row["msg"]).removeprefix(name))
        return {"changed": False, "rows": rows}

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        return super().rows(result) if result.get("failed") else list(result["rows"])
