# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Papermerge 3.3 and later: the environment alone says where everything is."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Tuple

from ..database.place import DatabasePlace, parse_database_url
from ..errors import SettingError
from .settings import DATABASE_HINT, ObjectStorage, Variables, below

#: Where 3.0 to 3.5 look for a database when nothing is said, and all of 3.x for media, below the working directory.
DEFAULT_DATABASE = "sqlite:////db/db.sqlite3"
DEFAULT_MEDIA = "media"


class EnvironmentSettings:
    """The variables ``PAPERMERGE__…`` of 3.3 to 3.5, or ``PM_…`` of 3.6 and later."""

    def __init__(self, variables: Variables, version: str, prefixed: bool, working_directory: str) -> None:
        """``prefixed``: the variables are those of 3.6, which begin with ``PM_``."""
        self._variables = variables
        self._version = version
        self._prefixed = prefixed
        self._directory = working_directory

    def media(self) -> Tuple[str, str]:
        name = "PM_MEDIA_ROOT" if self._prefixed else "PAPERMERGE__MAIN__MEDIA_ROOT"
        value = self._variables.get(name)
        if value is None:
            return below(self._directory, DEFAULT_MEDIA), self._default(name)
        return below(self._directory, value), self._variables.where(name)

    def database(self) -> Tuple[DatabasePlace, str]:
        name = "PM_DB_URL" if self._prefixed else "PAPERMERGE__DATABASE__URL"
        value, where = self._variables.get(name), self._variables.where(name)
        if value is None and self._prefixed:
            raise SettingError(
                "Papermerge {0} has its database in PM_DB_URL, which is not set in {1}; {2}".format(
                    self._version, self._variables.found_in, DATABASE_HINT
                )
            )
        if value is None:
            return parse_database_url(DEFAULT_DATABASE, name), self._default(name)
        place = parse_database_url(_as_sqlalchemy_reads(value), where, self._directory)
        if place.engine == "postgresql" and self._prefixed and self._variables.asks_for("PM_DB_SSL"):
            # It wins over what the URL says, as in Papermerge.
            options = [(option, given) for option, given in place.options if option != "sslmode"]
            place = replace(place, options=tuple(options + [("sslmode", "require")]))
        return place, where

    def storage(self) -> Optional[ObjectStorage]:
        if self._prefixed:
            backend = (self._variables.get("PM_STORAGE_BACKEND") or "local").lower()
            if backend == "local":
                return None
            bucket = self._variables.get("PM_BUCKET_NAME") or ""
            return ObjectStorage(backend, bucket, True, self._variables.where("PM_STORAGE_BACKEND"))
        server = (self._variables.get("PAPERMERGE__MAIN__FILE_SERVER") or "local").lower()
        bucket = self._variables.get("PAPERMERGE__S3__BUCKET_NAME") or ""
        if server == "local" and not bucket:
            return None
        name = "PAPERMERGE__MAIN__FILE_SERVER" if server != "local" else "PAPERMERGE__S3__BUCKET_NAME"
        return ObjectStorage("s3" if server == "local" else server, bucket, False, self._variables.where(name))

    def _default(self, name: str) -> str:
        return "default of Papermerge {0}; {1} is not set in {2}".format(self._version, name, self._variables.found_in)


def _as_sqlalchemy_reads(url: str) -> str:
    """Return a URL in which a SQLite path means what it means to SQLAlchemy, which decodes nothing in it."""
    if not url.startswith("sqlite"):
        return url
    path, question_mark, query = url.partition("?")
    return path.replace("%", "%25").replace("#", "%23") + question_mark + query
