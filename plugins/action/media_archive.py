# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.archives import archive_media, free_directory
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import scratch_directory


class ActionModule(BackupAction):
    """Archives the host's media directory to a directory on the controller or on the host."""

    MODULE = "media_archive"

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        settings = self.discovery()
        if arguments["location"] == "controller":
            free_directory(arguments["dest"])
        with scratch_directory() as scratch, self.session(self.host) as session:
            if self.check_mode:
                return {"changed": True, "dest": arguments["dest"], "plan": self.describe(session, settings)}
            result = archive_media(
                session, settings, arguments["dest"], arguments["location"] == "host", scratch, self.progress
            )
        return {"changed": True, **result}
