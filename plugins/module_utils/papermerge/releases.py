# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release lines of Papermerge that this collection knows: one line, one entry of RELEASE_LINES.

What a document's files are called is one of three layouts, which several lines share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from ..errors import UnsupportedError
from . import tree
from .tree import DocumentTree


class ExpectedRow(NamedTuple):
    """A version row of the database.

    ``path`` relative to the media root, or None where no file has to exist. ``older`` counts the versions behind this
    row whose paths cannot be computed. ``directory`` is where all files of the document's originals lie. ``document``
    is the document's id as people read it, ``number`` the version's.
    """

    row: str
    key: str
    path: Optional[bytes]
    directory: bytes
    older: int
    document: str
    number: int


#: A column of a version row: SQLite answers with numbers, the clients of servers with text.
Column = Union[str, int, None]


@dataclass(frozen=True)
class Layout:
    """How a release line keeps a document's files below the media root.

    ``originals`` and ``derived``: directories. ``expected_row`` builds a row from the columns of a line's rows_query.
    """

    name: str
    originals: Tuple[bytes, ...]
    derived: Tuple[bytes, ...]
    expected_row: Callable[[Tuple[Any, ...]], ExpectedRow]


@dataclass(frozen=True)
class SearchIndex:
    """Where the search index is, and what rebuilds it after a restore; no command where nothing has to be done."""

    place: str
    rebuild: str


