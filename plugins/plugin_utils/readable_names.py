# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that people can read for the files of a document."""

from __future__ import annotations

import os
import re

#: File systems bound a name to 255 bytes; what is put behind a title needs some of them.
TITLE_BYTES = 180
_SUFFIX = re.compile(r"\.[0-9A-Za-z]{1,12}\Z")


def plain_name(text: str, limit: int = TITLE_BYTES) -> str:
    """Return a text as a file may be called: on one line, without slashes, not hidden, at most ``limit`` bytes."""
    name = "".join(char if char.isprintable() and char != "/" else "_" for char in text).strip()
    if name.startswith("."):
        name = "_" + name[1:]
    name = name.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").strip()
    return name or "document"


class ReadableNames:
    """Names for the files of one document, each of them given once: ``TITLE vNUMBER.SUFFIX``."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._given: set[str] = set()

    def name(self, version: int, path: bytes, is_named: bool) -> str:
        """Return a name for a file of a version. ``is_named``: it is the one that the database names."""
        original = os.path.basename(path).decode("utf-8", "replace")
        stem, suffix = os.path.splitext(original)
        if not _SUFFIX.match(suffix):
            stem, suffix = original, ""
        title = self._title
        if suffix and title.lower().endswith(suffix.lower()) and len(title) > len(suffix):
            title = title[: -len(suffix)]
        name = f"{plain_name(title)} v{version}"
        if not is_named:
            name = f"{plain_name(title, 100)} v{version} - {plain_name(stem, 100)}"
        chosen, number = name + suffix, 1
        # Some file systems take two names that differ in their case only for one.
        while chosen.casefold() in self._given:
            number += 1
            chosen = f"{name} ({number}){suffix}"
        self._given.add(chosen.casefold())
        return chosen
