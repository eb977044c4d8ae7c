# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds some lines of a long index: what is sorted need not be read line by line as JSON."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import (
    MAX_LINE,
    IndexEntry,
    decode_entry,
)

#: Plain bytes that are looked at together.
BLOCK = 1 << 20
_BEGIN = b'{"path":"'


@dataclass(frozen=True, order=True)
class PathRange:
    """The paths from ``first`` on and below ``end``; no end where that is None."""

    first: bytes
    end: bytes | None

    def holds(self, path: bytes) -> bool:
        return self.first <= path and (self.end is None or path < self.end)


def below(directory: bytes) -> PathRange:
    """Return the range of everything below a directory."""
    return PathRange(directory + b"/", directory + b"0")


def beginning_with(prefix: bytes) -> PathRange:
    """Return the range of the paths that begin with some bytes."""
    head = prefix.rstrip(b"\xff")
    return PathRange(prefix, head[:-1] + bytes((head[-1] + 1,)) if head else None)


def path_of_line(line: bytes) -> bytes:
    """Return the path of an index line, as JSON only where it is needed. Raises DamageError."""
    if line.startswith(_BEGIN):
        path = line[len(_BEGIN) : line.find(b'"', len(_BEGIN))]
        if b"\\" not in path:
            return path
    return decode_entry(line).path


def search_index(
    pieces: Iterable[bytes], ranges: Iterable[PathRange], wanted: Callable[[bytes], bool] = lambda _path: True
) -> Iterator[IndexEntry]:
    """Yield the entries of an index whose paths are in one of some ranges, which do not overlap, and ``wanted``.

    ``pieces``: the plain index, which is read to its end. Raises DamageError for one that is not sorted as far as it
    was looked at.
    """
    sought = sorted(ranges)
    firsts = [span.first for span in sought]
    before = b""

    def in_range(path: bytes) -> bool:
        number = bisect.bisect_right(firsts, path) - 1
        return number >= 0 and sought[number].holds(path)

    for block in _blocks(pieces):
        first = path_of_line(block[: block.index(b"\n")])
        last = path_of_line(block[block.rfind(b"\n", 0, -1) + 1 : -1])
        if not before <= first <= last:
            raise DamageError("the index is not sorted")
        before = last
        number = bisect.bisect_right(firsts, last) - 1
        # The last range that begins in the block or before it; an earlier one may reach into it as well.
        if number < 0 or not (in_range(first) or firsts[number] >= first):
            continue
        for line in block[:-1].split(b"\n"):
            path = path_of_line(line)
            if in_range(path) and wanted(path):
                yield decode_entry(line)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole lines, some BLOCK bytes at a time. Raises DamageError for a line that no index has."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size < BLOCK:
            continue
        text = b"".join(held)
        end = text.rfind(b"\n") + 1
        if end:
            yield text[:end]
        held, size = [text[end:]], len(text) - end
        if size > MAX_LINE:
            raise DamageError(f"a line of the index is longer than {MAX_LINE} bytes")
    text = b"".join(held)
    if text:
        if not text.endswith(b"\n"):
            raise DamageError("the last line of the index is cut short")
        yield text


class PathPattern:
    """A glob over media paths: ``*`` and ``?`` stay within a name, ``**`` is any number of directories."""

    def __init__(self, text: str) -> None:
        """Raises SettingError for a pattern that can match nothing."""
        if not text or text.startswith("/"):
            raise SettingError(
                f"pattern {text!r} cannot match: paths are relative to the media directory, such as docvers/**/*.pdf"
            )
        self._match = re.compile(_expression(text), re.DOTALL).fullmatch
        literal = re.split(r"[*?\[]", text, maxsplit=1)[0]
        self.range = beginning_with(literal.encode("utf-8", "surrogateescape"))

    def matches(self, path: bytes) -> bool:
        return self._match(path.decode("utf-8", "surrogateescape")) is not None


_TOKEN = re.compile(
    r"(?P<deep>\*\*/)|(?P<rest>\*\*+)|(?P<star>\*)|(?P<one>\?)|\[(?P<set>[!^]?\]?[^\]/]*)\]|(?P<text>.)", re.DOTALL
)


def _expression(text: str) -> str:
    found = []
    for token in _TOKEN.finditer(text):
        kind, value = str(token.lastgroup), token[str(token.lastgroup)]
        if kind == "set":
            inner = re.sub(r"([\\\[&~|^])", r"\\\1", value[1:] if value[:1] in ("!", "^") else value)
            inner = re.sub(r"^\]", r"\\]", inner)
            found.append("(?!/)[{}{}]".format("^" if value[:1] in ("!", "^") else "", inner) if inner else "(?!)")
        elif kind == "text":
            found.append(re.escape(value))
        else:
            found.append({"deep": "(?:.*/)?", "rest": ".*", "star": "[^/]*", "one": "[^/]"}[kind])
    return "".join(found)