@dataclass(frozen=True)
class ReleaseLine:
    """What a release line of Papermerge looks like from outside.

    ``versions``: the first numbers of its versions. ``count_tables``: tables worth comparing, present or not; empty:
    all. ``documents_table``: the one with a row a document. ``schema_marker_query``: what tells the schema from its
    neighbours; ``schema_markers``: the answers that no other line gives. ``rows_query`` selects what the layout builds
    an expected row from; ``version_tables``: the tables it reads; ``key_column`` is the row's key in it. ``tree`` tells
    of titles and owners; None where nobody knows. ``processes`` are to be stopped for a restore; ``after_restore`` are
    its own commands.
    """

    name: str
    versions: Tuple[Tuple[int, ...], ...]
    files: Layout
    engines: Tuple[str, ...]
    required_tables: Tuple[str, ...]
    count_tables: Tuple[str, ...]
    documents_table: str
    schema_marker_query: str
    schema_markers: Tuple[str, ...]
    rows_query: str
    version_tables: Tuple[str, ...]
    key_column: str
    tree: Optional[DocumentTree]
    search_index: SearchIndex
    processes: Tuple[str, ...]
    after_restore: Tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether the line is one of the table: its expected files can be computed."""
        return bool(self.versions)

    @property
    def newest_version(self) -> str:
        """What stands for a version of which nothing but the line is known."""
        return ".".join(map(str, max(self.versions)))

    @property
    def layout(self) -> str:
        return self.files.name

    @property
    def originals(self) -> Tuple[bytes, ...]:
        return self.files.originals

    @property
    def derived(self) -> Tuple[bytes, ...]:
        return self.files.derived

    def expected_row(self, columns: Tuple[Any, ...]) -> ExpectedRow:
        """Build an expected row from what rows_query selects."""
        return self.files.expected_row(columns)


def _name(text: Column) -> bytes:
    return str(text).encode("utf-8", "surrogateescape")


def _dashed(value: Column) -> str:
    """Return a UUID as paths have it. PostgreSQL has a type for it; SQLite and MySQL keep 32 digits without dashes."""
    digits = str(value).replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _whole(value: Column) -> int:
    return int(value or 0)


def _user_document_row(columns: Tuple[Any, ...]) -> ExpectedRow:
    """Papermerge 1.x and 2.0: one row a document, holding the number of its newest version.

    ``docs/user_U/document_D/[vN/]FILE``; versions start at 0. The pipeline may change file_name with a new version, so
    the paths of older versions are unknown to the database.
    """
    document, user, file_name, version, page_count = columns
    number = _whole(version)
    directory = b"docs/user_%d/document_%d" % (int(user), int(document))
    path = None
    if file_name and _whole(page_count):
        path = directory + (b"/v%d/" % number if number > 0 else b"/") + _name(file_name)
    return ExpectedRow(
        "document {0}, version {1}".format(document, number),
        str(document),
        path,
        directory,
        number,
        str(document),
        number,
    )


def _row_of_version(document: str, number: Column, key: str, path: Optional[bytes], directory: bytes) -> ExpectedRow:
    row = "document {0}, version {1}".format(document, number)
    return ExpectedRow(row, key, path, directory, 0, document, _whole(number))


def _user_document_version_row(columns: Tuple[Any, ...]) -> ExpectedRow:
    """Papermerge 2.1: ``docs/user_U/document_D/[vN/]FILE`` with UUIDs; versions start at 1, 0 has no directory."""
    key, document, user, number, file_name, page_count = columns
    directory = "docs/user_{0}/document_{1}".format(_dashed(user), _dashed(document)).encode("ascii")
    path = None
    if file_name and _whole(page_count):
        path = directory + (b"/v%d/" % _whole(number) if _whole(number) > 0 else b"/") + _name(file_name)
    return _row_of_version(_dashed(document), number, str(key), path, directory)


def _version_row(columns: Tuple[Any, ...]) -> ExpectedRow:
    """Papermerge 3: ``docvers/ab/cd/VERSION/FILE``; VERSION is the version's UUID, ab and cd its first four digits.

    Releases up to 3.6 leave the size of a version that a page operation made at 0, so only file_name and page_count
    tell whether a file has to exist. In 3.6 the page count comes some time after the file.
    """
    key, document, number, file_name, page_count = columns
    version = _dashed(key)
    directory = "docvers/{0}/{1}/{2}".format(version[:2], version[2:4], version).encode("ascii")
    path = directory + b"/" + _name(file_name) if file_name and _whole(page_count) else None
    return _row_of_version(_dashed(document), number, str(key), path, directory)


def _no_row(columns: Tuple[Any, ...]) -> ExpectedRow:
    raise UnsupportedError("nobody knows which files {0!r} stands for".format(columns))


_OCR = (b"ocr", b"thumbnails")
_USER_DOCUMENT = Layout("user_document", (b"docs",), (b"results",), _user_document_row)
_USER_DOCUMENT_VERSION = Layout("user_document_version", (b"docs",), (b"sidecars",), _user_document_version_row)
_DOCUMENT_VERSIONS = Layout("document_versions", (b"docvers",), _OCR + (b"previews",), _version_row)
_UNKNOWN_LAYOUT = Layout("unknown", (), (), _no_row)

_DJANGO_MARKER = "select max(name) from django_migrations where app = 'core'"
_ALEMBIC_MARKER = "select version_num from alembic_version"

_DJANGO_1_TABLES = (
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
_DJANGO_2_TABLES = (
    "core_user",
    "core_basetreenode",
    "core_folder",
    "core_document",
    "core_documentversion",
    "core_page",
    "core_tag",
    "core_coloredtag",
    "auth_group",
)
_SQLALCHEMY_TABLES = (
    "users",
    "groups",
    "permissions",
    "users_groups",
    "nodes",
    "folders",
    "documents",
    "document_versions",
    "pages",
    "tags",
    "nodes_tags",
    "custom_fields",
    "custom_field_values",
    "document_types",
    "document_types_custom_fields",
)
_PERMISSION_TABLES = ("groups_permissions", "users_permissions")
_ROLE_TABLES = ("roles", "roles_permissions", "users_roles", "shared_nodes")
_3_6_TABLES = (
    "ownerships",
    "special_folders",
    "api_tokens",
    "audit_log",
    "document_search_index",
    "system_preferences",
    "user_preferences",
)

_XAPIAN = SearchIndex("xapian, whoosh, solr or elasticsearch beside the database", "manage.py rebuild_index --noinput")
_SALINIC = SearchIndex("PAPERMERGE__SEARCH__URL: xapian or solr", "manage.py index_schema apply && manage.py index")
#: Of 3.5.3 "paper-cli index index" does nothing and ends with status 0 all the same (seen to).
_I3WORKER = SearchIndex("PAPERMERGE__SEARCH__URL: xapian or solr, filled by i3worker", "paper-cli index-schema apply")
_TSVECTOR = SearchIndex("in the database, kept by triggers", "")
_IN_DATABASE = SearchIndex("none: the database is searched", "")

_WEB_AND_WORKER = ("application server", "worker")
_SQLITE_TOO = ("sqlite", "postgresql")
_PERMS_SYNC = ("paper-cli perms sync",)


def _user_document_line(name: str, versions: Tuple[Tuple[int, ...], ...], markers: Tuple[str, ...]) -> ReleaseLine:
    return ReleaseLine(
        name=name,
        versions=versions,
        files=_USER_DOCUMENT,
        engines=("sqlite", "postgresql", "mysql"),
        required_tables=("core_document", "core_basetreenode", "django_migrations"),
        count_tables=_DJANGO_1_TABLES,
        documents_table="core_document",
        schema_marker_query=_DJANGO_MARKER,
        schema_markers=markers,
        rows_query="select d.basetreenode_ptr_id, n.user_id, d.file_name, d.version, d.page_count"
        " from core_document d join core_basetreenode n on n.id = d.basetreenode_ptr_id",
        version_tables=("core_document", "core_basetreenode"),
        key_column="d.basetreenode_ptr_id",
        tree=tree.USER_DOCUMENTS,
        search_index=_IN_DATABASE,
        processes=_WEB_AND_WORKER,
        after_restore=("manage.py migrate --check",),
    )


def _django_version_line(
    name: str,
    versions: Tuple[Tuple[int, ...], ...],
    markers: Tuple[str, ...],
    files: Layout,
    columns: str,
    document_tree: DocumentTree,
    search_index: SearchIndex,
    processes: Tuple[str, ...],
) -> ReleaseLine:
    return ReleaseLine(
        name=name,
        versions=versions,
        files=files,
        engines=("sqlite", "postgresql", "mysql"),
        required_tables=("core_documentversion", "core_basetreenode", "django_migrations"),
        count_tables=_DJANGO_2_TABLES,
        documents_table="core_document",
        schema_marker_query=_DJANGO_MARKER,
        schema_markers=markers,
        rows_query="select {0} from core_documentversion v join core_basetreenode n on n.id = v.document_id".format(
            columns
        ),
        version_tables=("core_documentversion", "core_basetreenode"),
        key_column="v.id",
        tree=document_tree,
        search_index=search_index,
        processes=processes,
        after_restore=("manage.py migrate --check",),
    )


def _sqlalchemy_line(
    name: str,
    markers: Tuple[str, ...],
    engines: Tuple[str, ...],
    more_tables: Tuple[str, ...],
    document_tree: DocumentTree,
    search_index: SearchIndex,
    after_restore: Tuple[str, ...],
) -> ReleaseLine:
    numbers = tuple(int(number) for number in name.split("."))
    return ReleaseLine(
        name=name,
        versions=(numbers,),
        files=_DOCUMENT_VERSIONS,
        engines=engines,
        required_tables=("document_versions", "nodes", "alembic_version"),
        count_tables=_SQLALCHEMY_TABLES + more_tables,
        documents_table="documents",
        schema_marker_query=_ALEMBIC_MARKER,
        schema_markers=markers,
        # SQLite enforces no foreign keys here: versions of deleted documents stay, so the join with nodes decides.
        rows_query="select v.id, v.document_id, v.number, v.file_name, v.page_count"
        " from document_versions v join nodes n on n.id = v.document_id",
        version_tables=("document_versions", "nodes"),
        key_column="v.id",
        tree=document_tree,
        search_index=search_index,
        processes=("server", "ocrworker", "path-tmpl-worker", "s3worker", "i3worker"),
        after_restore=after_restore,
    )


RELEASE_LINES: Dict[str, ReleaseLine] = {
    line.name: line
    for line in (
        _user_document_line("1.x", ((1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)), ("0034_auto_20201201_1116",)),
        _user_document_line("2.0", ((2, 0),), ("0039_auto_20210216_1014",)),
        _django_version_line(
            "2.1",
            ((2, 1),),
            (
                "0003_alter_basetreenode_polymorphic_ctype_and_more",
                "0006_alter_basetreenode_options_remove_basetreenode_level_and_more",
                "0009_remove_basetreenode_unique title per parent_and_more",
            ),
            _USER_DOCUMENT_VERSION,
            "v.id, v.document_id, n.user_id, v.number, v.file_name, v.page_count",
            tree.USER_DOCUMENT_VERSIONS,
            _XAPIAN,
            ("backend", "ws_server", "worker"),
        ),
        _django_version_line(
            "3.0-3.2",
            ((3, 0), (3, 1), (3, 2)),
            ("0001_initial",),
            _DOCUMENT_VERSIONS,
            "v.id, v.document_id, v.number, v.file_name, v.page_count",
            tree.DOCUMENT_VERSIONS,
            _SALINIC,
            ("server", "worker"),
        ),
        _sqlalchemy_line(
            "3.3",
            ("f0e0da122a9a",),
            _SQLITE_TOO,
            _PERMISSION_TABLES,
            tree.OWNED_BY_USERS,
            _I3WORKER,
            _PERMS_SYNC,
        ),
        _sqlalchemy_line(
            "3.4",
            ("bafd773c8533",),
            _SQLITE_TOO,
            _PERMISSION_TABLES,
            tree.OWNED_BY_USERS,
            _I3WORKER,
            _PERMS_SYNC,
        ),
        _sqlalchemy_line(
            "3.5",
            ("2118951c4d90", "b2350127890a", "50ef5a403d27"),
            _SQLITE_TOO,
            _ROLE_TABLES,
            tree.OWNED_BY_GROUPS,
            _I3WORKER,
            _PERMS_SYNC,
        ),
        _sqlalchemy_line(
            "3.6",
            ("a07f7fbbcca8", "c1fa0c57ba3e", "bb19aac50bca"),
            ("postgresql",),
            _ROLE_TABLES + _3_6_TABLES,
            tree.OWNED_BY_OWNERSHIPS,
            _TSVECTOR,
            ("pm perms sync",),
        ),
    )
}

#: A release that is newer than the table: everything is archived, and nobody knows which files are expected.
UNKNOWN_LINE = ReleaseLine(
    name="unknown",
    versions=(),
    files=_UNKNOWN_LAYOUT,
    engines=("sqlite", "postgresql", "mysql"),
    required_tables=(),
    count_tables=(),
    documents_table="documents",
    schema_marker_query="",
    schema_markers=(),
    rows_query="",
    version_tables=(),
    key_column="",
    tree=None,
    search_index=SearchIndex("unknown", ""),
    processes=(),
    after_restore=(),
)
#: Where an unknown line may keep the mark of its schema: the table, and what asks for it.
SCHEMA_MARKERS: Tuple[Tuple[str, str], ...] = (
    ("alembic_version", _ALEMBIC_MARKER),
    ("django_migrations", _DJANGO_MARKER),
)


def release_line_of(version: str) -> ReleaseLine:
    """Return the release line of a version such as ``2.0.2``; UNKNOWN_LINE for one that the table does not have."""
    numbers: List[int] = []
    for piece in version.split(".")[:2]:
        digits = re.match(r"\d*", piece)
        numbers.append(int(digits.group()) if digits and digits.group() else -1)
    for line in RELEASE_LINES.values():
        if tuple(numbers) in line.versions:
            return line
    return UNKNOWN_LINE


def release_line_named(name: str) -> ReleaseLine:
    """Return the release line with this name. Raises UnsupportedError."""
    line = UNKNOWN_LINE if name == UNKNOWN_LINE.name else RELEASE_LINES.get(name)
    if line is None:
        raise UnsupportedError(
            "release line {0} is not known to this version of papermerge.backup ({1})".format(
                name, ", ".join(RELEASE_LINES)
            )
        )
    return line
