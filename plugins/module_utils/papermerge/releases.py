# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release lines of Papermerge that this collection knows: one line, one entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from ..errors import UnsupportedError


class ExpectedRow(NamedTuple):
    """A version row of the database.

    ``path`` relative to the media root, or None where no file has to exist. ``older`` counts the versions behind this
    row whose paths cannot be computed. ``directory`` is where all files of the document's originals lie.
    """

    row: str
    key: str
    path: Optional[bytes]
    directory: bytes
    older: int


@dataclass(frozen=True)
class ReleaseLine:
    """What a release line of Papermerge looks like from outside.

    ``versions``: the first numbers of its versions. ``layout``: a name for the media layout. ``originals`` and
    ``derived``: directories below the media root. ``count_tables``: tables worth comparing, present or not.
    ``documents_table``: the one with a row a document.
    ``rows_query`` selects what ``expected_row`` builds a row from; ``key_query`` finds a row again by its key.
    """

    name: str
    versions: Tuple[Tuple[int, ...], ...]
    layout: str
    originals: Tuple[bytes, ...]
    derived: Tuple[bytes, ...]
    engines: Tuple[str, ...]
    required_tables: Tuple[str, ...]
    count_tables: Tuple[str, ...]
    documents_table: str
    schema_marker_query: str
    rows_query: str
    key_query: str
    expected_row: Callable[[Tuple[Any, ...]], ExpectedRow]


def _user_document_row(columns: Tuple[Any, ...]) -> ExpectedRow:
    """Papermerge 1.x and 2.0: one row a document, holding the number of its newest version.

    ``docs/user_U/document_D/[vN/]FILE``; versions start at 0. The pipeline may change file_name with a new version, so
    the paths of older versions are unknown to the database.
    """
    document, user, file_name, version, page_count = columns
    number = int(version or 0)
    directory = b"docs/user_%d/document_%d" % (user, document)
    path = None
    if file_name and page_count:
        folder = b"/v%d/" % number if number > 0 else b"/"
        path = directory + folder + str(file_name).encode("utf-8", "surrogateescape")
    return ExpectedRow("document {0}, version {1}".format(document, number), str(document), path, directory, number)


_DJANGO_MARKER = "select name from django_migrations where app = 'core' order by name desc limit 1"
_USER_DOCUMENT_TABLES = (
    "core_user",
    "core_basetreenode",
    "core_folder",
    "core_document",
    "core_page",
    "core_tag",
    "core_coloredtag",
    "core_kvstorenode",
    "core_kvstorepage",
    "core_automate",
    "core_access",
    "core_role",
    "auth_group",
)


def _user_document_line(name: str, versions: Tuple[Tuple[int, ...], ...]) -> ReleaseLine:
    return ReleaseLine(
        name=name,
        versions=versions,
        layout="user_document",
        originals=(b"docs",),
        derived=(b"results",),
        engines=("sqlite",),
        required_tables=("core_document", "core_basetreenode", "django_migrations"),
        count_tables=_USER_DOCUMENT_TABLES,
        documents_table="core_document",
        schema_marker_query=_DJANGO_MARKER,
        rows_query="select d.basetreenode_ptr_id, n.user_id, d.file_name, d.version, d.page_count"
        " from core_document d join core_basetreenode n on n.id = d.basetreenode_ptr_id"
        " order by d.basetreenode_ptr_id",
        key_query="select 1 from core_document where basetreenode_ptr_id = ?",
        expected_row=_user_document_row,
    )


RELEASE_LINES: Dict[str, ReleaseLine] = {
    line.name: line
    for line in (
        _user_document_line("1.x", ((1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5))),
        _user_document_line("2.0", ((2, 0),)),
    )
}


def release_line_of(version: str) -> ReleaseLine:
    """Return the release line of a version such as ``2.0.2``. Raises UnsupportedError for one that is not known."""
    numbers = []
    for piece in version.split(".")[:2]:
        digits = ""
        for character in piece:
            if not character.isdigit():
                break
            digits += character
        numbers.append(int(digits) if digits else -1)
    for line in RELEASE_LINES.values():
        if tuple(numbers) in line.versions:
            return line
    raise UnsupportedError(
        "Papermerge {0} belongs to none of the release lines that this version of papermerge.backup knows ({1})".format(
            version, ", ".join(RELEASE_LINES)
        )
    )


def release_line_named(name: str) -> ReleaseLine:
    """Return the release line with this name. Raises UnsupportedError."""
    line = RELEASE_LINES.get(name)
    if line is None:
        raise UnsupportedError(
            "release line {0} is not known to this version of papermerge.backup ({1})".format(
                name, ", ".join(RELEASE_LINES)
            )
        )
    return line
