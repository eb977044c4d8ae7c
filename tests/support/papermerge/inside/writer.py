# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep using a Papermerge until SIGTERM: upload, change pages, replace, rename, tag, delete.

Argument: {"rate": operations a second, "seed": int, "log": path, "documents": about how many to keep}. Writes one JSON
line to the log for each operation that ended: {"began", "time" (its end), "operation", "document", "file", "sha256"}.
Prints "ready" once and, at the end, {"operations": {name: count}, "locked": how often the database was busy for longer
than Papermerge waits}. It works in a folder of its own and leaves the documents alone that it finds.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter

from django.db import OperationalError
from papermerge_session import (
    Document,
    Folder,
    User,
    answer,
    arguments,
    change_pages,
    file_digest,
    make_pdf,
    replace_file,
    tag,
    upload,
    write_texts,
)


class Writer:
    """The documents that the writer made, and what it does with them."""

    def __init__(self, seed, documents):
        self.dice = random.Random(seed)
        self.seed = seed
        self.documents = documents
        self.made = 0
        self.known = []
        user = User.objects.order_by("pk").first()
        title = f"written during a backup {seed}"
        self.folder, _made = Folder.objects.get_or_create(title=title, user=user, parent=None)

    def step(self):
        """One operation: (its name, the document's id)."""
        choices = [self.upload]
        if len(self.known) > 3:
            choices += [self.replace, self.change_pages, self.rename, self.tag, self.describe, self.delete]
            choices += [self.delete if len(self.known) > self.documents else self.upload] * 2
        operation = self.dice.choice(choices)
        return operation.__name__, operation()

    def pick(self):
        return Document.objects.get(pk=self.dice.choice(self.known))

    def upload(self):
        self.made += 1
        name = f"während {self.made}.pdf"
        content, texts = make_pdf(name, self.dice.randint(2, 4), self.seed)
        document = upload(self.folder.user, self.folder, name, content)
        self.known.append(document.pk)
        write_texts(document, texts)
        return document.pk

    def replace(self):
        document = self.pick()
        self.made += 1
        content, texts = make_pdf(f"ersetzt {self.made}", 3, self.seed)
        replace_file(document, f"ersetzt {self.made}.pdf", content)
        write_texts(document, texts)
        return document.pk

    def change_pages(self):
        document = self.pick()
        if document.page_count > 1:
            change_pages(document, [1])
        return document.pk

    def rename(self):
        document = self.pick()
        self.made += 1
        document.title = f"umbenannt {self.made}"
        document.save()
        return document.pk

    def tag(self):
        document = self.pick()
        tag(document, [f"tag {self.dice.randint(1, 9)}"])
        return document.pk

    def describe(self):
        document = self.pick()
        document.kv.update([{"key": "number", "kv_type": "text", "kv_format": ""}])
        document.assign_kv_values({"number": str(self.made)})
        return document.pk

    def delete(self):
        document = self.pick()
        number = document.pk
        document.delete()
        self.known.remove(number)
        return number


def main():
    request = arguments()
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    writer = Writer(request["seed"], request["documents"])
    operations, locked = Counter(), 0
    print("ready", flush=True)
    with open(request["log"], "a", encoding="utf-8") as log:
        due = time.monotonic()
        while not stopped:
            began = time.time()
            try:
                name, number = writer.step()
            except OperationalError as error:
                if "locked" not in str(error):
                    raise
                locked += 1
            else:
                operations[name] += 1
                document = Document.objects.filter(pk=number).first()
                path = document.absfilepath if document else None
                digest = file_digest(path) if path else None
                entry = {"began": began, "time": time.time(), "operation": name, "document": number}
                entry |= {"file": path, "sha256": digest}
                log.write(json.dumps(entry, ensure_ascii=False) + "\n")
                log.flush()
            due = max(due + 1 / request["rate"], time.monotonic() - 1)
            while not stopped and time.monotonic() < due:
                time.sleep(min(0.05, max(0, due - time.monotonic())))
    answer({"operations": operations, "locked": locked})


main()
