# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A document of a snapshot's database, found by what a person calls it, and the files of its versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ansible_collections.papermerge.backup.plugins.module_utils.database.view import View
from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError, UnsupportedError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import ExpectedRow, ReleaseLine
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.tree import DocumentTree
from ansible_collections.papermerge.backup.plugins.plugin_utils.pgdump import copied

#: As many candidates are named in a message; the result has as many more.
NAMED, KEPT = 10, 100
#: As many texts are looked for in a dump; looking for more takes longer than taking all rows.
NEEDLES = 30
#: What Papermerge calls a user's two top folders up to 3.2, and later without the dot.
_SPECIAL = {"/.home": "/home", "/.inbox": "/inbox"}
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\Z", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_VERSION_DIRECTORY = re.compile(rb"v([0-9]{1,9})/")


@dataclass(frozen=True)
class Document:
    """``id`` as people read it, ``key`` as the database has it; ``path``: the titles of its folders and its own."""

    id: str
    key: str
    title: str
    path: str
    owner: str

    def as_result(self) -> dict[str, str]:
        return {"id": self.id, "title": self.title, "path": self.path, "owner": self.owner}


@dataclass
class DocumentFiles:
    """A document and its version rows."""

    document: Document
    rows: list[ExpectedRow] = field(default_factory=list)

    @property
    def directories(self) -> set[bytes]:
        """Where all files of its versions lie."""
        return {row.directory for row in self.rows}

    def version_of(self, path: bytes) -> int:
        """Return the number of the version that a file below one of the directories belongs to."""
        row = next(row for row in self.rows if path.startswith(row.directory + b"/"))
        numbered = _VERSION_DIRECTORY.match(path, len(row.directory) + 1)
        if numbered:
            return int(numbered[1])
        return row.number if row.directory.startswith(b"docvers/") else 0

    def row_at(self, path: bytes) -> ExpectedRow | None:
        """Return the row that expects a file at this path."""
        return next((row for row in self.rows if row.path == path), None)


def plain_key(key: object) -> str:
    """Return an id as it can be compared: engines write UUIDs with dashes or without."""
    return str(key).replace("-", "").lower()


def shown_key(key: object) -> str:
    """Return an id as people read it: a UUID with its dashes."""
    text = plain_key(key)
    if len(text) != 32:
        return str(key)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _literal(text: str) -> str:
    return "'{}'".format(text.replace("\0", "").replace("'", "''"))


def tree_of(line: ReleaseLine) -> DocumentTree:
    """Return what tells of titles and owners. Raises UnsupportedError where nobody knows the release."""
    if line.tree is None:
        raise UnsupportedError(
            "the snapshot is of a release of Papermerge that this version of papermerge.backup does not know, so "
            "nobody knows which files belong to a document; set papermerge_backup_pattern to take files by their paths"
        )
    return line.tree


def seeds(wanted: str) -> tuple[bytes, ...]:
    """Return texts of which every row has one that tells which documents may be meant, as COPY writes them."""
    if wanted.startswith("/"):
        places = [place for place, char in enumerate(wanted) if char == "/"]
        return tuple(b"\t" + copied(wanted[place + 1 :]) for place in places)
    return (shown_key(wanted).lower().encode("utf-8", "surrogateescape"), b"\t" + copied(wanted))


def needles(view: View, line: ReleaseLine) -> tuple[bytes, ...] | None:
    """Return texts of which every row about these documents has one; None where they are too many to look for.

    ``view``: what a dump has by the seeds.
    """
    tree = tree_of(line)
    found = {str(row[0]) for row in view.rows(f"{tree.nodes} limit {NEEDLES + 1}")}
    query = f"select distinct document_id from {line.version_tables[0]} limit {NEEDLES + 1}"
    found |= {str(row[0]) for row in view.rows(query)}
    if len(found) > NEEDLES:
        return None
    return (b"\tfolder\t", *(key.encode("ascii", "replace") for key in found))


