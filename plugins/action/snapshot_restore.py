# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.errors import UnsupportedError
from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction, display
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import snapshot_row
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot


class ActionModule(BackupAction):
    """Restores a snapshot of an instance onto the host."""

    MODULE = "snapshot_restore"

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        if arguments["replace"]:
            raise UnsupportedError(
                "this version of papermerge.backup restores onto empty targets only; "
                "papermerge_backup_replace must be false"
            )
        self.repository().require()
        place = self.place(arguments["source"])
        request = RestoreRequest(
            **self.instance_settings(),
            snapshot=arguments["snapshot"],
            database_admin_url=arguments["database_admin_url"],
            config=arguments["config"],
        )
        with self.session(self.place().name) as session:
            result = restore_snapshot(session, place, request, self.progress, self.check_mode, display.warning)
        return {"changed": True, **result}

    def row(self, result: dict[str, Any]) -> dict[str, Any]:
        source = {"source": self.arguments["source"] or self.arguments["instance"] or self.host}
        return {**source, **snapshot_row(result.get("snapshot") or {}), "time": result.get("seconds")}
