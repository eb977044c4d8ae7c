# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person should look at after a create, though nothing failed."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import NAMED_ROWS
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import StoredSnapshot


def notices(manifest: Manifest, previous: StoredSnapshot | None) -> Iterator[str]:
    """Yield warnings about a new snapshot. ``previous``: the one that it was compared with."""
    if previous is None:
        return
    here = manifest.fields["host"]["inventory_name"]
    before = (previous.require_manifest().fields.get("host") or {}).get("inventory_name")
    # Two hosts under one name would be mixed.
    if before not in (None, here):
        yield (
            f"instance {manifest.instance} was backed up from host {before} before and from {here} now; two hosts "
            "need two names: set papermerge_backup_instance"
        )
    # Papermerge overwrites originals in two cases, and so does who tampers with them.
    count = manifest.proof["changed"]
    if count:
        first = manifest.proof["changed_originals"][0]
        yield (
            "instance {}: {} of the originals {} another content than in snapshot {}; both snapshots keep their own. "
            "The first is {} (SHA-256 {} before, {} now); the manifest of {} names {}".format(
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
