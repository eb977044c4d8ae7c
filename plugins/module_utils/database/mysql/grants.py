# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an account may do, as ``SHOW GRANTS`` tells it, and the statement that gives it what it lacks."""

from __future__ import annotations

import re
from typing import FrozenSet, Iterable, List, NamedTuple, Set

from .session import Session, quote_name, quote_text

ALL = "ALL PRIVILEGES"
#: What it takes to make a schema, to fill it, and to move its tables out of it.
STAGE_RIGHTS = frozenset(("CREATE", "DROP", "ALTER", "INSERT", "SELECT", "INDEX", "REFERENCES", "LOCK TABLES"))
#: What it takes to make the schema that they are moved to, and to look into it.
TARGET_RIGHTS = frozenset(("CREATE", "ALTER", "INSERT", "SELECT"))
#: What Papermerge needs every day.
OWNER_RIGHTS = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE"))

_LINE = re.compile(r"GRANT (.+?) ON (?:TABLE )?(\*|`(?:[^`]|``)*`)\.\* TO ")


class Grant(NamedTuple):
    """Privileges on the schemas whose names match a pattern of LIKE; ``*`` for all."""

    privileges: FrozenSet[str]
    pattern: str


def parse_grant(line: str) -> List[Grant]:
    """Return what a line of SHOW GRANTS gives on whole schemas: one grant or none."""
    found = _LINE.match(line)
    if not found:
        return []
    pattern = found.group(2)
    if pattern != "*":
        pattern = pattern[1:-1].replace("``", "`")
    return [Grant(frozenset(word.strip().upper() for word in found.group(1).split(",")), pattern)]


def grants_of(session: Session) -> List[Grant]:
    """Return what the account of a session may do, its active roles included."""
    query = "show grants"
    if session.flavour == "MySQL" and session.version >= (8, 0):
        roles = session.value("select current_role()")
        if roles != "NONE":
            query += " for current_user() using " + roles
    return [grant for line in session.column(query) for grant in parse_grant(line)]


def missing_rights(grants: Iterable[Grant], schema: str, wanted: FrozenSet[str]) -> List[str]:
    """Return those of the wanted privileges that no grant gives on a schema, sorted."""
    held: Set[str] = set()
    for grant in grants:
        if grant.pattern == "*" or _matches(grant.pattern, schema):
            held |= wanted if ALL in grant.privileges or "ALL" in grant.privileges else grant.privileges
    return sorted(wanted - held)


def _matches(pattern: str, schema: str) -> bool:
    pieces = re.findall(r"\\.|.", pattern, re.DOTALL)
    expression = "".join(
        ".*" if piece == "%" else "." if piece == "_" else re.escape(piece[-1] if len(piece) == 2 else piece)
        for piece in pieces
    )
    # Servers differ in whether case matters; too few rights show themselves at the first statement.
    return re.fullmatch(expression, schema, re.DOTALL | re.IGNORECASE) is not None


def grant_statement(pattern: str, account: str) -> str:
    """Return what an administrator runs. ``account``: user@host, as CURRENT_USER() tells it."""
    user, _at, host = account.rpartition("@")
    return "GRANT {0} ON {1}.* TO {2}@{3};".format(ALL, quote_name(pattern), quote_text(user), quote_text(host))


def exactly(schema: str) -> str:
    """Return the pattern that matches this name only."""
    return re.sub(r"([\\%_])", r"\\\1", schema)
