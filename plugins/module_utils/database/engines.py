# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines by name. Adding one is adding a file and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Dict, Optional

from ..errors import UnsupportedError
from .engine import Database, ServerTarget
from .place import DatabasePlace

#: Module and class. They are imported when they are needed: an agent is started often, and needs one of them at most.
DATABASES: Dict[str, str] = {
    "sqlite": "sqlite.SqliteDatabase",
    "postgresql": "postgresql.dump.PostgresDatabase",
    "mysql": "mysql.dump.MysqlDatabase",
}
TARGETS: Dict[str, str] = {
    "postgresql": "postgresql.target.PostgresTarget",
    "mysql": "mysql.target.MysqlTarget",
}


def database_at(place: DatabasePlace, found_in: str) -> Database:
    """Return the database at a place. Raises UnsupportedError for an engine that is not known."""
    database: Database = _class(DATABASES, place, found_in)(place, found_in)
    return database


def server_target(place: DatabasePlace, found_in: str, admin: Optional[DatabasePlace]) -> ServerTarget:
    """Return where a restore onto a server goes. Raises UnsupportedError."""
    target: ServerTarget = _class(TARGETS, place, found_in)(place, found_in, admin)
    return target


def _class(known: Dict[str, str], place: DatabasePlace, found_in: str) -> Any:
    name = known.get(place.engine)
    if name is None:
        raise UnsupportedError(
            "the database engine is {0} ({1}); this version of papermerge.backup knows {2}".format(
                place.engine, found_in, ", ".join(DATABASES)
            )
        )
    module, _dot, kind = name.rpartition(".")
    package = __name__.rpartition(".")[0]
    return getattr(import_module("{0}.{1}".format(package, module)), kind)
