# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.pins import set_pin


class ActionModule(BackupAction):
    """Pins a snapshot of a repository, or takes the pin away. Contacts no host."""

    MODULE = "snapshot_pin"
    _requires_connection = False

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        place = self.place()
        wanted = arguments["note"] if arguments["state"] == "present" else None
        name, changed = set_pin(place, arguments["snapshot"], wanted, self.check_mode)
        return {"changed": changed, "id": name, "instance": place.name, "pinned": wanted is not None}

    def row(self, result: dict[str, Any]) -> dict[str, Any]:
        return {"instance": result.get("instance"), "snapshot": result.get("id")}
