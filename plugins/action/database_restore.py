# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.dumps import check_source, restore_database


class ActionModule(BackupAction):
    """Restores a database dump onto a host whose database is absent or empty."""

    MODULE = "database_restore"

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        on_host = arguments["location"] == "host"
        if not on_host:
            check_source(arguments["src"])
        with self.session(self.host) as session:
            target = self.check_target(session, ["database"])
            if self.check_mode:
                return {"changed": True, **{name: target[name] for name in ("database_path", "database_url")}}
            result = restore_database(
                session, target, arguments["src"], on_host, arguments["sha256"] or "", self.progress
            )
        return {"changed": True, **result}
