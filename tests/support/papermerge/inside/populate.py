# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill an empty Papermerge: users, folders, tags, metadata and documents of every kind that a backup has to keep.

Argument: {"documents": int, "seed": int}. Each document's notes say at the end what the document is, so that a later
look at it can find out whether anything is missing.
"""

from __future__ import annotations

import io
import json
import random

from django.db import transaction
from mglib.path import PagePath
from mglib.shortcuts import extract_img
from mglib.step import Step, Steps
from papermerge_session import (
    Document,
    Folder,
    Tag,
    User,
    answer,
    arguments,
    change_pages,
    default_storage,
    describe,
    make_pdf,
    password_of,
    replace_file,
    tag,
    upload,
    write_texts,
)
from PIL import Image

USERS = ["admin", "anna", "jürgen"]
FOLDERS = {
    "anna": ["Rechnungen", "Rechnungen/2025", "Rechnungen/2025/März", "Verträge", "Leer", 'Tom\'s "papers"'],
    "jürgen": ["Projekte", "Projekte/Brücke über die Spree", "Privat"],
    "admin": ["Archive"],
}
NAMES = [
    "invoice {n}.pdf", "Rechnung Müller + Söhne {n}.pdf", "brief mit umlaut äöüß {n}.pdf", "contract-{n}.pdf",
    "O'Brien's \"final\" {n}.pdf", "Angebot ({n}) 100 %.pdf", "großer   bericht {n}.PDF", "$(echo {n}) `x`.pdf",
    "日本語 {n}.pdf", "-rf {n}.pdf",
]  # fmt: skip
TAGS = ["paid", "wichtig", "Steuer 2025", "to do"]


def fresh(node):
    """The node as it is now; saving one with an old place in the tree would spoil the tree."""
    return node and type(node).objects.get(pk=node.pk)


def make_users():
    users = []
    for username in USERS:
        create = User.objects.create_superuser if username == "admin" else User.objects.create_user
        users.append(create(username, email=f"{len(users)}@example.com", password=password_of(username)))
    return users


def make_folders(users):
    """Nested folders of each user, keyed by path; the one called ``Leer`` stays empty."""
    folders = []
    for user in users:
        known = {}
        for path in FOLDERS[user.username]:
            above, _slash, title = path.rpartition("/")
            known[path] = Folder.objects.create(title=title, user=user, parent=fresh(known.get(above)))
        folders += [known[path] for path in known if path != "Leer"]
        for path in list(known)[:2]:
            tag(known[path], TAGS[:2])
        first = fresh(next(iter(known.values())))
        first.kv.update(
            [
                {"key": "shop", "kv_type": "text", "kv_format": ""},
                {"key": "total", "kv_type": "money", "kv_format": "dd,cc"},
            ]
        )
        first.kv["shop"] = "Café Größenwahn"
    return folders


def make_documents(folders, count, seed, dice):
    documents = []
    for number in range(1, count + 1):
        folder = folders[number % len(folders)]
        name = NAMES[number % len(NAMES)].format(n=number)
        content, texts = make_pdf(name, dice.randint(2, 5), seed)
        document = upload(folder.user, folder, name, content)
        write_texts(document, texts)
        if dice.random() < 0.5:
            tag(document, dice.sample(TAGS, 2))
        if dice.random() < 0.4:
            describe_with_metadata(document, number)
        if number % 3 == 0:
            make_images(document, pages=[1], steps=[Step(4)])
        documents.append(document)
    return documents


def describe_with_metadata(document, number):
    """Values for the keys that the folder hands down. Keys of its own a document keeps only where the folder has none:
    each save of a document replaces its keys by the folder's (Papermerge 2.0).
    """
    if "total" in set(document.kv.keys()):
        document.assign_kv_values({"total": f"{number},50"})
    else:
        document.kv.update([{"key": "number", "kv_type": "text", "kv_format": ""}])
        document.assign_kv_values({"number": f"№ {number}"})


def make_images(document, pages, steps):
    for number in pages:
        for step in steps:
            page = PagePath(document.path(), number, document.page_count, step)
            extract_img(page, default_storage.location)


def make_history(documents, seed):
    """Older versions, other file names, a rename, a move, a deletion, a picture, a document never uploaded."""
    processed = fresh(documents[0])
    make_images(processed, range(1, processed.page_count + 1), Steps())
    change_pages(processed, [2], with_derived=True)
    for document in documents[1:9:3]:
        change_pages(fresh(document), [1])
    for document in map(fresh, documents[2:9:3]):
        content, texts = make_pdf(f"newer {document.file_name}", 3, seed)
        replace_file(document, f"neue Fassung {document.id}.pdf", content)
        write_texts(document, texts)
    change_pages(fresh(documents[2]), [3])
    renamed, moved, gone = (fresh(document) for document in (documents[3], documents[6], documents[9]))
    renamed.title = "umbenannt"
    renamed.save()
    Document.objects.move_node(moved, Folder.objects.get(title=Folder.INBOX_NAME, user=moved.user))
    owner, folder = gone.user, gone.parent
    fresh(gone).delete()
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((300, 400)).save(picture, "JPEG")
    scan = upload(owner, folder, "scan größer.jpg", picture.getvalue())
    Document.objects.create_document(
        user=owner, title="never uploaded", lang="deu", size=0, page_count=0, file_name="never uploaded.pdf",
        parent_id=folder.id,
    )  # fmt: skip
    return scan


def main():
    request = arguments()
    count, seed = request["documents"], request["seed"]
    if count < 10:
        raise SystemExit("populate needs at least 10 documents, so that each kind exists")
    dice = random.Random(seed)
    with transaction.atomic():
        users = make_users()
        folders = make_folders(users)
        documents = make_documents(folders, count, seed, dice)
        make_history(documents, seed)
        for wanted in TAGS[:1]:
            Tag.objects.filter(name=wanted).update(pinned=True, bg_color="#ff0000", description="bezahlt")
        for document in Document.objects.all():
            Document.objects.filter(pk=document.pk).update(notes=json.dumps(describe(document), ensure_ascii=False))
    answer({"documents": Document.objects.count(), "passwords": {name: password_of(name) for name in USERS}})


main()
