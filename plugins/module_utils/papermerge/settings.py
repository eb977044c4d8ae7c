# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Papermerge's own settings say of media, database and storage, and what all their readers share."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Protocol, Tuple

from ..database.place import ENGINES, DatabasePlace
from ..errors import SettingError

#: How DBTYPE of papermerge.conf.py, [database] type of papermerge.toml and Django name an engine.
DATABASE_TYPES = {
    "pg": "postgresql",
    "postgre": "postgresql",
    "postgresql_psycopg2": "postgresql",
    "postgis": "postgresql",
    "my": "mysql",
    "maria": "mysql",
    "sqlite3": "sqlite",
    **ENGINES,
}
MEDIA_HINT = "set papermerge_backup_media_root"
DATABASE_HINT = "set papermerge_backup_database_url"
#: The variables that decide where an instance keeps its media, its database, and whether in a bucket.
MEDIA_VARIABLES = re.compile(
    r"(DJANGO_SETTINGS_MODULE|PAPERMERGE_CONFIG|PAPERMERGE__CONFIG|PAPERMERGE__MAIN__MEDIA_ROOT|PM_MEDIA_ROOT)\Z", re.I
)
DATABASE_VARIABLES = re.compile(
    r"(DJANGO_SETTINGS_MODULE|PAPERMERGE_CONFIG|PAPERMERGE__CONFIG|PAPERMERGE__DATABASE__\w+|PM_DB_URL|PM_DB_SSL"
    r"|POSTGRES_(DB|USER|PASSWORD|HOST|PORT))\Z",
    re.I,
)
STORAGE_VARIABLES = re.compile(
    r"(PAPERMERGE__MAIN__FILE_SERVER|PAPERMERGE__S3__BUCKET_NAME|PM_STORAGE_BACKEND|PM_BUCKET_NAME)\Z", re.I
)
#: Options of Django's connections that say how a server is reached. The others mean something to Django alone.
CONNECTION_OPTIONS = {
    "postgresql": (
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "krbsrvname",
        "passfile",
        "service",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
    ),
    "mysql": ("connect_timeout", "read_default_file", "read_default_group", "ssl_mode"),
}
SECRET_VARIABLES = re.compile(r"URL|PASS|SECRET|KEY|TOKEN|CREDENTIAL", re.I)


@dataclass(frozen=True)
class ObjectStorage:
    """A bucket that holds originals. ``only``: they are nowhere else; otherwise it mirrors the media directory."""

    backend: str
    bucket: str
    only: bool
    found_in: str

    def as_dict(self) -> Dict[str, Any]:
        return {"backend": self.backend, "bucket": self.bucket, "only": self.only, "found_in": self.found_in}


@dataclass(frozen=True)
class Settings:
    """Media root (absolute) and database, each with the place where it was found, and the bucket if there is one."""

    media_root: str
    media_found_in: str
    database: DatabasePlace
    database_found_in: str
    storage: Optional[ObjectStorage] = None


class SettingsSource(Protocol):
    """Settings of one installation. Each part is read when it is asked for, so that what is set by hand is not read.

    The methods raise SettingError for what cannot be read or understood.
    """

    def media(self) -> Tuple[str, str]:
        """Return (media root, where it was found)."""

    def database(self) -> Tuple[DatabasePlace, str]:
        """Return (place, where it was found)."""

    def storage(self) -> Optional[ObjectStorage]:
        """Return the bucket with originals, or None."""


def settings_of(source: SettingsSource) -> Settings:
    """Read a source whole. Raises SettingError."""
    return Settings(*source.media(), *source.database(), source.storage())


class Variables:
    """An environment whose variables know where they were found. An empty variable counts as one that is not set."""

    def __init__(self, environment: Mapping[str, str], found_in: str, places: Optional[Mapping[str, str]] = None):
        """``places``: for a variable's name what takes the place of ``found_in``."""
        # pydantic, which reads them since 3.3, looks for a name in any case.
        names = sorted(environment, key=lambda name: name.isupper())
        self._names = {name.upper(): name for name in names if environment[name] != ""}
        self._environment = environment
        self._places = places or {}
        self.found_in = found_in

    def get(self, name: str) -> Optional[str]:
        return self._environment[self._names[name]] if name in self._names else None

    def where(self, name: str) -> str:
        written = self._names.get(name, name)
        return "{0} in {1}".format(written, self._places.get(written, self.found_in))

    def asks_for(self, name: str) -> bool:
        """Tell whether a variable is set to what pydantic takes for true."""
        return (self.get(name) or "").lower() in ("1", "true", "t", "yes", "y", "on")


def below(directory: str, path: str) -> str:
    """Return a path of a setting as an absolute one."""
    return os.path.normpath(os.path.join(directory, path))


def engine_of(kind: str, found_in: str) -> str:
    """Return the engine that a setting names. Raises SettingError."""
    engine = DATABASE_TYPES.get(kind.lower())
    if engine is None:
        raise SettingError("{0} names the unknown database engine {1!r}; {2}".format(found_in, kind, DATABASE_HINT))
    return engine


def port_of(value: Any, found_in: str) -> int:
    """Return a port, 0 for one that is not set. Raises SettingError."""
    text = str(value if value is not None else "").strip()
    if text and not text.isdigit():
        raise SettingError("{0} has the port {1!r}, which is no number; {2}".format(found_in, text, DATABASE_HINT))
    return int(text or 0)


def connection_options(engine: str, given: Mapping[str, Any]) -> Tuple[Tuple[str, str], ...]:
    """Return what of Django's OPTIONS says how a server is reached; MySQL's ``ssl`` as ssl_ca, ssl_cert, ssl_key."""
    found = {name: value for name, value in given.items() if name in CONNECTION_OPTIONS[engine]}
    certificates = given.get("ssl")
    if engine == "mysql" and isinstance(certificates, dict):
        found.update({"ssl_" + name: value for name, value in certificates.items()})
    return tuple((name, str(value)) for name, value in found.items() if isinstance(value, (str, int)))


def hidden(text: str, environment: Mapping[str, str]) -> str:
    """Return a text without what the secret variables of an environment hold."""
    for name, value in environment.items():
        if len(value) > 3 and SECRET_VARIABLES.search(name):
            text = text.replace(value, "…")
            for piece in re.findall(r"://[^:/@]*:(.+)@", value):
                text = text.replace(piece, "…")
    return text
