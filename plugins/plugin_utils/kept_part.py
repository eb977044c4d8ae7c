# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A part that outlives the create that made it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import ArchivedFile
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredPart
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import PartWriter


class KeptPart(PartWriter):
    """A part that is written in a directory of incoming, and is in its place for good as soon as it is finished."""

    def __init__(self, place: InstanceDirectory, directory: Path, packed: bool) -> None:
        super().__init__(directory, packed)
        self._place = place

    def finish(self, files: Iterable[ArchivedFile], result: dict[str, Any]) -> StoredPart:
        stored = super().finish(files, result)
        self._place.keep_part(self._directory, stored.id)
        return stored
