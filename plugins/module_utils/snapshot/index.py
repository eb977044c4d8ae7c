# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of a snapshot: one JSON line for each media file, sorted by raw path bytes."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, Iterator, NamedTuple, Optional

from ..errors import DamageError
from ..paths import MAX_PATH, is_safe_member, is_text, name_json, path_json, path_of, shown

PART_ID = re.compile(r"[0-9a-f]{32}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
#: A line holds one path and some numbers; a byte of a path may take six in JSON. A longer one is not an index line.
MAX_LINE = 6 * MAX_PATH + 4096


class IndexEntry(NamedTuple):
    """A media file: ``size`` in bytes, times in nanoseconds since 1970, ``sha256`` in hex, ``part`` the part's id."""

    path: bytes
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    uid: int
    gid: int
    owner: str
    group: str
    sha256: str
    part: str

    def encode(self) -> bytes:
        """Return the entry as a line with its newline."""
        text = _LINE % (
            path_json(self.path),
            self.size,
            self.mode,
            self.mtime_ns,
            self.ctime_ns,
            self.device,
            self.inode,
            self.uid,
            self.gid,
            name_json(self.owner),
            name_json(self.group),
            self.sha256,
            self.part,
        )
        return text.encode("ascii")


_LINE = (
    '{%s,"size":%d,"mode":%d,"mtime_ns":%d,"ctime_ns":%d,"device":%d,"inode":%d,"uid":%d,"gid":%d,'
    '"owner":%s,"group":%s,"sha256":"%s","part":"%s"}\n'
)
#: The line as it nearly always is, in a tenth of the time that a JSON reader needs. It has no escapes, and its numbers
#: are within their bounds; any other line is left to the reader.
_PLAIN_TEXT = rb'([^"\\\x00-\x1f\x80-\xff]*)'
_PLAIN_NUMBER = rb"(0|-?[1-9]\d{0,19})"
_PLAIN_UNSIGNED = rb"(0|[1-9]\d{0,8})"
_PLAIN_LINE = re.compile(
    rb'\{"path":"' + _PLAIN_TEXT + rb'","size":(0|[1-9]\d{0,17}),"mode":' + _PLAIN_UNSIGNED
    + b"".join(b',"' + name + b'":' + _PLAIN_NUMBER for name in (b"mtime_ns", b"ctime_ns", b"device", b"inode"))
    + rb',"uid":' + _PLAIN_UNSIGNED + rb',"gid":' + _PLAIN_UNSIGNED
    + rb',"owner":"' + _PLAIN_TEXT + rb'","group":"' + _PLAIN_TEXT
    + rb'","sha256":"([0-9a-f]{64})","part":"([0-9a-f]{32})"\}\Z'
)  # fmt: skip
_NUMBERS = ("size", "mode", "mtime_ns", "ctime_ns", "device", "inode", "uid", "gid")
#: No file system has larger ones; times, devices and inodes may be of any size.
_UNSIGNED = {"size": 1 << 63, "mode": 1 << 32, "uid": 1 << 32, "gid": 1 << 32}
_TEXTS = ("owner", "group", "sha256", "part")


def decode_entry(line: bytes) -> IndexEntry:
    """Read a line of an index. Raises DamageError for anything that :meth:`IndexEntry.encode` would not write."""
    plain = _PLAIN_LINE.match(line)
    if plain is not None and is_safe_member(plain.group(1)):
        found = plain.groups()
        return IndexEntry(
            found[0],
            int(found[1]),
            int(found[2]),
            int(found[3]),
            int(found[4]),
            int(found[5]),
            int(found[6]),
            int(found[7]),
            int(found[8]),
            found[9].decode("ascii"),
            found[10].decode("ascii"),
            found[11].decode("ascii"),
            found[12].decode("ascii"),
        )
    fields = _object(line)
    values: Dict[str, Any] = {}
    for key in _NUMBERS:
        value = fields.get(key)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or (key in _UNSIGNED and not 0 <= value < _UNSIGNED[key])
        ):
            raise DamageError("an index line has no valid {0}: {1!r}".format(key, line[:200]))
        values[key] = value
    for key in _TEXTS:
        value = fields.get(key)
        if not isinstance(value, str) or not is_text(value):
            raise DamageError("an index line has no valid {0}: {1!r}".format(key, line[:200]))
        values[key] = value
    path = path_of(fields)
    if not is_safe_member(path):
        raise DamageError("the index names a path outside the media directory: {0}".format(shown(path)))
    if not PART_ID.match(values["part"]) or not SHA256.match(values["sha256"]):
        raise DamageError("an index line has no valid part or sha256: {0!r}".format(line[:200]))
    return IndexEntry(path=path, **values)


def _object(line: bytes) -> Dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise DamageError("an index line is not a JSON object: {0!r}".format(line[:200]))
    return fields


def read_index(pieces: Iterable[bytes]) -> Iterator[IndexEntry]:
    """Read an index from pieces of its plain text. Raises DamageError when it is not sorted, or not an index."""
    last: Optional[bytes] = None
    for line in lines(pieces):
        entry = decode_entry(line)
        if last is not None and entry.path <= last:
            raise DamageError("the index is not sorted at {0}".format(shown(entry.path)))
        last = entry.path
        yield entry


def lines(pieces: Iterable[bytes], limit: int = MAX_LINE) -> Iterator[bytes]:
    """Split pieces of text into lines without their newline. Raises DamageError for a line over ``limit`` bytes."""
    rest = b""
    for piece in pieces:
        found = (rest + piece).split(b"\n")
        rest = found.pop()
        if len(rest) > limit or any(len(line) > limit for line in found):
            raise DamageError("a line is longer than {0} bytes".format(limit))
        yield from found
    if rest:
        raise DamageError("the last line is cut short")
