# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TOML as far as settings need it: Python has a reader of its own only since 3.11."""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
INTEGER = re.compile(r"[+-]?(?:0x[0-9A-Fa-f_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)\Z")
#: Numbers, dates and words end where a value may end.
PLAIN = re.compile(r"[^\s,\]}#]+(?: [0-9]{2}:[^\s,\]}#]+)?")
SPACE = re.compile(r"[ \t]*")
#: Spaces, line ends and comments.
GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
LINE_END = re.compile(r"[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)")
ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}
DIGITS = {"x": 2, "u": 4, "U": 8}


class Unreadable(NamedTuple):
    """A value that this reader skips, such as a date or an array of tables; ``line`` counts from 1."""

    line: int


class TomlError(ValueError):
    """A text that is no TOML; the message names the line."""


def read_toml(text: str) -> Dict[str, Any]:
    """Return the tables of a TOML text: dictionaries of texts, integers, booleans, lists and further tables.

    Floats, dates and arrays of tables come as :class:`Unreadable`. Raises TomlError.
    """
    try:
        return _Reader(text).read()
    except RecursionError:
        raise TomlError("values stand too deep within each other") from None


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def read(self) -> Dict[str, Any]:
        top: Dict[str, Any] = {}
        table = top
        while True:
            self._skip(GAP)
            if self.position == len(self.text):
                return top
            if self._take("[["):
                # Their settings go nowhere; what stands in such a table is nothing that Papermerge reads.
                keys = self._keys()
                self._need("]]")
                self._table(top, keys[:-1])[keys[-1]] = Unreadable(self._line())
                table = {}
            elif self._take("["):
                table = self._table(top, self._keys())
                self._need("]")
            else:
                self._assign(table)
            end = LINE_END.match(self.text, self.position)
            if not end:
                raise self._error("more than one thing in a line")
            self.position = end.end()

    def _assign(self, table: Dict[str, Any]) -> None:
        keys = self._keys()
        self._need("=")
        self._skip(SPACE)
        value = self._value()
        table = self._table(table, keys[:-1])
        if keys[-1] in table:
            raise self._error("{0!r} is set twice".format(keys[-1]))
        table[keys[-1]] = value

    def _table(self, table: Dict[str, Any], keys: List[str]) -> Dict[str, Any]:
        for key in keys:
            inner = table.setdefault(key, {})
            if isinstance(inner, Unreadable):
                return {}
            if not isinstance(inner, dict):
                raise self._error("{0!r} is a value and no table".format(key))
            table = inner
        return table

    def _keys(self) -> List[str]:
        found = []
        while True:
            self._skip(SPACE)
            if self.text[self.position : self.position + 1] in ('"', "'"):
                found.append(self._line_text())
            else:
                match = BARE_KEY.match(self.text, self.position)
                if not match:
                    raise self._error("a name is missing")
                self.position = match.end()
                found.append(match.group())
            self._skip(SPACE)
            if not self._take("."):
                return found

    def _value(self) -> Any:
        if self.text.startswith(('"""', "'''"), self.position):
            return self._long_text()
        if self.text.startswith(('"', "'"), self.position):
            return self._line_text()
        if self._take("["):
            return self._array()
        if self._take("{"):
            return self._inline_table()
        match = PLAIN.match(self.text, self.position)
        if not match:
            raise self._error("a value is missing")
        line = self._line()
        self.position = match.end()
        word = match.group()
        if word in ("true", "false"):
            return word == "true"
        if INTEGER.match(word):
            digits = word.replace("_", "")
            return int(digits, 0) if digits.lstrip("+-")[:2] in ("0x", "0o", "0b") else int(digits)
        if word[0] in "+-0123456789" or word in ("inf", "nan"):
            return Unreadable(line)
        # The word may be a password that nobody has quoted.
        raise self._error("a value is none; are its quotation marks missing?")

    def _array(self) -> List[Any]:
        found: List[Any] = []
        while True:
            self._skip(GAP)
            if self._take("]"):
                return found
            found.append(self._value())
            self._skip(GAP)
            if not self._take(","):
                self._need("]")
                return found

    def _inline_table(self) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        self._skip(GAP)
        while not self._take("}"):
            self._assign(found)
            self._skip(GAP)
            if not self._take(","):
                self._need("}")
                return found
            self._skip(GAP)
        return found

    def _line_text(self) -> str:
        quotation = self.text[self.position]
        self.position += 1
        pieces: List[str] = []
        while True:
            character = self._next()
            if character == quotation:
                return "".join(pieces)
            if character == "\n":
                raise self._error("a text does not end in its line")
            pieces.append(self._escaped() if character == "\\" and quotation == '"' else character)

    def _long_text(self) -> str:
        marks = self.text[self.position : self.position + 3]
        self.position += 3
        self.position += 2 if self.text.startswith("\r\n", self.position) else 0
        self._take("\n")
        pieces: List[str] = []
        while True:
            if self._take(marks):
                # Up to two quotation marks may stand right before the three that end the text.
                for _extra in range(2):
                    if self._take(marks[0]):
                        pieces.append(marks[0])
                return "".join(pieces)
            character = self._next()
            if character == "\\" and marks[0] == '"':
                gap = re.compile(r"[ \t]*\r?\n[ \t\r\n]*").match(self.text, self.position)
                if gap:
                    self.position = gap.end()
                else:
                    pieces.append(self._escaped())
            elif character == "\r" and self.text.startswith("\n", self.position):
                continue
            else:
                pieces.append(character)

    def _escaped(self) -> str:
        character = self._next()
        if character in ESCAPES:
            return ESCAPES[character]
        digits = self.text[self.position : self.position + DIGITS.get(character, 0)]
        if not re.match(r"[0-9A-Fa-f]+\Z", digits) or len(digits) < DIGITS[character]:
            raise self._error("\\{0} means nothing in a text".format(character))
        self.position += len(digits)
        number = int(digits, 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise self._error("\\{0}{1} is no character".format(character, digits))
        return chr(number)

    def _next(self) -> str:
        if self.position == len(self.text):
            raise self._error("a text does not end")
        self.position += 1
        return self.text[self.position - 1]

    def _take(self, word: str) -> bool:
        if not self.text.startswith(word, self.position):
            return False
        self.position += len(word)
        return True

    def _need(self, word: str) -> None:
        if not self._take(word):
            raise self._error("{0!r} is missing".format(word))

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.position)
        if match:
            self.position = match.end()

    def _line(self) -> int:
        return self.text.count("\n", 0, self.position) + 1

    def _error(self, what: str) -> TomlError:
        return TomlError("line {0}: {1}".format(self._line(), what))
