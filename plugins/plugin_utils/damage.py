# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged parts by name: a verification ends at the first damage, the next create has to know of all."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest, StoredPart
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    checked,
    counted,
    load_record,
    read_stored,
    stored_size,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import check_part


def damaged_parts(
    place: InstanceDirectory, manifest: Manifest, level: str, progress: Progress
) -> Iterator[tuple[str, str]]:
    """Yield the parts of a snapshot that are damaged as far as a level looks, each with what was found.

    ``level``: quick, full or deep, as of a verification. Raises RepositoryError.
    """
    progress.begin("damaged parts", sum(part.size for part in manifest.parts))
    for part in manifest.parts:
        try:
            _check(place, part, level, progress)
        except DamageError as error:
            yield part.id, error.message


def _check(place: InstanceDirectory, part: StoredPart, level: str, progress: Progress) -> None:
    path, record_path = place.part_path(part.id), place.record_path(part.id)
    for stored, size in ((path, part.size), (record_path, part.record_size)):
        found = stored_size(stored)
        if found != size:
            raise DamageError(
                f"{stored} is missing" if found is None else f"{stored} has {found:,} bytes, not {size:,}"
            )
    if level == "quick":
        return
    record = load_record(record_path, part)
    content = checked(counted(read_stored(path), progress.advance), part.size, part.sha256, str(path))
    if level == "deep":
        check_part(content, record, str(path))
    for _piece in content:
        pass
