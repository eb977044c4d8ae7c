# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commit record of a part: what the part's tar holds, member by member, in the order of the tar."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Optional

from ..errors import DamageError
from ..paths import is_safe_member, path_json, path_of, shown
from .index import PART_ID, SHA256

FORMAT = 1
#: Content bytes that are put into a part: what a cut can cost, and what several agents share out.
PART_CONTENT_BYTES = 256 << 20
#: Members of a part, at most, so that a reader may hold one record in memory.
PART_MEMBERS = 16_384
#: And the bytes of its members' paths together.
PART_PATH_BYTES = 32 << 20
#: A frame holds at most this many bytes of tar, or one member.
FRAME_BYTES = 32 << 20
#: And at most this many members, so that one of many tiny files is read with a quarter of its part.
FRAME_MEMBERS = 4096
#: A plain record stays below this, even where every byte of a path takes six in JSON.
MAX_RECORD_BYTES = 256 << 20


class PartMember(NamedTuple):
    """A member: ``size`` in bytes, ``sha256`` of its content, ``offset`` of its zstd frame in the part file."""

    path: bytes
    size: int
    sha256: str
    offset: int


@dataclass
class PartRecord:
    """``size`` and ``sha256`` are those of the stored part file; ``tar_size`` is the length of the plain tar."""

    part: str
    size: int
    sha256: str
    tar_size: int
    members: List[PartMember] = field(default_factory=list)

    @property
    def frame_offsets(self) -> List[int]:
        """Where frames begin in the part file, sorted: the first one, and all that hold a member's beginning."""
        return sorted({0, *(member.offset for member in self.members)})

    def encode(self) -> bytes:
        """Return the record as JSON text, one member a line."""
        head = {
            "format": FORMAT,
            "part": self.part,
            "size": self.size,
            "sha256": self.sha256,
            "tar_size": self.tar_size,
        }
        rows = ",\n".join(
            '{%s,"size":%d,"sha256":"%s","offset":%d}' % (path_json(path), size, sha256, offset)
            for path, size, sha256, offset in self.members
        )
        return (json.dumps(head)[:-1] + ', "members": [\n' + rows + "\n]}\n").encode("ascii")


def _count(fields: Dict[str, Any], key: str) -> int:
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DamageError("a part's record has no valid {0}".format(key))
    return value


def _text(fields: Dict[str, Any], key: str, pattern: Any) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not pattern.match(value):
        raise DamageError("a part's record has no valid {0}".format(key))
    return value


#: A member as it nearly always is, read in a third of the time that a JSON reader and its checks need.
_PLAIN_ROW = re.compile(
    rb'\{"path":"([^"\\\x00-\x1f\x80-\xff]*)","size":(0|[1-9]\d{0,17}),"sha256":"([0-9a-f]{64})",'
    rb'"offset":(0|[1-9]\d{0,17})\},?\Z'
)
_ROWS_BEGIN, _ROWS_END = b', "members": [', [b"]}", b""]


def _plain_members(lines: List[bytes]) -> Optional[List[PartMember]]:
    """Read the lines of members as :meth:`PartRecord.encode` writes them; None leaves them to a JSON reader."""
    members = []
    for number, line in enumerate(lines, 1 - len(lines)):
        row = _PLAIN_ROW.match(line)
        if row is None or line.endswith(b",") is not (number < 0) or not is_safe_member(row.group(1)):
            return None
        path, size, sha256, offset = row.groups()
        members.append(PartMember(path, int(size), sha256.decode("ascii"), int(offset)))
    return members


def decode_record(text: bytes) -> PartRecord:
    """Read a commit record. Raises DamageError for anything but a record of this format."""
    lines = text.split(b"\n")
    plain = None
    if lines[0].endswith(_ROWS_BEGIN) and lines[-2:] == _ROWS_END:
        plain = _plain_members(lines[1:-2])
        if plain is not None:
            text = lines[0] + b"]}"
    del lines
    try:
        fields = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT or not isinstance(fields.get("members"), list):
        raise DamageError("a part's record is not one of format {0}".format(FORMAT))
    members = plain or []
    for row in fields["members"]:
        if not isinstance(row, dict):
            raise DamageError("a part's record has a member that is not an object")
        path = path_of(row)
        if not is_safe_member(path):
            raise DamageError("a part's record names a path outside the media directory: {0}".format(shown(path)))
        members.append(PartMember(path, _count(row, "size"), _text(row, "sha256", SHA256), _count(row, "offset")))
    return PartRecord(
        _text(fields, "part", PART_ID),
        _count(fields, "size"),
        _text(fields, "sha256", SHA256),
        _count(fields, "tar_size"),
        members,
    )
