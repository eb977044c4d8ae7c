# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: names everything in a snapshot with size and SHA-256. docs/snapshot-format.md describes each key."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional

from ..errors import DamageError, UnsupportedError
from .index import PART_ID, SHA256

FORMAT = 1
#: What this reader knows beyond the format itself. A manifest that names anything else is refused.
FEATURES: FrozenSet[str] = frozenset()
SNAPSHOT_ID = re.compile(r"(\d{6,})-(\d{8}T\d{6}Z)\Z")
COMPLETE, INCOMPLETE = "complete", "incomplete"
MAX_MANIFEST_BYTES = 256 << 20
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True)
class StoredFile:
    """A file of the snapshot's directory: stored ``size`` in bytes and SHA-256; ``plain_size`` after decompression."""

    name: str
    size: int
    sha256: str
    plain_size: int


@dataclass(frozen=True)
class StoredPart:
    """A part that the snapshot needs, with the sizes and SHA-256 of the part file and of its commit record."""

    id: str
    size: int
    sha256: str
    record_size: int
    record_sha256: str


class Manifest:
    """A manifest that was read or is about to be written. Unknown keys are kept and ignored.

    Raises UnsupportedError for a newer format or an unknown feature, DamageError for a manifest that lacks what every
    reader needs.
    """

    def __init__(self, fields: Dict[str, Any]) -> None:
        self.fields = fields
        version = fields.get("format")
        if not isinstance(version, int) or version < 1:
            raise DamageError("the manifest has no format version")
        if version > FORMAT:
            raise UnsupportedError(
                "the snapshot has format {0}, this version of papermerge.backup reads up to {1}; "
                "upgrade the collection".format(version, FORMAT)
            )
        features = fields.get("features")
        if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
            raise DamageError("the manifest has no list of features")
        unknown = sorted(set(features) - FEATURES)
        if unknown:
            raise UnsupportedError(
                "the snapshot uses {0}, which this version of papermerge.backup does not know; "
                "upgrade the collection".format(", ".join(unknown))
            )
        self.id = self._text(fields, "id", SNAPSHOT_ID)
        self.sequence = self._count(fields, "sequence")
        self.instance = self._text(fields, "instance")
        self.state = self._text(fields, "state", re.compile(r"(in)?complete\Z"))
        self.started = self._text(fields, "started")
        self.ended = self._text(fields, "ended")
        self.papermerge = self._object(fields, "papermerge")
        self.version = self._text(self.papermerge, "version")
        self.release_line = self._text(self.papermerge, "release_line")
        self.release_line_only = self.papermerge.get("release_line_only", False) is True
        self.database = self._object(fields, "database")
        self.engine = self._text(self.database, "engine")
        self.schema_marker = self._text(self.database, "schema_marker")
        self._text(self.database, "path")
        self._text(self.database, "plain_sha256", SHA256)
        if self.engine == "sqlite":
            self._ownership(self.database)
        self.media = self._object(fields, "media")
        self._text(self.media, "root")
        self._ownership(self.media)
        self.row_counts = {
            key: self._count(self._object(fields, "row_counts"), key) for key in self._object(fields, "row_counts")
        }
        self.proof = self._object(fields, "proof")
        self.totals = self._object(fields, "totals")
        for name in ("proved", "expected"):
            self._count(self.proof, name)
        for name in ("files", "media_bytes"):
            self._count(self.totals, name)
        files = self._object(fields, "files")
        self.database_file = self._file(files, "database")
        self.index_file = self._file(files, "index")
        self.config_file = self._file(files, "config") if files.get("config") is not None else None
        self.config_entries = self._entries(fields) if self.config_file is not None else []
        self.parts = self._parts(fields)
        if int(self.id.split("-")[0]) != self.sequence:
            raise DamageError("the manifest's id {0} is not that of its sequence {1}".format(self.id, self.sequence))

    @staticmethod
    def _object(fields: Mapping[str, Any], key: str) -> Dict[str, Any]:
        value = fields.get(key)
        if not isinstance(value, dict):
            raise DamageError("the manifest has no valid {0}".format(key))
        return value

    @staticmethod
    def _text(fields: Mapping[str, Any], key: str, pattern: Optional[Any] = None) -> str:
        value = fields.get(key)
        if not isinstance(value, str) or (pattern is not None and not pattern.match(value)):
            raise DamageError("the manifest has no valid {0}".format(key))
        return value

    @staticmethod
    def _count(fields: Mapping[str, Any], key: str) -> int:
        value = fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DamageError("the manifest has no valid {0}".format(key))
        return value

    def _ownership(self, fields: Mapping[str, Any]) -> None:
        """Check ``mode``, and ``owner``: user id, group id, and their names."""
        self._count(fields, "mode")
        owner = fields.get("owner")
        if not isinstance(owner, list) or [type(value) for value in owner] != [int, int, str, str]:
            raise DamageError("the manifest has no valid owner")

    def _file(self, files: Mapping[str, Any], key: str) -> StoredFile:
        fields = self._object(files, key)
        return StoredFile(
            self._text(fields, "name", FILE_NAME),
            self._count(fields, "size"),
            self._text(fields, "sha256", SHA256),
            self._count(fields, "plain_size"),
        )

    def _entries(self, fields: Mapping[str, Any]) -> List[Dict[str, Any]]:
        """Check what the manifest says of settings files: name, size, SHA-256, mode and owner of each."""
        config = self._object(fields, "config")
        self._text(config, "plain_sha256", SHA256)
        rows = config.get("entries")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DamageError("the manifest has no valid config")
        for row in rows:
            self._text(row, "name")
            self._count(row, "size")
            self._text(row, "sha256", SHA256)
            self._ownership(row)
        return rows

    def _parts(self, fields: Mapping[str, Any]) -> List[StoredPart]:
        rows = fields.get("parts")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DamageError("the manifest has no valid parts")
        return [
            StoredPart(
                self._text(row, "id", PART_ID),
                self._count(row, "size"),
                self._text(row, "sha256", SHA256),
                self._count(row, "record_size"),
                self._text(row, "record_sha256", SHA256),
            )
            for row in rows
        ]

    def encode(self) -> bytes:
        """Return the manifest as it is written: JSON, indented for readers."""
        return (json.dumps(self.fields, indent=1, sort_keys=False) + "\n").encode("ascii")


def decode_manifest(text: bytes) -> Manifest:
    """Read a manifest. Raises DamageError or UnsupportedError."""
    try:
        fields = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise DamageError("the manifest is not a JSON object")
    return Manifest(fields)


def checksum_line(text: bytes) -> bytes:
    """Return the content of manifest.json.sha256, in the form of the sha256sum program."""
    return "{0}  manifest.json\n".format(hashlib.sha256(text).hexdigest()).encode("ascii")
