# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's client programs: how they learn where to connect, and which of several releases fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Optional

from ...errors import ToolError
from ..client import Client
from ..place import DatabasePlace

PACKAGE = "postgresql-client"
CONNECT_SECONDS = 15
APPLICATION = "papermerge.backup"
#: Debian keeps each major version's programs apart, as do the packages of postgresql.org for other systems.
PROGRAM_DIRECTORIES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
#: Connection options that libpq knows, and the variables by which its programs take them
#: (https://www.postgresql.org/docs/current/libpq-envars.html). What else stands in a URL is for Papermerge's driver.
LIBPQ_OPTIONS: Dict[str, str] = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
#: pg_restore of this major version and later speaks of a setting that older servers do not know.
TRANSACTION_TIMEOUT_MAJOR = 17


@dataclass(frozen=True)
class Tool:
    """A client program: its path (in a container its name), major version, and its own words."""

    path: str
    major: int
    words: str


def environment_of(place: DatabasePlace, database: str) -> Dict[str, str]:
    """Return what tells libpq's programs where to connect; the password among it."""
    found = {
        "PGHOST": place.host,
        "PGPORT": str(place.port) if place.port else "",
        "PGUSER": place.user,
        "PGPASSWORD": place.password,
        "PGDATABASE": database,
        "PGAPPNAME": APPLICATION,
        "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
    }
    for name, value in place.options:
        if name in LIBPQ_OPTIONS:
            found[LIBPQ_OPTIONS[name]] = value
    return {name: value for name, value in found.items() if value}


def client_of(place: DatabasePlace, database: str = "") -> Client:
    """Return the client programs for a database of a place: its own, or another one of the same server."""
    return Client(place, environment_of(place, database or place.name), PROGRAM_DIRECTORIES)


def client_version(client: Client, program: str) -> Tool:
    """Return what a client program says of itself. Raises ToolError."""
    with client.start([program, "--version"]) as run:
        words = b"".join(run.output()).decode("utf-8", "replace").strip()
        status = run.finish()
        found = re.search(r"\) (\d+)", words)
        if status != 0 or not found:
            raise ToolError("{0} --version fails with status {1}: {2}".format(program, status, run.complaint or words))
    return Tool(program, int(found.group(1)), words)


def tools(client: Client, program: str) -> List[Tool]:
    """Return every release of a client program that there is, oldest first. Raises ToolError when there is none."""
    found: List[Tool] = []
    problem: Optional[ToolError] = None
    for path in client.find_all(program):
        try:
            found.append(client_version(client, path))
        except ToolError as error:
            problem = error
    if not found:
        raise problem or client.missing(program, PACKAGE)
    return sorted(found, key=lambda tool: tool.major)


def dump_tool(client: Client, place: DatabasePlace, server: int) -> Tool:
    """Return the pg_dump that fits a server of this major version best. Raises ToolError when all are older."""
    found = tools(client, "pg_dump")
    for tool in found:
        # The oldest that will do: what it writes can be read by most.
        if tool.major >= server:
            return tool
    raise ToolError(
        "{0} is of PostgreSQL {1}, older than the server's {2} ({3}); install {4}-{2}".format(
            found[-1].path, found[-1].major, server, place.url, PACKAGE
        )
    )


def restore_tool(client: Client, reader: int, server: int) -> Tool:
    """Return the pg_restore that copes with archives of this major version and fits the server best: the oldest that is
    no older than the server. Raises ToolError.
    """
    found = tools(client, "pg_restore")
    fit = [tool for tool in found if tool.major >= reader]
    if not fit:
        raise ToolError(
            "the dump was made by pg_dump of PostgreSQL {0} or later, and {1} is of PostgreSQL {2}, which cannot "
            "restore it; install {3}-{0} or later".format(reader, found[-1].path, found[-1].major, PACKAGE)
        )
    return next((tool for tool in fit if tool.major >= server), fit[-1])
