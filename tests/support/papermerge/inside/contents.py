# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a Papermerge holds, in a form that can be compared; nothing in it depends on where it is installed.

Argument: {"counts_only": bool}. Answers {"counts": {table: rows}} and, unless only the counts are wanted, "users",
"documents" (by owner and path in the tree), "folders", "tables" (every row of every table) and "files" (path below the
media root: size and SHA-256).
"""

from __future__ import annotations

import base64
import os

from django.db import connection
from papermerge_session import Document, Folder, User, answer, arguments, default_storage, describe, file_digest


def place(node):
    """The owner and the path of a node, as a user sees it."""
    titles = [each.title for each in node.get_ancestors(include_self=True)]
    return f"{node.user.username}:/{'/'.join(titles)}"


def described_users():
    fields = ("id", "username", "password", "email", "is_superuser", "is_staff", "is_active")
    return {user["username"]: user for user in User.objects.values(*fields)}


def described_documents():
    documents = {}
    for document in Document.objects.order_by("pk"):
        directory = default_storage.abspath(document.path().dirname_docs)
        documents[f"{place(document)} #{document.pk}"] = {
            **describe(document),
            "title": document.title,
            "file_name": document.file_name,
            "version": document.version,
            "size": document.size,
            "files": {path: entry["sha256"] for path, entry in files_below(directory).items()},
        }
    return documents


def described_folders():
    return {
        f"{place(folder)} #{folder.pk}": {
            "children": sorted(child.pk for child in folder.get_children()),
            "tags": sorted(each.name for each in folder.tags.all()),
            "metadata": {each.key: each.value for each in folder.kv.all()},
        }
        for folder in Folder.objects.order_by("pk")
    }


def files_below(root):
    found = {}
    for directory, _subdirectories, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = {"size": os.path.getsize(path), "sha256": file_digest(path)}
    return found


def tables():
    return sorted(connection.introspection.table_names())


def counts():
    with connection.cursor() as cursor:
        found = {}
        for table in tables():
            cursor.execute(f"SELECT count(*) FROM {connection.ops.quote_name(table)}")
            found[table] = cursor.fetchone()[0]
        return found


def rows():
    """Every row of every table as {column: value}, in the order of the first column."""
    with connection.cursor() as cursor:
        found = {}
        for table in tables():
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            columns = [column[0] for column in cursor.description]
            content = [[plain(value) for value in row] for row in cursor.fetchall()]
            found[table] = [
                dict(zip(columns, row, strict=True)) for row in sorted(content, key=lambda row: [str(v) for v in row])
            ]
        return found


def plain(value):
    if isinstance(value, (bytes, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    return value if value is None or isinstance(value, (int, float, str)) else str(value)


def main():
    result = {"counts": counts()}
    if not arguments()["counts_only"]:
        result["users"] = described_users()
        result["documents"] = described_documents()
        result["folders"] = described_folders()
        result["tables"] = rows()
        result["files"] = files_below(default_storage.location)
    answer(result)


main()
