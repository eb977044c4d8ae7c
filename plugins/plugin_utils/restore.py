# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore: select, verify, look at the target, unpack beside it, prove, put in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_of
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest
from ansible_collections.papermerge.backup.plugins.plugin_utils.arguments import Discovery
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import describe_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.dumps import abandon
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import read_stored
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Session,
    told_to,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import (
    Verification,
    media_of,
    plain_config,
    plain_database,
    require_same_counts,
    require_same_proof,
    scratch_directory,
)

#: Blocks, inodes and directories take room beside the content; this much a file.
BYTES_PER_FILE = 4096


@dataclass(kw_only=True)
class RestoreRequest(Discovery):
    """What a restore is to do on the target. ``database_admin_url``: who may create and rename databases there."""

    snapshot: str = "latest"
    database_admin_url: str | None = None
    config: bool = False


def restore_snapshot(
    session: Session,
    place: InstanceDirectory,
    request: RestoreRequest,
    progress: Progress,
    check_only: bool = False,
    warn: Callable[[str], object] = lambda _text: None,
) -> dict[str, Any]:
    """Restore a snapshot onto an empty target; returns what was done.

    Raises a BackupError when the snapshot does not verify or the target does not fit, before anything is written;
    after any later error the target is as it was. ``check_only`` stops before anything is written.
    ``warn`` is told what a person should look at, though nothing failed.
    """
    begun = time.monotonic()
    snapshot = place.select(request.snapshot)
    manifest = snapshot.require_manifest()
    if request.config and manifest.config_file is None:
        raise SettingError(
            f"snapshot {manifest.id} holds no settings files; restore it without papermerge_backup_config"
        )
    with scratch_directory() as scratch, Catalog(scratch / "restore.sqlite3") as catalog:
        verification = Verification(place, snapshot, progress, scratch)
        verification.check_stored(catalog)
        target = _check_target(session, manifest, request, clear_up=not check_only)
        if target["version_note"]:
            warn(target["version_note"])
        result = {
            "snapshot": describe_snapshot(manifest, place),
            "media_root": target["media_root"],
            "database_path": target["database_path"],
            "database_url": target["database_url"],
            "undone": target["interrupted"],
        }
        if not check_only:
            work = _Restore(session, place, snapshot, target, progress, catalog)
            result.update(work.run())
            result["config"] = work.restore_config() if request.config else []
    result["seconds"] = round(time.monotonic() - begun, 3)
    return result


def _check_target(session: Session, manifest: Manifest, request: RestoreRequest, clear_up: bool) -> dict[str, Any]:
    return session.call(
        Call(
            "check_target",
            {
                "instance": request.as_request(),
                "admin_url": request.database_admin_url,
                "sides": ["media", "database"],
                "config": manifest.config_entries if request.config else [],
                "clear_up": clear_up,
                "snapshot_version": manifest.version,
                "snapshot_line_only": manifest.release_line_only,
                "source_media_root": str(manifest.media["root"]),
                "source_database": {
                    "engine": manifest.engine,
                    "path": str(manifest.database["path"]),
                    "url": str(manifest.database.get("url", "")),
                    "facts": manifest.database,
                },
                "media_bytes": int(manifest.totals["media_bytes"]) + BYTES_PER_FILE * int(manifest.totals["files"]),
                "database_bytes": manifest.database_file.plain_size,
            },
        )
    )


class _Restore:
    """One run onto a target that was found to fit."""

    def __init__(
        self,
        session: Session,
        place: InstanceDirectory,
        snapshot: StoredSnapshot,
        target: dict[str, Any],
        progress: Progress,
        catalog: Catalog,
    ) -> None:
        self._session = session
        self._snapshot = snapshot
        self._manifest = snapshot.require_manifest()
        self._media = media_of(place, snapshot)
        self._target = target
        self._progress = progress
        self._catalog = catalog

    def run(self) -> dict[str, Any]:
        where = {name: self._target[name] for name in ("media_root", "database_path", "server")}
        state = self._session.call(Call("begin_restore", where))
        try:
            files, size = self._media.send(
                self._session,
                self._catalog,
                self._progress,
                state,
                {"directory_mode": self._manifest.media["mode"], "directory_owner": self._manifest.media["owner"]},
                bool(self._target["zstd"]),
            )
            proved = self._receive_database(state)
            self._progress.begin("putting in place")
            placed = self._session.call(
                Call(
                    "place",
                    {
                        **where,
                        "state": state,
                        "directory_mode": self._manifest.media["mode"],
                        "directory_owner": self._manifest.media["owner"],
                        "database_mode": self._manifest.database.get("mode"),
                        "database_owner": self._manifest.database.get("owner"),
                    },
                ),
                told_to(self._progress),
            )
        except BaseException:
            abandon(self._session, state)
            raise
        return {
            "files": files,
            "media_bytes": size,
            "proved": proved,
            "owners_kept": placed["given_away"],
            "row_counts": self._manifest.row_counts,
        }

    def restore_config(self) -> list[str]:
        """Write the settings files of the snapshot to their places; returns which."""
        arguments = {"entries": self._manifest.config_entries, "compressed": False, "host_path": ""}
        answer = self._session.call(Call("receive_config", arguments, data=plain_config(self._snapshot)))
        return list(answer["written"])

    def _receive_database(self, state: dict[str, Any]) -> int:
        """Bring the database beside its place, and prove it with its own rows against the restored files."""
        file = self._manifest.database_file
        self._progress.begin("database", file.plain_size)

        def take(rows: Iterator[dict[str, Any]]) -> None:
            self._catalog.add_expected(
                (path_of(row), row["row"], row["key"]) for row in rows if "path" in row or "path_base64" in row
            )

        packed = bool(self._target["zstd"])
        source = read_stored(self._snapshot.directory / file.name) if packed else plain_database(self._snapshot)
        received = self._session.call(
            Call(
                "receive_database",
                {
                    "database_stage": state["database_stage"],
                    "server": self._target["server"],
                    "release_line": self._manifest.release_line,
                    "compressed": packed,
                    "host_path": "",
                    "plain_size": file.plain_size,
                    "plain_sha256": self._manifest.database["plain_sha256"],
                },
                data=source,
            ),
            told_to(self._progress, records=take),
        )
        require_same_counts(self._manifest, received["row_counts"], received["schema_marker"])
        return require_same_proof(self._manifest, self._catalog)
