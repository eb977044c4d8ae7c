# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.archives import free_directory
from ansible_collections.papermerge.backup.plugins.plugin_utils.extract import (
    ExtractRequest,
    extract,
    to_controller,
    to_host,
)


class ActionModule(BackupAction):
    """Takes a document or some files out of a snapshot. Contacts the host only where they go there."""

    MODULE = "snapshot_extract"

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        names = ("snapshot", "document", "user", "pattern", "dest")
        request = ExtractRequest(**{name: arguments[name] for name in names})
        if arguments["location"] == "controller":
            directory = free_directory(request.dest)
            request.dest = str(directory)
            write = None if self.check_mode else to_controller(directory)
            return self._changed(extract(self.place(), request, self.progress, write))
        if self.check_mode:
            return self._changed(extract(self.place(), request, self.progress, None))
        with self.session(self.place().name) as session:
            write = to_host(session, request.dest, self.progress)
            return self._changed(extract(self.place(), request, self.progress, write))

    @staticmethod
    def _changed(result: dict[str, Any]) -> dict[str, Any]:
        return {"changed": result["file_count"] > 0, **result}

    def row(self, result: dict[str, Any]) -> dict[str, Any]:
        if result.get("failed"):
            return {}
        document = result["document"] or {}
        return {
            "instance": result["instance"],
            "snapshot": result["snapshot"],
            "document": document.get("path"),
            "user": document.get("owner"),
            "files": result["file_count"],
            "media_bytes": result["bytes"],
            "absent": len(result["absent"]),
            "read_bytes": result["read_bytes"],
            "time": result["seconds"],
            "dest": result["dest"],
        }
