# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release line by the mark that migrations leave in the database: the last source, for where no file tells."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Tuple

from ..database.engines import database_at
from ..database.place import DatabasePlace
from ..errors import BackupError
from .releases import RELEASE_LINES, ReleaseLine

#: Returns where the database of a Papermerge of this version would be, and what says so. Raises BackupError.
PlaceOf = Callable[[str], Tuple[DatabasePlace, str]]


def find_marked(place_of: PlaceOf) -> Tuple[Optional[ReleaseLine], str]:
    """Return the release line that a database belongs to, and which mark says so; else None and what was looked at.

    Where the database is depends on the release. So it is looked for as each line would find it, and a line counts
    where the database that was found so bears a mark of this very line.
    """
    seen: Dict[DatabasePlace, str] = {}
    notes: List[str] = []
    for line in RELEASE_LINES.values():
        try:
            place, found_in = place_of(line.newest_version)
            if place not in seen:
                seen[place] = ""
                seen[place] = _marker(place, found_in)
                notes.append("database {0} bears {1}".format(place.url, seen[place] or "no mark"))
        except BackupError as error:
            if error.message not in notes:
                notes.append(error.message)
            continue
        if seen[place] in line.schema_markers:
            return (
                line,
                "schema marker {0} of database {1} ({2}), which tells no more than the release line {3}".format(
                    seen[place], place.url, found_in, line.name
                ),
            )
    return None, "; ".join(notes)


def _marker(place: DatabasePlace, found_in: str) -> str:
    with database_at(place, found_in).view() as view:
        return view.schema_marker(None)
