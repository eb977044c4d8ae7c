# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a file is: numbers of user and group, and the names that a restore on another host goes by."""

from __future__ import annotations

import grp
import os
import pwd
from functools import lru_cache
from typing import Any, List

from .paths import is_text


def owner_of(status: os.stat_result) -> List[Any]:
    """Return user id, group id, and their names, which are empty where there is none."""
    return [status.st_uid, status.st_gid, owner_name(status.st_uid), group_name(status.st_gid)]


@lru_cache(maxsize=256)
def owner_name(uid: int) -> str:
    """Return the name of a user id, or an empty text for one without a name that is text."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
    return name if is_text(name) else ""


@lru_cache(maxsize=256)
def group_name(gid: int) -> str:
    """Return the name of a group id, or an empty text for one without a name that is text."""
    try:
        name = grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
    return name if is_text(name) else ""