class Documents:
    """The documents of a database, as a view that speaks the SQL of SQLite."""

    def __init__(self, view: View, line: ReleaseLine, snapshot: str) -> None:
        self._view = view
        self._line = line
        self._tree = tree_of(line)
        self._snapshot = snapshot
        self._folders: dict[str, str] = {}

    def find(self, wanted: str, user: str | None = None) -> Document:
        """Return the one document that is meant.

        ``wanted``: the path of titles in its owner's tree, if it begins with a slash; the id; or the title, or the name
        of the file of any version. ``user``: its owner. Raises SettingError, with the ``candidates`` where there are
        several, or some that are almost right.
        """
        found = [document for document in self._candidates(wanted) if user is None or document.owner == user]
        exact = [document for document in found if self._is(document, wanted)]
        of_user = f" of {user}" if user is not None else ""
        if len(exact) == 1:
            return exact[0]
        if not exact:
            text = f"snapshot {self._snapshot} has no document {wanted}{of_user}"
            raise _error(f"{text}; there are" if found else text, found)
        raise _error(f"{len(exact)} documents of snapshot {self._snapshot} are called {wanted}{of_user}:", exact)

    def files(self, document: Document) -> DocumentFiles:
        """Return the document with its version rows, by number."""
        condition = f"{self._tree.version_document} = {_literal(document.key)}"
        rows = self._view.rows(f"{self._line.rows_query} where {condition}")
        return DocumentFiles(document, sorted(map(self._line.expected_row, rows), key=lambda row: row.number))

    def _candidates(self, wanted: str) -> Iterator[Document]:
        title, document_id = self._tree.title, self._tree.document_id
        if wanted.startswith("/"):
            # A title may have slashes of its own, so nobody can tell where the last one begins.
            path = _literal(wanted)
            yield from self._where(f"substr({path}, -length({title}) - 1) = '/' || {title}")
            return
        if _UUID.match(wanted) or _NUMBER.match(wanted):
            plain = _literal(plain_key(wanted))
            found = list(self._where(f"lower(replace(cast({document_id} as text), '-', '')) = {plain}"))
            if found:
                yield from found
                return
        name = _literal(wanted)
        tables = self._line.rows_query.partition(" from ")[2]
        named = f"select {self._tree.version_document} from {tables} where {self._tree.version_file} = {name}"
        yield from self._where(f"({title} = {name} or {document_id} in ({named}))")

    def _where(self, condition: str) -> Iterator[Document]:
        for key, title, parent, owner in list(self._view.rows(f"{self._tree.documents} where {condition}")):
            path = f"{self._folder(parent)}/{title}"
            yield Document(shown_key(key), str(key), str(title), path, str(owner or ""))

    def _folder(self, key: object) -> str:
        """Return the path of a folder; empty for none."""
        names: list[str] = []
        seen: list[str] = []
        while key is not None and str(key) not in self._folders and str(key) not in seen:
            seen.append(str(key))
            rows = list(self._view.rows(f"{self._tree.nodes} where {self._tree.node_id} = {_literal(str(key))}"))
            if not rows:
                break
            names.append(str(rows[0][1]))
            key = rows[0][2]
        path = self._folders.get(str(key), "")
        for number, title in zip(reversed(seen), reversed(names)):
            path = f"{path}/{title}"
            self._folders[number] = path
        return path

    @staticmethod
    def _is(document: Document, wanted: str) -> bool:
        if not wanted.startswith("/"):
            return True
        paths = {document.path}
        for hidden, shown in _SPECIAL.items():
            if document.path.startswith(f"{hidden}/"):
                paths.add(shown + document.path[len(hidden) :])
        return wanted in paths


def _error(text: str, found: Iterable[Document]) -> SettingError:
    documents = sorted(found, key=lambda document: (document.owner, document.path, document.id))
    if not documents:
        return SettingError(text, candidates=[])
    named = "; ".join(f"{document.path} of {document.owner} (id {document.id})" for document in documents[:NAMED])
    more = f"; and {len(documents) - NAMED:,} more" if len(documents) > NAMED else ""
    return SettingError(
        f"{text} {named}{more}. Set papermerge_backup_document to an id, or papermerge_backup_user",
        candidates=[document.as_result() for document in documents[:KEPT]],
    )
