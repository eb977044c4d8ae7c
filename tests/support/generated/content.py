# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a generated instance, before any release gives it numbers, tables and paths."""

from __future__ import annotations

import dataclasses
import random

USERS = ("admin", "margaret", 'o\'brien \\ "söhne"')
FOLDERS = ("home", "Rechnungen 2026", "Empty folder", '100 % sure; it\'s "mine"')
TAGS = ("important", "bezahlt ✔", "it's; -- a 'tag'")

FILE_NAMES = (
    "brief mit umlaut äöüß.pdf",
    "two  spaces.pdf",
    "ends with a space ",
    'it\'s "quoted" `so`.pdf',
    "100 % sure %s %d %20.pdf",
    "back\\slash\\n is no newline.pdf",
    "first line\nsecond line.pdf",
    "tab\tand\rreturn.pdf",
    "📄 emoji 👩‍👩‍👧 ☃.pdf",
    "--help.pdf",
    "e\u0301 is two characters.pdf",
    "請求書 二〇二六.pdf",
    "a'); INSERT INTO core_user VALUES (1); --.pdf",
    "long " + "ü" * 110 + ".pdf",
    "\\N",
    "\\.",
    "NULL",
    "$HOME `id` $(id) * ? [a-z] !.pdf",
    "<b>&amp;.pdf",
)

#: What a careless reader of dumps stumbles over.
_TRAPS = (
    'He said: "it\'s 100 % sure"; -- \\ not a comment\n'
    "INSERT INTO `core_documentversion` VALUES ('00000000000000000000000000000000',1),(2);\n"
    "INSERT INTO core_document VALUES (1, 'it''s.pdf', 'back\\'slash');\n"
    "COPY public.document_versions (id, number) FROM stdin;\n\\.\n\\N\t\\N\r\n/*!40000 ALTER */ # DELIMITER $$ é 🐘\n"
)
#: Everything but NUL.
BINARY = bytes(range(1, 256)) * 3


@dataclasses.dataclass(frozen=True)
class VersionPlan:
    """`content` None: no file. `size` None: that of the content, as an upload records it.

    `overwritten`: (name, content) of a file that this version had before and that stayed.
    """

    file_name: str | None
    content: bytes | None
    page_count: int = 1
    size: int | None = None
    overwritten: tuple[str, bytes] | None = None

    @property
    def recorded_size(self) -> int:
        return self.size if self.size is not None else len(self.content or b"")


@dataclasses.dataclass(frozen=True)
class DocumentPlan:
    """`owner`, `folder` and `tags` are positions in USERS, FOLDERS and TAGS. `note` says what it is there for."""

    note: str
    versions: tuple[VersionPlan, ...]
    owner: int = 0
    folder: int = 0
    tags: tuple[int, ...] = ()
    has_fields: bool = False
    is_deleted: bool = False
    is_uploaded: bool = True


def plan_documents(rng: random.Random, documents: int, *, processes_later: bool = False) -> list[DocumentPlan]:
    """Return one document of each sort, one for each troublesome name, and plain ones up to the number asked for.

    `processes_later`: with one whose pages nobody has counted yet.
    """

    def version(name: str, pages: int = 1) -> VersionPlan:
        return VersionPlan(name, file_content(rng), pages)

    plans = [
        DocumentPlan("plain", (version("scan.pdf"),), tags=(0, 1), has_fields=True),
        DocumentPlan(
            "other names per version",
            (version("invoice-2021.pdf", 2), version("invoice-2021-v2.pdf", 2), version("Rechnung, endgültig.pdf", 3)),
            folder=1,
            tags=(2,),
            has_fields=True,
        ),
        DocumentPlan(
            "page operation",
            (version("contract.pdf", 3), VersionPlan("contract.pdf", file_content(rng), 2, size=0)),
            owner=1,
        ),
        DocumentPlan("uploaded again", (version("twice.pdf"), version("twice.pdf"))),
        DocumentPlan(
            "page operation, then an upload of another name",
            (
                version("form.pdf", 2),
                VersionPlan("filled.pdf", file_content(rng), 1, overwritten=("form.pdf", file_content(rng))),
            ),
            owner=1,
            folder=3,
        ),
        DocumentPlan("image", (version("scan.jpg"), version("scan.jpg.pdf")), owner=2),
        DocumentPlan("never uploaded", (VersionPlan("never uploaded.pdf", None, 0),), is_uploaded=False),
        DocumentPlan("never uploaded, without a name", (VersionPlan(None, None, 0),), owner=1, is_uploaded=False),
        DocumentPlan("deleted", (version("gone.pdf", 3),), is_deleted=True),
        *(
            DocumentPlan("troublesome name", (version(name),), owner=number % len(USERS), folder=number % 2)
            for number, name in enumerate(FILE_NAMES)
        ),
    ]
    if processes_later:
        plans.append(DocumentPlan("not processed yet", (VersionPlan("just now.pdf", file_content(rng), 0, size=0),)))
    while len(plans) < documents:
        versions = tuple(version(f"scan {len(plans):06}.pdf") for _number in range(rng.choice((1, 1, 1, 2, 3))))
        plans.append(DocumentPlan("plain", versions, owner=rng.randrange(len(USERS)), folder=rng.choice((0, 1, 3))))
    return plans


def file_content(rng: random.Random) -> bytes:
    return b"%PDF-1.4\n" + rng.randbytes(rng.randrange(1, 3000)) + b"\n%%EOF\n"


def long_text(characters: int) -> str:
    """Return a text of that length, full of what looks like SQL."""
    return (_TRAPS * (characters // len(_TRAPS) + 1))[:characters]
