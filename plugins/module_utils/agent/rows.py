# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Version rows as records."""

from __future__ import annotations

import os
from typing import Any, Dict

from ..papermerge.releases import ExpectedRow
from ..paths import path_fields


def row_record(row: ExpectedRow) -> Dict[str, Any]:
    """Return a version row as a record; without a path where no file is expected."""
    path = path_fields(row.path) if row.path is not None else {}
    return {"row": row.row, "key": row.key, "older": row.older, "directory": os.fsdecode(row.directory), **path}
