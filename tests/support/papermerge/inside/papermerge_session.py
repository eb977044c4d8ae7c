# SPDX-License-Identifier: GPL-3.0-or-later
"""What every script that runs inside Papermerge's own Python begins with: Django set up, and Papermerge's own API."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import sys

import django
import PyPDF2
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

logging.disable(logging.WARNING)
django.setup()

from papermerge.core.import_pipeline import WEB, go_through_pipelines  # noqa: E402
from papermerge.core.models import BaseTreeNode, ColoredTag, Document, Folder, KVStoreNode, Tag, User  # noqa: E402
from papermerge.core.storage import default_storage  # noqa: E402

WORDS = [
    "Rechnung",
    "Vertrag",
    "Mahnung",
    "Angebot",
    "invoice",
    "contract",
    "reminder",
    "offer",
    "Straße",
    "Größe",
    "Müller",
    "übermorgen",
]

__all__ = [
    "BaseTreeNode",
    "ColoredTag",
    "Document",
    "Folder",
    "KVStoreNode",
    "Tag",
    "User",
    "answer",
    "arguments",
    "change_pages",
    "default_storage",
    "describe",
    "file_digest",
    "make_pdf",
    "password_of",
    "replace_file",
    "tag",
    "upload",
    "write_texts",
]  # fmt: skip


def arguments():
    """The one JSON argument of the script."""
    return json.loads(sys.argv[1])


def answer(result):
    """Write the result where the caller reads it: the last line of standard output."""
    print(json.dumps(result, sort_keys=True, default=str), flush=True)


def password_of(username):
    """The password of a user of a test instance."""
    return f"{username} opens the archive 42"


def file_digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def make_pdf(heading, pages, seed):
    """The bytes of a real PDF and the text of each of its pages; the same for the same arguments."""
    dice = random.Random(f"{seed} {heading} {pages}")
    target = io.BytesIO()
    canvas = Canvas(target, pagesize=A4, invariant=1)
    texts = []
    for number in range(1, pages + 1):
        lines = [f"{heading}, page {number}"] + [" ".join(dice.choices(WORDS, k=9)) for _line in range(25)]
        for row, line in enumerate(lines):
            canvas.drawString(60, 780 - 26 * row, line)
        canvas.showPage()
        texts.append("\n".join(lines))
    canvas.save()
    return target.getvalue(), texts


def upload(user, parent, name, content):
    """A new document, through the way that an upload in the browser takes. OCR is left out."""
    document = go_through_pipelines(
        {"payload": content, "processor": WEB},
        {"user": user, "parent": parent.id, "lang": "deu", "name": name, "skip_ocr": True},
    )
    if document is None:
        raise RuntimeError(f"Papermerge did not accept {name!r}")
    return document


def replace_file(document, name, content):
    """A new version with another file and perhaps another file name, through Papermerge's pipeline."""
    go_through_pipelines(
        {"payload": content, "processor": WEB, "doc": document},
        {"user": document.user, "parent": document.parent_id, "lang": "deu", "name": name, "skip_ocr": True,
         "create_document": False},
    )  # fmt: skip


def change_pages(document, deleted, with_derived=False):
    """A new version without some pages. Papermerge only logs it when stapler fails, so look at the file."""
    document.delete_pages(deleted, skip_migration=not with_derived)
    if PyPDF2.PdfFileReader(document.absfilepath).numPages != document.page_count:
        raise RuntimeError(f"stapler made no right file of document {document.id}: {document.absfilepath}")


def write_texts(document, texts):
    """The page texts that OCR would leave, in files under ``results/``, then in rows as Papermerge's worker does it."""
    for page, text in zip(document.pages.all(), texts, strict=True):
        target = default_storage.abspath(page.txt_url)
        default_storage.make_sure_path_exists(target)
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
    document.update_text_field()


def tag(node, names):
    node.tags.add(*names, tag_kwargs={"user": node.user})


def describe(document):
    """What a document is, as Papermerge sees it: {"file", "pages", "tags", "metadata", "texts"}."""
    path = document.absfilepath
    texts = hashlib.sha256("\0".join(page.text for page in document.pages.all()).encode())
    return {
        "file": file_digest(path) if os.path.exists(path) else None,
        "pages": document.page_count,
        "tags": sorted(each.name for each in document.tags.all()),
        "metadata": {each.key: each.value for each in document.kv.all()},
        "texts": texts.hexdigest(),
    }
