# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines by name. Adding one is adding a file and a line here."""

from __future__ import annotations

from typing import Dict, Optional, Type

from ..errors import UnsupportedError
from .engine import Database, ServerTarget
from .mysql.dump import MysqlDatabase
from .mysql.target import MysqlTarget
from .place import DatabasePlace
from .postgresql.dump import PostgresDatabase
from .postgresql.target import PostgresTarget
from .sqlite import SqliteDatabase

DATABASES: Dict[str, Type[Database]] = {
    "sqlite": SqliteDatabase,
    "postgresql": PostgresDatabase,
    "mysql": MysqlDatabase,
}
TARGETS: Dict[str, Type[ServerTarget]] = {"postgresql": PostgresTarget, "mysql": MysqlTarget}


def database_at(place: DatabasePlace, found_in: str) -> Database:
    """Return the database at a place. Raises UnsupportedError for an engine that is not known."""
    kind = DATABASES.get(place.engine)
    if kind is None:
        raise _unsupported(place, found_in)
    return kind(place, found_in)


def server_target(place: DatabasePlace, found_in: str, admin: Optional[DatabasePlace]) -> ServerTarget:
    """Return where a restore onto a server goes. Raises UnsupportedError."""
    kind = TARGETS.get(place.engine)
    if kind is None:
        raise _unsupported(place, found_in)
    return kind(place, found_in, admin)


def _unsupported(place: DatabasePlace, found_in: str) -> UnsupportedError:
    return UnsupportedError(
        "the database engine is {0} ({1}); this version of papermerge.backup knows {2}".format(
            place.engine, found_in, ", ".join(DATABASES)
        )
    )
