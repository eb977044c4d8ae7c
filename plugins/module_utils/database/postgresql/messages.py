# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PostgreSQL server or its client programs say when something fails, and what to do about it."""

from __future__ import annotations

import re
from typing import Callable, Tuple

from ...errors import BackupError, DatabaseError, SpaceError, ToolError
from ..place import DatabasePlace

#: What the server or libpq says, the error that it is, and what to do about it. The first that fits counts. A server
#: that speaks another language than English gets its words passed on without advice.
EXPLANATIONS: Tuple[Tuple[str, Callable[..., BackupError], str], ...] = (
    (
        r"unsupported startup parameter|no such database: |\bpgbouncer cannot connect",
        DatabaseError,
        "a connection pooler is in the way; name the server itself, or a database that the pooler knows",
    ),
    (r"server version mismatch", ToolError, "the client is older than the server; install a client of its version"),
    (
        (
            r"password authentication failed|no password supplied|authentication failed|SASL authentication"
            r"|no pg_hba\.conf entry|is not permitted to log in"
        ),
        DatabaseError,
        "the server refuses the login; correct the user and password of the URL",
    ),
    (
        r"role \"[^\"]*\" does not exist",
        DatabaseError,
        "the server has no such role; correct the user of the URL, or create the role",
    ),
    (r"database \"[^\"]*\" does not exist", DatabaseError, "the server has no such database; correct the URL's name"),
    (
        (
            r"affected by row-level security|permission denied (?:for|to) |must be owner"
            r"|must be superuser|must be member of"
        ),
        DatabaseError,
        "the account has not enough rights; use the owner of the database",
    ),
    (
        r"due to lock timeout|due to statement timeout[\s\S]*LOCK TABLE",
        DatabaseError,
        "a table is being changed, as by a migration; run again when that is done",
    ),
    (r"No space left on device|could not extend file", SpaceError, "the server has no room left; free some"),
    (
        r"too many connections|too many clients|connection slots",
        DatabaseError,
        "the server has no connection left; try again or raise its max_connections",
    ),
    (
        (
            r"closed the connection|terminating connection|shutting down|the database system is|server terminated"
            r"|no connection to the server|connection not open|connection to server was lost|connection already closed"
            r"|no message from the libpq"
            r"|SSL SYSCALL error: EOF|EOF detected|Connection reset by peer|Broken pipe"
        ),
        DatabaseError,
        "the server ended the connection; see its log and run again",
    ),
    (
        r"SSL|certificate",
        DatabaseError,
        "the connection cannot be encrypted as asked; look at sslmode and sslrootcert of the URL",
    ),
    (
        (
            r"is the server running|could not connect|could not translate|timeout expired|unreachable"
            r"|connection to server"
        ),
        DatabaseError,
        "the server cannot be reached; is it running, and are host and port right?",
    ),
)


def explain(place: DatabasePlace, what: str, words: str) -> BackupError:
    """Return the error for what the server or a client program said, without any password of ours in it."""
    said = [line.strip() for line in words.strip().splitlines() if line.strip()]
    # What ran into an error may be a statement with the rows of a table behind it.
    said = [line[:500] for line in said if not line.startswith("CONTEXT:")]
    text = " / ".join(said[-4:]) or "no reason given"
    for secret in place.secrets:
        text = text.replace(secret, "********")
    for pattern, kind, advice in EXPLANATIONS:
        if re.search(pattern, words, re.IGNORECASE):
            return kind("database {0} cannot be {1}: {2} ({3})".format(place.url, what, advice, text))
    return DatabaseError("database {0} cannot be {1}: {2}".format(place.url, what, text))
