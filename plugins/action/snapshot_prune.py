# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import snapshot_row
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import instances_in
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune import prune_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune_plan import PruneRequest
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory


class ActionModule(BackupAction):
    """Removes snapshots that a policy does not keep. Contacts no host."""

    MODULE = "snapshot_prune"
    _requires_connection = False

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        places = instances_in(self.repositories(), arguments["instance"], arguments["excluded_instances"])
        if not places:
            # Nobody is left to speak for, so that nobody needs a policy.
            return {"changed": False, "instances": []}
        pruned = prune_snapshots(places, self._request(places), self.progress, check=self.check_mode)
        failed = [row for row in pruned if row["result"] == "failed"]
        warnings = [
            "instance {instance}: {msg}".format(**row) for row in pruned if row["result"] == "ok" and row["msg"]
        ]
        result: dict[str, Any] = {"changed": any(row.pop("changed") for row in pruned), "instances": pruned}
        if warnings:
            result["warnings"] = warnings
        if failed:
            result.update(
                failed=True,
                error=failed[0]["error"],
                msg="; ".join("instance {instance}: {msg}".format(**row) for row in failed),
            )
        return result

    def _request(self, places: list[InstanceDirectory]) -> PruneRequest:
        try:
            return PruneRequest.from_arguments(self.arguments)
        except SettingError as error:
            if self.arguments["instance"] is not None:
                raise
            names = ", ".join(place.name for place in places)
            raise SettingError(
                f"instances {names}: {error.message}; for those whose hosts are not in the play these settings belong "
                "into the group all, or on the command line with -e"
            ) from None

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a row for each instance, below one for each snapshot that goes; in check mode for every snapshot."""
        if "instances" not in result:
            return super().rows(result)
        rows = []
        for pruned in result["instances"]:
            refused = pruned["result"] == "failed"
            for found in pruned["snapshots"]:
                if not refused and (self.check_mode or found["action"] == "remove"):
                    word = {"keep": "keep", "remove": "remove" if self.check_mode else "removed"}[found["action"]]
                    rows.append(
                        {
                            **snapshot_row(found),
                            "host": self.host,
                            "result": word,
                            "path": found["path"],
                            "reasons": ", ".join(found["reasons"]),
                        }
                    )
            word = {"pruned": "checked" if self.check_mode else "ok"}.get(pruned["state"], pruned["state"])
            rows.append(
                {
                    **{name: pruned[name] for name in ("instance", "path", "kept", "removed", "freed_bytes", "msg")},
                    "host": self.host,
                    "result": word,
                }
            )
        return rows
