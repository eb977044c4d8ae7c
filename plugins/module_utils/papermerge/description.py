# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to know of an instance before its backup: settings, schema, row counts, sizes."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping

from ..database.engines import database_at
from ..errors import MediaError, UnsupportedError
from ..media.root import MediaRoot
from ..media.scan import count_and_size
from ..owners import owner_of
from .instance import Instance


def describe_instance(
    instance: Instance, params: Mapping[str, Any], tick: Callable[[int, int], None]
) -> Dict[str, Any]:
    """Check that an instance can be backed up: media root, database, tables. Returns what there is to know of it.

    ``params``: ``media_allowed_roots``, ``derived``, ``accept_missing`` and ``sizes``. With ``sizes`` the media files
    are counted, too, and ``tick`` is told how many and how large so far. Refuses an empty media directory while
    documents are expected unless ``accept_missing``.
    """
    line = instance.line
    if line.is_known and instance.database.engine not in line.engines:
        raise UnsupportedError(
            "Papermerge {0} ({1}) does not run on {2} ({3}); set papermerge_backup_app_version or "
            "papermerge_backup_database_url".format(
                instance.version, instance.version_found_in, instance.database.engine, instance.database_found_in
            )
        )
    database = database_at(instance.database, instance.database_found_in)
    root = MediaRoot(instance.media_root, params["media_allowed_roots"], instance.media_found_in)
    try:
        database.check()
        with database.view() as view:
            view.require_tables(line)
            marker = view.schema_marker(line)
            counts = view.row_counts(line)
            expected = None
            # As long as reading all version rows.
            if params["sizes"] or not (params["accept_missing"] or _has_entries(root)):
                expected = sum(1 for row in view.expected_rows(line) if row.path is not None)
        elsewhere = instance.storage is not None and instance.storage.only
        if expected and not params["accept_missing"] and not elsewhere:
            _require_files(root, instance, expected)
        status = os.fstat(root.descriptor)
        result: Dict[str, Any] = {
            **instance.as_dict(),
            "schema_marker": marker,
            "row_counts": counts,
            "database_size": database.size(),
            "database_path": instance.database.path,
            "media_mode": status.st_mode & 0o777,
            "media_owner": owner_of(status),
        }
        if params["sizes"]:
            files, size = count_and_size(root, () if params["derived"] else line.derived, tick)
            result.update(expected_files=expected, media_files=files, media_size=size)
        return result
    finally:
        root.close()


def _has_entries(root: MediaRoot) -> bool:
    with os.scandir(root.descriptor) as entries:
        return next(entries, None) is not None


def _require_files(root: MediaRoot, instance: Instance, expected: int) -> None:
    if _has_entries(root):
        return
    raise MediaError(
        "media directory {0} ({1}) is empty, but the database expects {2} files in it; is it "
        "mounted? Set papermerge_backup_accept_missing if they are lost".format(
            instance.media_root, instance.media_found_in, expected
        )
    )
