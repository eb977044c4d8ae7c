# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to know of an instance before its backup: settings, schema, row counts, sizes."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping

from ..database import sqlite
from ..database.place import require_supported
from ..errors import MediaError
from ..media.archive import group_name, owner_name
from ..media.root import MediaRoot
from ..media.scan import count_and_size
from .instance import Instance, InstanceRequest, require_instance


def describe_instance(params: Mapping[str, Any], tick: Callable[[int, int], None]) -> Dict[str, Any]:
    """Find the instance and check that it can be backed up: media root, database, tables.

    ``params``: the discovery settings, ``media_allowed_roots``, ``derived``, ``accept_missing`` and ``sizes``. With
    ``sizes`` the media files are counted, too, and ``tick`` is told how many and how large so far. Refuses an empty
    media directory while documents are expected unless ``accept_missing``.
    """
    instance = require_instance(InstanceRequest.from_params(params))
    require_supported(instance.database, instance.database_found_in)
    place = instance.database.path
    root = MediaRoot(instance.media_root, params["media_allowed_roots"], instance.media_found_in)
    try:
        sqlite.check_database_file(place, instance.database_found_in)
        with sqlite.DatabaseFile(place, place, live=True) as database:
            database.require_tables(instance.line)
            marker = database.schema_marker(instance.line)
            counts = database.row_counts(instance.line)
            expected = sum(1 for row in database.expected_rows(instance.line) if row.path is not None)
        if expected and not params["accept_missing"]:
            _require_files(root, instance, expected)
        status = os.fstat(root.descriptor)
        result: Dict[str, Any] = {
            **instance.as_dict(),
            "schema_marker": marker,
            "row_counts": counts,
            "expected_files": expected,
            "database_size": database_size(place),
            "database_path": place,
            "media_mode": status.st_mode & 0o777,
            "media_owner": [status.st_uid, status.st_gid, owner_name(status.st_uid), group_name(status.st_gid)],
        }
        if params["sizes"]:
            files, size = count_and_size(root, () if params["derived"] else instance.line.derived, tick)
            result.update(media_files=files, media_size=size)
        return result
    finally:
        root.close()


def database_size(place: str) -> int:
    """Return the size in bytes of a SQLite database with its write-ahead log."""
    return sum(_size(place + suffix) for suffix in ("", "-wal"))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _require_files(root: MediaRoot, instance: Instance, expected: int) -> None:
    with os.scandir(root.descriptor) as entries:
        if next(entries, None) is not None:
            return
    raise MediaError(
        "media directory {0} ({1}) is empty, but the database expects {2} files in it; is it "
        "mounted? Set papermerge_backup_accept_missing if they are lost".format(
            instance.media_root, instance.media_found_in, expected
        )
    )
