# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a release line keeps what people see of a document: its title, its folders, its owner."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Pattern, Tuple


@dataclass(frozen=True)
class DocumentTree:
    """The queries for titles and owners, in SQL that SQLite understands, and the ``tables`` that they read.

    ``documents`` selects id, title, id of the folder (null at the top) and owner of every document, and ``title`` and
    ``document_id`` are how its conditions name two of these. ``nodes`` selects the same of every document and folder,
    without the owner; ``node_id`` is its key. ``version_document`` is what a release line's rows_query calls the
    document's id, ``version_file`` the file's name. ``owners`` selects (key, name) of whoever owns originals;
    ``owners_key`` is that key's name in it, and ``owner_key`` finds it in an original's path. ``growing`` are tables
    that have rows for each document with its UUID, while those of folders have ``folder`` as the value of a column;
    empty where that is not so.
    """

    tables: Tuple[str, ...]
    documents: str
    title: str
    document_id: str
    nodes: str
    node_id: str
    version_document: str
    version_file: str
    owners: str
    owners_key: str
    owner_key: Pattern[bytes]
    growing: Tuple[str, ...] = ()


_USER_DIRECTORY = re.compile(rb"docs/user_([^/]+)/")
_VERSION_DIRECTORY = re.compile(rb"docvers/[^/]+/[^/]+/([^/]+)/")

#: By what the owner of node n is found: nodes belong to users, since 3.5 also to groups, since 3.6 by a table.
_USER = ("u.username", "left join {users} u on u.id = n.user_id")
_USER_OR_GROUP = (
    "coalesce(u.username, g.name)",
    "left join users u on u.id = n.user_id left join groups g on g.id = n.group_id",
)
_OWNERSHIP = (
    "coalesce(u.username, g.name)",
    (
        "left join ownerships o on o.resource_type = 'node' and o.resource_id = n.id"
        " left join users u on o.owner_type = 'user' and u.id = o.owner_id"
        " left join groups g on o.owner_type = 'group' and g.id = o.owner_id"
    ),
)


def _django(versions: bool, own_by_version: bool) -> DocumentTree:
    name, join = _USER[0], _USER[1].format(users="core_user")
    owners = "select u.id, u.username from core_user u"
    if own_by_version:
        owners = (
            "select v.id, {0} from core_documentversion v join core_basetreenode n on n.id = v.document_id {1}".format(
                name, join
            )
        )
    return DocumentTree(
        tables=("core_document", "core_basetreenode", "core_user"),
        documents="select n.id, n.title, n.parent_id, {0} from core_document d"
        " join core_basetreenode n on n.id = d.basetreenode_ptr_id {1}".format(name, join),
        title="n.title",
        document_id="n.id",
        nodes="select n.id, n.title, n.parent_id from core_basetreenode n",
        node_id="n.id",
        version_document="v.document_id" if versions else "d.basetreenode_ptr_id",
        version_file="v.file_name" if versions else "d.file_name",
        owners=owners,
        owners_key="v.id" if own_by_version else "u.id",
        owner_key=_VERSION_DIRECTORY if own_by_version else _USER_DIRECTORY,
    )


def _sqlalchemy(owner: Tuple[str, str], more_tables: Tuple[str, ...]) -> DocumentTree:
    name, join = owner[0], owner[1].format(users="users")
    return DocumentTree(
        tables=("documents", "nodes", "users") + more_tables,
        documents="select n.id, n.title, n.parent_id, {0} from documents d join nodes n on n.id = d.node_id {1}".format(
            name, join
        ),
        title="n.title",
        document_id="n.id",
        nodes="select n.id, n.title, n.parent_id from nodes n",
        node_id="n.id",
        version_document="v.document_id",
        version_file="v.file_name",
        owners="select v.id, {0} from document_versions v join nodes n on n.id = v.document_id {1}".format(name, join),
        owners_key="v.id",
        owner_key=_VERSION_DIRECTORY,
        growing=("nodes", "documents", "document_versions", "ownerships"),
    )


#: 1.x and 2.0; 2.1; 3.0 to 3.2.
USER_DOCUMENTS = _django(versions=False, own_by_version=False)
USER_DOCUMENT_VERSIONS = _django(versions=True, own_by_version=False)
DOCUMENT_VERSIONS = _django(versions=True, own_by_version=True)
#: 3.3 and 3.4; 3.5; 3.6.
OWNED_BY_USERS = _sqlalchemy(_USER, ())
OWNED_BY_GROUPS = _sqlalchemy(_USER_OR_GROUP, ("groups",))
OWNED_BY_OWNERSHIPS = _sqlalchemy(_OWNERSHIP, ("groups", "ownerships"))
