# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What results and tables say of a snapshot."""

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import UNKNOWN_LINE
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory


def describe_snapshot(manifest: Manifest, place: InstanceDirectory) -> dict[str, Any]:
    """Return what results and tables say of a snapshot."""
    proof = manifest.proof
    return {
        "id": manifest.id,
        "sequence": manifest.sequence,
        "instance": manifest.instance,
        "state": manifest.state,
        "path": str(place.snapshots_path / manifest.id),
        "started": manifest.started,
        "ended": manifest.ended,
        "version": manifest.version,
        "documents": manifest.totals.get("documents"),
        "files": manifest.totals.get("files"),
        "originals": proof.get("proved"),
        "expected": proof.get("expected"),
        "layout": manifest.media.get("layout"),
        "classes": proof.get("classes"),
        "orphans": proof.get("orphans"),
        "changed": proof.get("changed"),
        "media_bytes": manifest.totals.get("media_bytes"),
        "new_bytes": manifest.totals.get("new_bytes"),
        "stored_bytes": manifest.totals.get("stored_bytes"),
        "timings": manifest.fields.get("timings"),
        "database_restarts": manifest.database.get("restarts"),
        "database_locked_seconds": manifest.database.get("locked_seconds"),
    }


def snapshot_row(description: dict[str, Any]) -> dict[str, Any]:
    """Return what the closing table shows of a described snapshot; nothing of an empty one."""
    if not description:
        return {}
    names = ("version", "documents", "new_bytes", "stored_bytes", "media_bytes", "files", "state", "instance")
    row = {name: description.get(name) for name in names}
    row["snapshot"] = description.get("id")
    row["time"] = description.get("seconds")
    if description.get("layout") == UNKNOWN_LINE.layout:
        row["originals"] = "unknown layout"
    elif description.get("expected") is not None:
        row["originals"] = "{originals}/{expected}".format(**description)
    return row


def plan_row(plan: dict[str, Any]) -> dict[str, Any]:
    """Return what the closing table shows of a create in check mode; the bytes are those before compression."""
    return {
        "instance": plan["instance"],
        "version": plan["version"],
        "documents": plan["documents"],
        "originals": "{expected_files}".format(**plan),
        "files": plan["media_files"],
        "media_bytes": plan["media_size"],
        "new_bytes": plan["media_size"] + plan["database_size"],
    }
