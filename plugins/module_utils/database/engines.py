# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines by name. Adding one is adding a file, and a function and a line here.

Each is imported when it is needed: an agent is started often, and needs one of them at most. The imports are statements
because Ansible packs with a module what it finds imported so.
"""

from __future__ import annotations

from typing import Callable, Dict, Optional, Type, TypeVar

from ..errors import UnsupportedError
from .engine import Database, ServerTarget
from .place import DatabasePlace

Kind = TypeVar("Kind")


def _sqlite() -> Type[Database]:
    from .sqlite import SqliteDatabase

    return SqliteDatabase


def _postgresql() -> Type[Database]:
    from .postgresql.dump import PostgresDatabase

    return PostgresDatabase


def _postgresql_target() -> Type[ServerTarget]:
    from .postgresql.target import PostgresTarget

    return PostgresTarget


def _mysql() -> Type[Database]:
    from .mysql.dump import MysqlDatabase

    return MysqlDatabase


def _mysql_target() -> Type[ServerTarget]:
    from .mysql.target import MysqlTarget

    return MysqlTarget


DATABASES: Dict[str, Callable[[], Type[Database]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
}
TARGETS: Dict[str, Callable[[], Type[ServerTarget]]] = {
    "postgresql": _postgresql_target,
    "mysql": _mysql_target,
}


def database_at(place: DatabasePlace, found_in: str) -> Database:
    """Return the database at a place. Raises UnsupportedError for an engine that is not known."""
    return _class(DATABASES, place, found_in)(place, found_in)


def server_target(place: DatabasePlace, found_in: str, admin: Optional[DatabasePlace]) -> ServerTarget:
    """Return where a restore onto a server goes. Raises UnsupportedError."""
    return _class(TARGETS, place, found_in)(place, found_in, admin)


def _class(known: Dict[str, Callable[[], Type[Kind]]], place: DatabasePlace, found_in: str) -> Type[Kind]:
    load = known.get(place.engine)
    if load is None:
        raise UnsupportedError(
            "the database engine is {0} ({1}); this version of papermerge.backup knows {2}".format(
                place.engine, found_in, ", ".join(DATABASES)
            )
        )
    return load()
