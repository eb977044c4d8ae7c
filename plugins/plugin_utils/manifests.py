# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a snapshot that was just read, and what a person should look at in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import ReleaseLine
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import (
    COMPLETE,
    FORMAT,
    INCOMPLETE,
    Manifest,
    StoredFile,
    StoredPart,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import (
    IN_OBJECT_STORAGE,
    NAMED_ROWS,
    Proof,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import iso


@dataclass(kw_only=True)
class Gathered:
    """Everything that a create has brought together.

    ``found``, ``dump`` and ``scan``: what the agent answered. ``config``: the stored settings and what the manifest
    says of them. ``new_parts``: those of the parts that this create has made. ``totals``: number of files and their
    size in bytes. ``reasons``: why the snapshot counts as loss, ``accepted`` all the same. ``previous``: the snapshot
    that the proof was compared with.
    """

    host: str
    instance: str
    derived: bool
    accepted: bool
    collection_version: str
    sequence: int
    started: datetime
    ended: datetime
    line: ReleaseLine
    found: dict[str, Any]
    dump: dict[str, Any]
    scan: dict[str, Any]
    database: StoredFile
    index: StoredFile
    config: tuple[StoredFile, dict[str, Any]] | None
    parts: list[StoredPart]
    new_parts: list[StoredPart]
    totals: tuple[int, int]
    proof: Proof
    reasons: list[str]
    timings: dict[str, float]
    previous: StoredSnapshot | None


def build_manifest(it: Gathered) -> Manifest:
    """Return the manifest of what a create has gathered."""
    files, size = it.totals
    own = [it.database.size, it.index.size] + ([it.config[0].size] if it.config is not None else [])
    stored, new = (sum(own) + sum(part.size + part.record_size for part in parts) for parts in (it.parts, it.new_parts))
    return Manifest(
        {
            "format": FORMAT,
            "features": [],
            "id": "{:06}-{}".format(it.sequence, it.started.strftime("%Y%m%dT%H%M%SZ")),
            "sequence": it.sequence,
            "state": INCOMPLETE if it.reasons and not it.accepted else COMPLETE,
            "reasons": it.reasons,
            "instance": it.instance,
            "host": {"inventory_name": it.host, **it.found["host"]},
            "started": iso(it.started),
            "ended": iso(it.ended),
            "papermerge": {
                "version": it.found["version"],
                "found_in": it.found["version_found_in"],
                "release_line": it.line.name,
                "project_dir": it.found["project_dir"],
            },
            "database": {
                "engine": it.found["database_engine"],
                "path": it.found["database_path"],
                "found_in": it.found["database_found_in"],
                "url": it.found["database_url"],
                "schema_marker": it.dump["schema_marker"],
                "dump_format": it.dump["dump_format"],
                "plain_sha256": it.dump["plain_sha256"],
                "dumped_at_ns": it.dump["moment_ns"],
                **it.dump["facts"],
            },
            "media": {
                "root": it.found["media_root"],
                "found_in": it.found["media_found_in"],
                "layout": it.line.layout,
                "mode": it.found["media_mode"],
                "owner": it.found["media_owner"],
                "derived": it.derived,
                "storage": it.found["storage"],
            },
            "files": {
                "database": asdict(it.database),
                "index": asdict(it.index),
                "config": asdict(it.config[0]) if it.config is not None else None,
            },
            "config": it.config[1] if it.config is not None else None,
            "parts": [asdict(part) for part in it.parts],
            "row_counts": it.dump["row_counts"],
            "proof": it.proof.as_dict(),
            "totals": {
                "documents": it.dump["row_counts"].get(it.line.documents_table, 0),
                "files": files,
                "media_bytes": size,
                "stored_bytes": stored,
                "new_bytes": new,
                "skipped_special_files": it.scan["skipped"],
            },
            "timings": it.timings,
            "collection_version": it.collection_version,
            "previous_manifest_sha256": it.previous.manifest_sha256 if it.previous is not None else None,
        }
    )


def warn_of(manifest: Manifest, previous: StoredSnapshot | None, warn: Callable[[str], object]) -> None:
    """Tell what a person should look at, though nothing failed."""
    _warn_of_another_host(manifest, previous, warn)
    _warn_of_what_is_not_proved(manifest, warn)
    _warn_of_changes(manifest, previous, warn)


def _warn_of_another_host(manifest: Manifest, previous: StoredSnapshot | None, warn: Callable[[str], object]) -> None:
    """Tell when an instance's last snapshot came from another host: two hosts under one name would be mixed."""
    if previous is None:
        return
    here = manifest.fields["host"]["inventory_name"]
    before = (previous.require_manifest().fields.get("host") or {}).get("inventory_name")
    if before not in (None, here):
        warn(
            f"instance {manifest.instance} was backed up from host {before} before and from {here} now; two hosts "
            "need two names: set papermerge_backup_instance"
        )


def _warn_of_what_is_not_proved(manifest: Manifest, warn: Callable[[str], object]) -> None:
    """Tell of originals that are archived without proof, or not at all."""
    if not manifest.proof["layout_known"]:
        warn(
            f"unknown layout: Papermerge {manifest.version} is none of the releases that this version of "
            f"papermerge.backup knows; {manifest.id} holds all files and the whole database, but nobody has checked "
            "that the files are those that the database expects"
        )
    elsewhere = manifest.proof["classes"][IN_OBJECT_STORAGE]
    if elsewhere:
        warn(f"{elsewhere} originals are in object storage only and not in {manifest.id}")


def _warn_of_changes(manifest: Manifest, previous: StoredSnapshot | None, warn: Callable[[str], object]) -> None:
    """Tell of originals with another content: Papermerge does that in two cases, and so does who tampers with them."""
    count = manifest.proof["changed"]
    if previous is None or not count:
        return
    first = manifest.proof["changed_originals"][0]
    warn(
        "instance {}: {} of the originals {} another content than in snapshot {}; both snapshots keep their own. The "
        "first is {} (SHA-256 {} before, {} now); the manifest of {} names {}".format(
            manifest.instance,
            count,
            "has" if count == 1 else "have",
            previous.id,
            first["path"],
            first["before"],
            first["now"],
            manifest.id,
            "it" if count == 1 else f"the first {NAMED_ROWS:,}" if count > NAMED_ROWS else "them all",
        )
    )
