# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's client programs: how they learn where to connect, and which of several releases fits."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Tuple

from ...errors import DamageError, ToolError
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
#: How an archive begins; its version follows, in a byte for each number.
MAGIC = b"PGDMP"
#: The major version of pg_dump since which an archive has this version, which older pg_restores do not read.
ARCHIVE_MAJORS = (((1, 16), 17), ((1, 15), 16), ((0, 0), 12))
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


def archive_major(content: Iterator[bytes]) -> Tuple[int, Iterator[bytes]]:
    """Return the oldest major version whose pg_restore reads an archive, and the content again.

    Raises DamageError for what is no archive.
    """
    head = b""
    for piece in content:
        head += piece
        if len(head) >= len(MAGIC) + 2:
            break
    if not head.startswith(MAGIC) or len(head) < len(MAGIC) + 2:
        raise DamageError(
            "this is no dump that pg_dump --format=custom has made: it begins with {0!r}".format(head[:5])
        )
    version = (head[len(MAGIC)], head[len(MAGIC) + 1])
    return next(major for since, major in ARCHIVE_MAJORS if version >= since), itertools.chain([head], content)


def reader_major(dumped_by: int) -> int:
    """Return the oldest major version whose pg_restore reads what this one's pg_dump has written."""
    return next((major for _since, major in ARCHIVE_MAJORS if dumped_by >= major), ARCHIVE_MAJORS[-1][1])


def restore_tool(client: Client, reader: int, server: int) -> Tool:
    """Return the pg_restore that reads archives of this major version and fits the server best. Raises ToolError."""
    found = tools(client, "pg_restore")
    fit = [tool for tool in found if tool.major >= reader]
    if not fit:
        raise ToolError(
            "the dump was made by pg_dump of PostgreSQL {0} or later, and {1} is of PostgreSQL {2}, which cannot read "
            "it; install {3}-{0} or later".format(reader, found[-1].path, found[-1].major, PACKAGE)
        )
    return next((tool for tool in fit if tool.major == server), fit[0])
