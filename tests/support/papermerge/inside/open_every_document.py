# SPDX-License-Identifier: GPL-3.0-or-later
"""Let Papermerge open every document of every user, log every user in, and say what is not as it should be.

Answers {"documents", "opened", "never_uploaded", "versions", "users", "tags", "metadata": counts,
"failures": [{"what", "problem"}]}.
The exit code is 1 when there is a failure.
"""

from __future__ import annotations

import json
import os
import sys

import PyPDF2
from django.contrib.auth import authenticate
from django.db import connection
from mglib.pdfinfo import get_pagecount
from papermerge_session import (
    BaseTreeNode,
    ColoredTag,
    Document,
    Folder,
    KVStoreNode,
    User,
    answer,
    default_storage,
    describe,
    password_of,
)
from PIL import Image


def pages_readable(path):
    """The number of pages, after reading each of them to its end."""
    if path.lower().endswith((".jpg", ".jpeg", ".png")):
        with Image.open(path) as image:
            image.load()
        return 1
    with open(path, "rb") as file:
        reader = PyPDF2.PdfFileReader(file, strict=True)
        for page in reader.pages:
            page.extractText()
        if reader.numPages != get_pagecount(path):
            raise ValueError("pdfinfo and PyPDF2 count different pages")
        return reader.numPages


def check_document(document):
    """Problems of one document: the file of the latest version, those of older versions, its rows."""
    path = document.absfilepath
    if not os.path.isfile(path):
        yield f"its file does not exist: {path}"
        return
    try:
        found = pages_readable(path)
    except Exception as error:
        yield f"its file cannot be read: {path}: {type(error).__name__}: {error}"
        return
    if found != document.page_count:
        yield f"its file has {found} pages, its row says {document.page_count}: {path}"
    numbers = [page.number for page in document.pages.all()]
    if numbers != list(range(1, document.page_count + 1)):
        yield f"it has page rows {numbers}, its row says {document.page_count}"
    yield from check_older_versions(document)
    yield from check_notes(document)


def check_notes(document):
    """What populate wrote down about the document; others have no notes."""
    if document.notes:
        expected, present = json.loads(document.notes), describe(document)
        for key in expected:
            if expected[key] != present[key]:
                yield f"{key} should be {expected[key]!r} and is {present[key]!r}"


def check_older_versions(document):
    for version in range(document.version):
        directory = default_storage.abspath(document.path().dirname(version=version))
        names = [name for name in listed(directory) if os.path.isfile(os.path.join(directory, name))]
        if not names:
            yield f"version {version} has no file in {directory}"
        for name in names:
            try:
                pages_readable(os.path.join(directory, name))
            except Exception as error:
                yield f"version {version} cannot be read: {directory}{name}: {type(error).__name__}: {error}"


def listed(directory):
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def check_rows():
    """Rows without the rows that they need."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA integrity_check")
            result = [row[0] for row in cursor.fetchall()]
            if result != ["ok"]:
                yield "database", f"integrity_check: {result[:5]}"
            cursor.execute("PRAGMA foreign_key_check")
            for table, row, parent, _number in cursor.fetchall()[:20]:
                yield f"{table} row {row}", f"it names a row of {parent} that does not exist"
    # polymorphic's query set leaves out nodes whose document or folder row is missing, so ask for plain rows.
    typed = set(Document.objects.values_list("pk", flat=True)) | set(Folder.objects.values_list("pk", flat=True))
    for number, title in BaseTreeNode.objects.non_polymorphic().values_list("pk", "title"):
        if number not in typed:
            yield f"node {number} {title!r}", "it has neither a document row nor a folder row"
    for item in ColoredTag.objects.all():
        if item.content_object is None:
            yield f"tag {item.tag_id}", f"it is put on node {item.object_id}, which does not exist"


def main():
    failures = [{"what": what, "problem": problem} for what, problem in check_rows()]
    opened = never_uploaded = versions = 0
    for document in Document.objects.order_by("pk"):
        if document.page_count == 0 and document.size == 0:
            never_uploaded += 1
            check = check_notes
        else:
            versions += document.version + 1
            check = check_document
        try:
            problems = list(check(document))
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        opened += check is check_document and not problems
        what = f"document {document.pk} {document.title!r} ({document.file_name!r})"
        failures += [{"what": what, "problem": problem} for problem in problems]
    users = list(User.objects.order_by("pk"))
    for user in users:
        if authenticate(None, username=user.username, password=password_of(user.username)) != user:
            failures.append({"what": f"user {user.username!r}", "problem": "cannot log in"})
    answer(
        {
            "documents": Document.objects.count(),
            "opened": opened,
            "never_uploaded": never_uploaded,
            "versions": versions,
            "users": len(users),
            "tags": ColoredTag.objects.count(),
            "metadata": KVStoreNode.objects.count(),
            "failures": failures,
        }
    )
    sys.exit(1 if failures else 0)


main()
