# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import (
    BackupAction,
    collection_version,
    display,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import (
    CreateRequest,
    create_snapshot,
    plan_snapshot,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import plan_row, snapshot_row
from ansible_collections.papermerge.backup.plugins.plugin_utils.ephemeral import require_lasting

#: What a create takes besides the discovery settings.
CREATE_SETTINGS = (
    "copy_dir",
    "media_allowed_roots",
    "derived",
    "accept_missing",
    "media_protected_elsewhere",
    "config",
)


class ActionModule(BackupAction):
    """Takes a snapshot of the host's instance into the repository."""

    MODULE = "snapshot_create"

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        place = self.place()
        self.repository().require_writable()
        if not arguments["accept_ephemeral"]:
            require_lasting(self.repository().path)
        request = CreateRequest(
            host=self.host,
            instance=place.name,
            collection_version=collection_version(),
            **self.instance_settings(),
            **{name: arguments[name] for name in CREATE_SETTINGS},
        )
        with self.session(place.name) as session:
            if self.check_mode:
                return {"changed": True, "plan": plan_snapshot(session, place, request, self.progress)}
            snapshot = create_snapshot(session, place, request, self.progress, display.warning)
        return {"changed": True, "snapshot": snapshot}

    def row(self, result: dict[str, Any]) -> dict[str, Any]:
        plan = result.get("plan")
        return plan_row(plan) if plan else snapshot_row(result.get("snapshot") or {})
