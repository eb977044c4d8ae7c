# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a database is: the URL of ``papermerge_backup_database_url``, as Papermerge 3 writes it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ..errors import SettingError

ENGINES: Dict[str, str] = {
    "sqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
DEFAULT_PORTS: Dict[str, int] = {"postgresql": 5432, "mysql": 3306}
#: What asyncpg calls the option that libpq calls sslmode: Papermerge 3.5.3 reads the former.
OPTION_NAMES: Dict[str, str] = {"ssl": "sslmode"}
SSL_VALUES: Dict[str, str] = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
#: Options of SQLAlchemy and asyncpg, which libpq would refuse and which do not say where the database is.
DRIVER_OPTIONS = (
    "async_fallback",
    "command_timeout",
    "max_cached_statement_lifetime",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "statement_cache_size",
)
#: SQLAlchemy takes a password as it stands up to the @, with characters that end the host part in any other URL.
PASSWORD = re.compile(r"(?P<head>[\w+.-]+://[^:/@?#\[]*:)(?P<password>[^@]*)(?P<tail>@.*)\Z", re.DOTALL)
#: What looks like such a password and is none: a port, a database name, and an @ in the query.
PORT_AND_QUERY = re.compile(r"[0-9]*/[^/?#]*\?[^=]+=")
#: What takes the place of these parts of a URL when they stand in its query, as libpq allows.
QUERY_PLACES = ("host", "port", "user", "password", "dbname")


@dataclass(frozen=True)
class DatabasePlace:
    """An engine and where it keeps the database.

    SQLite: ``path``, absolute. A server: database ``name``, ``host`` (empty: the engine's default socket; a path: the
    socket's directory, or with MySQL the socket itself), ``port`` (0: the default), ``user`` (empty: whoever asks),
    ``password``, and ``options`` of the connection such as sslmode. ``container``: the container whose own client
    programs reach the server; empty for a server that the host itself reaches.
    """

    engine: str
    path: str = ""
    name: str = ""
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    options: Tuple[Tuple[str, str], ...] = ()
    container: str = ""

    @property
    def url(self) -> str:
        """The place as a URL without any password."""
        if self.engine == "sqlite":
            return "sqlite:///" + quote(self.path, errors="surrogateescape")
        user = quote(self.user, safe="") + "@" if self.user else ""
        port = ":{0}".format(self.port) if self.port else ""
        host = quote(self.host, safe="") if self.host.startswith("/") else self.host
        if ":" in host:
            host = "[{0}]".format(host)
        # Such as sslpassword.
        shown = [(name, value) for name, value in self.options if "password" not in name.lower()]
        query = "&".join(quote(name, safe="") + "=" + quote(value, safe="") for name, value in shown)
        return "{0}://{1}{2}{3}/{4}{5}".format(
            self.engine, user, host, port, quote(self.name, safe=""), "?" + query if query else ""
        )

    @property
    def secrets(self) -> List[str]:
        """Return what must not be shown: the passwords and how a URL spells them, longest first."""
        passwords = [self.password] + [value for name, value in self.options if "password" in name.lower()]
        found = {text for word in passwords for text in (word, quote(word, safe=""), quote(word))}
        return sorted(found - {""}, key=len, reverse=True)


def parse_database_url(url: str, found_in: str, base_directory: Optional[str] = None) -> DatabasePlace:
    """Read a database URL. Raises SettingError for one that names no place, naming where it was found.

    Understands driver suffixes (``postgresql+psycopg2://``), percent-encoding, missing parts, the directory of a socket
    as host (``postgresql://%2Frun%2Fpostgresql/papermerge`` or ``?host=/run/postgresql``). ``base_directory``: what the
    path of ``sqlite:///relative`` is relative to; without it such a URL is refused.
    """
    match = PASSWORD.match(url)
    if match and not PORT_AND_QUERY.match(match.group("password")):
        url = match.group("head") + quote(match.group("password"), safe="%") + match.group("tail")
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.split("+")[0], parts.port
    except ValueError:
        # Python's words quote what it could not read, which may be a part of the password.
        raise SettingError(
            "the database URL in {0} cannot be read: its port is no number from 1 to 65535, or special characters of "
            "its password are not percent-encoded".format(found_in)
        ) from None
    engine = ENGINES.get(scheme)
    if engine is None:
        raise SettingError(
            "the database URL in {0} starts with {1!r}; expected one of {2}".format(
                found_in, scheme, ", ".join(name + "://" for name in ENGINES)
            )
        )
    if engine == "sqlite":
        return _sqlite_place(parts.netloc, unquote(parts.path, errors="surrogateescape"), found_in, base_directory)
    query: Dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query[name] = value
    if any("@" in text for text in [parts.path, parts.fragment] + list(query)):
        # What stands before the first @ would be taken for the password, and the rest of it be shown as host and name.
        raise SettingError(
            "the database URL in {0} has an @ behind its host; percent-encode the special characters of its "
            "password, an @ as %40".format(found_in)
        )
    fields: Dict[str, Any] = {
        "host": _host(parts.netloc),
        "port": port or 0,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.lstrip("/")),
    }
    for name in QUERY_PLACES:
        if name in query:
            fields[name] = query.pop(name)
    if "unix_socket" in query:
        fields["host"] = query.pop("unix_socket")
    if not str(fields["port"]).isdigit():
        raise SettingError("the database URL in {0} has a port that is no number".format(found_in))
    if not fields["dbname"]:
        raise SettingError("the database URL in {0} names no database: {1}://…/NAME".format(found_in, scheme))
    return DatabasePlace(
        engine,
        name=fields["dbname"],
        host=fields["host"],
        port=int(fields["port"]),
        user=fields["user"],
        password=fields["password"],
        options=_postgresql_options(query) if engine == "postgresql" else tuple(query.items()),
    )


def _sqlite_place(server: str, path: str, found_in: str, base_directory: Optional[str]) -> DatabasePlace:
    """``path``: with the slash that ends ``sqlite://``; empty for a database in memory."""
    path = path[1:]
    if base_directory is not None and path and path != ":memory:":
        path = os.path.join(base_directory, path)
    if server or not os.path.isabs(path):
        raise SettingError(
            "the SQLite URL in {0} must hold an absolute path, with four slashes: "
            "sqlite:////srv/papermerge/db.sqlite3; found {1!r}".format(found_in, path)
        )
    return DatabasePlace("sqlite", os.path.normpath(path))


def _host(netloc: str) -> str:
    """Return the host, unlike urlsplit in the case in which it was written: it may be the path of a socket."""
    host = netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return unquote(host.partition(":")[0])


def _postgresql_options(query: Dict[str, str]) -> Tuple[Tuple[str, str], ...]:
    """Return the options of a connection as libpq understands them."""
    options: Dict[str, str] = {}
    for name, value in query.items():
        if name in OPTION_NAMES:
            options[OPTION_NAMES[name]] = SSL_VALUES.get(value.lower(), value)
        elif name not in DRIVER_OPTIONS:
            options[name] = value
    return tuple(options.items())
