# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.action import BackupAction
from ansible_collections.papermerge.backup.plugins.plugin_utils.archives import open_archive, restore_media
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import scratch_directory


class ActionModule(BackupAction):
    """Restores a media archive onto a host whose media directory is absent or empty."""

    MODULE = "media_restore"

    def act(self) -> dict[str, Any]:
        arguments = self.arguments
        with (
            scratch_directory() as scratch,
            self.session(self.host) as session,
            Catalog(scratch / "restore.sqlite3") as catalog,
        ):
            media, fields = open_archive(session, arguments["src"], arguments["location"] == "host", scratch)
            self.progress.begin("verify", media.stored_bytes)
            media.check(catalog, self.progress)
            target = self.check_target(
                session, ["media"], media_bytes=fields["media_bytes"], snapshot_version=fields["version"]
            )
            if self.check_mode:
                return {"changed": True, "media_root": target["media_root"], "files": media.files}
            result = restore_media(session, media, fields, target, catalog, self.progress)
        return {"changed": True, **result}
