# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths as records: file names are bytes, JSON is text.

A path is written as ``path`` when it is valid UTF-8 and as ``path_base64`` otherwise, everywhere in the snapshot and
between agent and controller.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import lru_cache
from typing import Any, Dict, Mapping

from .errors import DamageError

#: Linux bounds a name and the path of one system call, not the depth of a tree. Every reader of the format takes paths
#: of this many bytes, so nothing longer may get into a snapshot.
MAX_PATH = 64 * 1024


def path_fields(path: bytes) -> Dict[str, str]:
    """Return ``{"path": text}`` or ``{"path_base64": text}`` for a path."""
    try:
        return {"path": path.decode("utf-8")}
    except UnicodeDecodeError:
        return {"path_base64": base64.b64encode(path).decode("ascii")}


def path_json(path: bytes) -> str:
    """Return :func:`path_fields` as the beginning of a JSON object's text, without braces. Quicker than json.dumps."""
    try:
        return '"path":' + json.dumps(path.decode("utf-8"))
    except UnicodeDecodeError:
        return '"path_base64":"' + base64.b64encode(path).decode("ascii") + '"'


@lru_cache(maxsize=256)
def name_json(name: str) -> str:
    """Return the name of an owner or group as JSON text."""
    return json.dumps(name)


def path_of(fields: Mapping[str, Any]) -> bytes:
    """Return the path that :func:`path_fields` wrote. Raises DamageError when there is none."""
    text = fields.get("path")
    if isinstance(text, str):
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError:
            raise DamageError("a path holds characters that no path can hold: {0!r}".format(text)) from None
    text = fields.get("path_base64")
    if isinstance(text, str):
        try:
            return base64.b64decode(text.encode("ascii"), validate=True)
        except (ValueError, binascii.Error):
            raise DamageError("a path is not base64: {0!r}".format(text)) from None
    raise DamageError("a record has neither path nor path_base64")


def is_text(value: str) -> bool:
    """Tell whether a text is Unicode, without the surrogates by which Python smuggles other bytes."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(path: bytes) -> str:
    """Return a path for messages: readable, on one line."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]


#: An empty, ``.`` or ``..`` name between slashes or the ends, or a zero byte.
_UNSAFE = re.compile(rb"(?:\A|/)\.{0,2}(?:/|\Z)|\0")


def is_safe_member(path: bytes) -> bool:
    """Tell whether a path stays below the directory it is put in: relative, without empty, ``.`` or ``..`` parts."""
    return _UNSAFE.search(path) is None
