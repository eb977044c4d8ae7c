# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database by itself: dumped to a file, restored from one, on the controller or on the host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import sync_directory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.media.frames import ZSTD_MAGIC
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    StoredWriter,
    read_stored,
    require_zstandard,
    storage_errors,
    unpack,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Session,
    told_to,
)

#: What a dump of a database file tells besides.
SQLITE_FACTS = ("restarts", "locked_seconds", "journal_mode")
#: A database that claims to be larger once unpacked is not believed.
MAX_DATABASE_BYTES = 1 << 44


def free_path(path: str) -> Path:
    """Return a path on the controller that is still free. Raises SettingError."""
    found = Path(os.path.abspath(os.path.expanduser(path)))
    if os.path.lexists(found):
        raise SettingError(f"{found} exists already; name another dest")
    if not found.parent.is_dir():
        raise SettingError(f"directory {found.parent} does not exist on the controller")
    return found


def dump_database(
    session: Session, settings: dict[str, Any], dest: str, on_host: bool, progress: Progress
) -> dict[str, Any]:
    """Dump the host's database to a new file; returns path, sizes in bytes, SHA-256 and row counts.

    ``settings``: the agent's discovery arguments and ``copy_dir``. On the controller the file is compressed; on a host
    without the zstd program it is the plain database.
    """
    require_zstandard()
    path = None if on_host else free_path(dest)
    found = session.call(Call("describe", settings), told_to(progress))
    packs = bool(found["host"]["zstd"])
    progress.begin("database", found["database_size"])
    arguments = {
        "instance": settings["instance"],
        "copy_dir": settings["copy_dir"] or "",
        "compress": packs,
        "host_path": dest if path is None else "",
    }
    if path is None:
        dump = session.call(Call("dump_database", arguments), told_to(progress))
        stored = dump["stored"]
    else:
        dump, stored = _to_controller(session, arguments, path, packs, progress)
    return {
        "dest": dest if path is None else str(path),
        "compressed": packs or path is not None,
        "size": stored["size"],
        "sha256": stored["sha256"],
        "format": dump["dump_format"],
        **{name: dump[name] for name in ("plain_size", "plain_sha256", "row_counts", "schema_marker")},
        **{name: dump["facts"][name] for name in SQLITE_FACTS if name in dump["facts"]},
    }


def _to_controller(
    session: Session, arguments: dict[str, Any], path: Path, packs: bool, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    partial = path.with_name(path.name + ".partial")
    writer = StoredWriter(partial, packs)
    try:
        dump = session.call(
            Call("dump_database", arguments),
            told_to(progress, data=writer.write),
        )
        sha256 = writer.finish()
        stored = {"size": writer.size, "sha256": sha256}
        with storage_errors(path):
            os.rename(partial, path)
            sync_directory(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        writer.close()
    return dump, stored


def restore_database(
    session: Session, target: dict[str, Any], src: str, on_host: bool, sha256: str, progress: Progress
) -> dict[str, Any]:
    """Put a dump onto a target whose database is absent or empty; returns path, size in bytes and row counts.

    ``target``: the answer of the agent's check_target. ``sha256``: of the content, in hex; empty where unknown.
    """
    path = Path(os.path.expanduser(src))
    packed = not on_host and _is_packed(path)
    where = {"media_root": "", "database_path": target["database_path"], "server": target["server"]}
    state = session.call(Call("begin_restore", where))
    try:
        progress.begin("database")
        arguments = {
            "database_stage": state["database_stage"],
            "server": target["server"],
            "release_line": target["release_line"],
            "compressed": packed and bool(target["zstd"]),
            "host_path": src if on_host else "",
            "plain_size": 0,
            "plain_sha256": sha256,
        }
        data = None
        if not on_host:
            data = read_stored(path)
            if packed and not target["zstd"]:
                data = unpack(data, MAX_DATABASE_BYTES, str(path))
        received = session.call(Call("receive_database", arguments, data=data), told_to(progress))
        session.call(
            Call(
                "place",
                {**where, "state": state, "database_mode": 0o600, "database_owner": None},
            )
        )
    except BaseException:
        abandon(session, state)
        raise
    return {"database_path": target["database_path"], "database_url": target["database_url"], **received}


def abandon(session: Session, state: dict[str, Any]) -> None:
    """Undo what a session of separate requests has begun; any other agent does so by itself."""
    if session.separate_requests:
        try:
            session.call(Call("abandon_restore", {"state": state}))
        except BackupError:
            return  # the next restore finds what is left and removes it


def _is_packed(path: Path) -> bool:
    with storage_errors(path), open(path, "rb") as stream:
        return stream.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC


def check_source(src: str) -> None:
    """Raise SettingError unless a source on the controller can be read."""
    path = Path(os.path.expanduser(src))
    if not os.access(path, os.R_OK):
        raise SettingError(f"{path} does not exist on the controller, or cannot be read")
