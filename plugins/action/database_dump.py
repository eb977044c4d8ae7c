# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.dumps import dump_database, free_path


class ActionModule(BackupAction):
    """Dumps the host's database to a file on the controller or on the host."""

    MODULE = "database_dump"

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        on_host = arguments["location"] == "host"
        if not on_host:
            free_path(arguments["dest"])
        settings = self.discovery(copy_dir=arguments["copy_dir"])
        with self.session(self.host) as session:
            if self.check_mode:
                return {"changed": True, "dest": arguments["dest"], "plan": self.describe(session, settings)}
            result = dump_database(session, settings, arguments["dest"], on_host, self.progress)
        return {"changed": True, **result}
