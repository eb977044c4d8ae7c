# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Papermerge 2.1 and 3.0 to 3.2 without Django: papermerge.toml and the environment, which wins."""

from __future__ import annotations

import os
from typing import Any, Dict, NamedTuple, Optional, Tuple

from ..database.place import DatabasePlace, parse_database_url
from ..errors import SettingError
from .environment import DEFAULT_DATABASE
from .settings import DATABASE_HINT, MEDIA_HINT, ObjectStorage, Variables, below, engine_of, port_of
from .toml import TomlError, Unreadable, read_toml


class SettingsText(NamedTuple):
    """A settings file: its path and what stands in it, None to be read from this host when it is needed."""

    path: str
    text: Optional[str] = None


def configula_file(variables: Variables, working_directory: str, system_root: str = "/") -> Optional[str]:
    """Return the papermerge.toml that Papermerge would load, or None.

    Its order: /etc/papermerge, /etc, the working directory, and PAPERMERGE__CONFIG only where none of them exists.
    """
    places = [
        os.path.join(system_root, "etc/papermerge/papermerge.toml"),
        os.path.join(system_root, "etc/papermerge.toml"),
        os.path.join(working_directory, "papermerge.toml"),
    ]
    named = variables.get("PAPERMERGE__CONFIG")
    if named:
        places.append(below(working_directory, named))
    return next((path for path in places if os.path.isfile(path)), None)


class ConfigulaSettings:
    """papermerge.toml and the variables ``PAPERMERGE__SECTION__NAME``."""

    def __init__(
        self,
        variables: Variables,
        by_url: bool,
        project_directory: str,
        working_directory: str,
        toml: Optional[SettingsText] = None,
    ) -> None:
        """``by_url``: the database is a URL in the environment (3.0 to 3.2), otherwise a section of its own (2.1)."""
        self._variables = variables
        self._by_url = by_url
        self._project = project_directory
        self._directory = working_directory
        self._toml = toml
        self._tables: Optional[Dict[str, Any]] = None

    def media(self) -> Tuple[str, str]:
        value, where = self._get("main", "media_root", MEDIA_HINT)
        if value is None:
            return below(self._project, "media"), "default of project {0}".format(self._project)
        return below(self._directory, value), where

    def database(self) -> Tuple[DatabasePlace, str]:
        return self._database_url() if self._by_url else self._database_section()

    def storage(self) -> Optional[ObjectStorage]:
        return None

    def _database_url(self) -> Tuple[DatabasePlace, str]:
        name = "PAPERMERGE__DATABASE__URL"
        value = self._variables.get(name)
        if value is None:
            where = "default of Papermerge 3.0 to 3.2; {0} is not set in {1}".format(name, self._variables.found_in)
            return parse_database_url(DEFAULT_DATABASE, where), where
        where = self._variables.where(name)
        return parse_database_url(value, where, self._directory), where

    def _database_section(self) -> Tuple[DatabasePlace, str]:
        kind, where = self._get("database", "type", DATABASE_HINT)
        engine = engine_of(kind, where) if kind is not None else "sqlite"
        if engine == "sqlite":
            directory, found_in = self._get("database", "dir", DATABASE_HINT)
            if directory is None:
                found_in = "default of project {0}".format(self._project)
            path = below(self._directory, os.path.join(directory or self._project, "db.sqlite3"))
            return DatabasePlace("sqlite", path), found_in
        values = {name: self._get("database", name, DATABASE_HINT) for name in ("name", "user", "password", "host")}
        port, port_found_in = self._get("database", "port", DATABASE_HINT)
        place = DatabasePlace(
            engine,
            name=values["name"][0] or "papermerge",
            user=values["user"][0] or "papermerge",
            password=values["password"][0] or "",
            host=values["host"][0] or "localhost",
            port=port_of(port, port_found_in),
        )
        return place, where

    def _get(self, section: str, name: str, hint: str) -> Tuple[Optional[str], str]:
        """Return (value as a text, where it was found), None for one that is not set."""
        variable = "PAPERMERGE__{0}__{1}".format(section, name).upper()
        value: Any = self._variables.get(variable)
        if value is not None:
            return str(value), self._variables.where(variable)
        if self._toml is None:
            return None, self._variables.found_in
        where = "{0} of [{1}] in {2}".format(name, section, self._toml.path)
        table = self._read(self._toml).get(section, {})
        value = table.get(name) if isinstance(table, dict) else table
        if value is None:
            return None, self._toml.path
        if isinstance(value, (Unreadable, dict, list)):
            raise SettingError("{0} is neither a text nor a whole number; {1}".format(where, hint))
        return str(value), where

    def _read(self, toml: SettingsText) -> Dict[str, Any]:
        if self._tables is None:
            try:
                text = toml.text
                if text is None:
                    with open(toml.path, encoding="utf-8") as stream:
                        text = stream.read(1 << 20)
                self._tables = read_toml(text)
            except (OSError, UnicodeDecodeError, TomlError) as error:
                raise SettingError(
                    "{0} cannot be read: {1}; {2} and papermerge_backup_database_url".format(
                        toml.path, error, MEDIA_HINT
                    )
                ) from None
        return self._tables
