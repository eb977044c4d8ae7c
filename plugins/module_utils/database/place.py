# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a database is: the URL of ``papermerge_backup_database_url``, as Papermerge 3 writes it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict
from urllib.parse import unquote, urlsplit

from ..errors import SettingError, UnsupportedError

ENGINES: Dict[str, str] = {
    "sqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}


@dataclass(frozen=True)
class DatabasePlace:
    """An engine and, for SQLite, the absolute path of the file."""

    engine: str
    path: str = ""

    @property
    def url(self) -> str:
        """The place as a URL without any password."""
        return "sqlite:///" + self.path if self.engine == "sqlite" else self.engine + "://"


def parse_database_url(url: str, found_in: str) -> DatabasePlace:
    """Read a database URL. Raises SettingError for one that names no place, naming where it was found."""
    parts = urlsplit(url)
    scheme = parts.scheme.split("+")[0]
    engine = ENGINES.get(scheme)
    if engine is None:
        raise SettingError(
            "the database URL in {0} starts with {1!r}; expected one of {2}".format(
                found_in, scheme, ", ".join(name + "://" for name in ENGINES)
            )
        )
    if engine != "sqlite":
        return DatabasePlace(engine)
    path = unquote(parts.path)[1:]
    if parts.netloc or not os.path.isabs(path):
        raise SettingError(
            "the SQLite URL in {0} must hold an absolute path, with four slashes: "
            "sqlite:////srv/papermerge/db.sqlite3; found {1!r}".format(found_in, url)
        )
    return DatabasePlace(engine, os.path.normpath(path))


def require_supported(place: DatabasePlace, found_in: str) -> None:
    """Raise UnsupportedError for an engine that this version of the collection cannot dump."""
    if place.engine != "sqlite":
        raise UnsupportedError(
            "the database engine is {0} ({1}); this version of papermerge.backup can back up "
            "and restore SQLite only".format(place.engine, found_in)
        )
