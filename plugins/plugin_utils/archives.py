# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A media directory by itself: archived to a directory of parts, restored from one, on the controller or on the host.

Such a directory holds archive.json (written last: without it there is no archive), the index, the parts and their
commit records, all in the format of a snapshot.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import (
    make_private_directory,
    sync_directory,
    write_private,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DamageError,
    LossError,
    SettingError,
    ToolError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import (
    CHANGING,
    UNREADABLE,
    ArchivedFile,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import release_line_named
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredFile, StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartRecord
from ansible_collections.papermerge.backup.plugins.plugin_utils.archiving import MediaArchive
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.dumps import abandon
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import PART_SUFFIX, RECORD_SUFFIX
from ansible_collections.papermerge.backup.plugins.plugin_utils.scanning import excluded_directories, scan
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    PartWriter,
    part_members,
    read_stored,
    require_zstandard,
    storage_errors,
    store,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import StoredMedia
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Handlers,
    Session,
    told_to,
)

FORMAT = 1
DESCRIPTION, INDEX = "archive.json", "index.jsonl.zst"


class _HostPart:
    """A part that the agent writes on the host; its record is made here and sent there."""

    def __init__(self, session: Session, directory: str, scratch: Path) -> None:
        self.id = secrets.token_hex(16)
        self.host_path = f"{directory}/{self.id}{PART_SUFFIX}"
        self._session = session
        self._directory = directory
        self._scratch = scratch
        self._offsets = [0]

    def write(self, data: bytes) -> None:
        del data  # the agent keeps it

    def end_frame(self, event: dict[str, Any]) -> None:
        self._offsets.append(int(event["stored"]))

    def finish(self, files: Iterable[ArchivedFile], result: dict[str, Any]) -> StoredPart:
        stored = result["stored"]
        members = part_members(files, self._offsets)
        record = PartRecord(self.id, stored["size"], stored["sha256"], result["tar_size"], members)
        packed = store(self._scratch / (self.id + RECORD_SUFFIX), [record.encode()])
        send_file(self._session, self._scratch / packed.name, f"{self._directory}/{packed.name}")
        return StoredPart(self.id, stored["size"], stored["sha256"], packed.size, packed.sha256)

    def discard(self) -> None:
        return

    def close(self) -> None:
        return


def send_file(session: Session, path: Path, host_path: str) -> None:
    """Write a file of the controller to the host."""
    session.call(Call("write_file", {"host_path": host_path}, data=read_stored(path)))


def free_directory(dest: str) -> Path:
    """Return a directory on the controller that is absent or empty. Raises SettingError."""
    path = Path(os.path.abspath(os.path.expanduser(dest)))
    with storage_errors(path):
        if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
            raise SettingError(f"{path} is not an empty directory; name another dest")
        if not path.parent.is_dir():
            raise SettingError(f"directory {path.parent} does not exist on the controller")
    return path


def archive_media(
    session: Session, settings: dict[str, Any], dest: str, on_host: bool, scratch: Path, progress: Progress
) -> dict[str, Any]:
    """Archive the host's media directory; returns where, and counts in files and bytes.

    ``settings``: the agent's discovery arguments. Raises LossError, and leaves no archive, when a file cannot be read.
    """
    require_zstandard()
    found = session.call(Call("describe", settings), told_to(progress))
    packs = bool(found["host"]["zstd"])
    if on_host:
        if not packs:
            raise ToolError(
                "the host has no zstd program, without which it cannot keep a media archive; install it, "
                "or let the archive go to the controller"
            )
        session.call(Call("make_directory", {"path": dest}))
        place = scratch
    else:
        place = free_directory(dest)
        with storage_errors(place):
            if not place.exists():
                make_private_directory(place)
    try:
        return _archive(session, settings, found, dest, on_host, place, scratch, progress)
    except BaseException:
        if not on_host:
            for path in place.iterdir():
                path.unlink()
        raise


def _archive(
    session: Session,
    settings: dict[str, Any],
    found: dict[str, Any],
    dest: str,
    on_host: bool,
    place: Path,
    scratch: Path,
    progress: Progress,
) -> dict[str, Any]:
    packs = bool(found["host"]["zstd"])
    media = {"root": found["media_root"], "media_allowed_roots": settings["media_allowed_roots"]}

    def new_part() -> Any:
        return _HostPart(session, dest, scratch) if on_host else PartWriter(place, packs)

    with Catalog(scratch / "archive.sqlite3") as catalog:
        archive = MediaArchive(session, catalog, progress, media, packs, new_part)
        excluded = excluded_directories(release_line_named(found["release_line"]), settings["derived"])
        scan(session, catalog, progress, media, excluded)
        archive.fetch()
        if catalog.retry(CHANGING):
            archive.fetch()
        for state in (UNREADABLE, CHANGING):
            example = catalog.example(state)
            if example is not None:
                raise LossError(f"{shown(example[0])} in {found['media_root']} could not be read: {example[1]}")
        index = store(place / INDEX, (entry.encode() for entry in catalog.entries()))
        files, size = catalog.totals()
    description = {
        "format": FORMAT,
        "media": {
            "root": found["media_root"],
            "layout": found["media_layout"],
            "mode": found["media_mode"],
            "owner": found["media_owner"],
            "derived": settings["derived"],
        },
        "version": found["version"],
        "files": files,
        "media_bytes": size,
        "index": asdict(index),
        "parts": [asdict(part) for part in archive.parts],
    }
    with storage_errors(place):
        write_private(place / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode("ascii"))
        sync_directory(place)
    if on_host:
        send_file(session, place / INDEX, f"{dest}/{INDEX}")
        send_file(session, place / DESCRIPTION, f"{dest}/{DESCRIPTION}")
        session.call(Call("keep_directory", {"path": dest}))
    stored = index.size + sum(part.size + part.record_size for part in archive.parts)
    return {
        "dest": dest if on_host else str(place),
        "media_root": found["media_root"],
        "files": files,
        "media_bytes": size,
        "stored_bytes": stored,
        "parts": len(archive.parts),
    }


def _load(directory: Path, host_parts: str = "") -> tuple[StoredMedia, dict[str, Any]]:
    try:
        fields = json.loads((directory / DESCRIPTION).read_text("ascii"))
        if fields["format"] != FORMAT:
            raise DamageError(f"{directory / DESCRIPTION} has format {fields['format']}, not {FORMAT}")
        parts = [StoredPart(**part) for part in fields["parts"]]
        index = StoredFile(**fields["index"])
        media = StoredMedia(
            str(directory), directory / INDEX, index, directory, parts, int(fields["files"]), host_parts
        )
    except FileNotFoundError:
        raise SettingError(f"{directory} holds no media archive: {DESCRIPTION} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{directory / DESCRIPTION} is damaged: {error}") from None
    return media, fields


def open_archive(session: Session, src: str, on_host: bool, scratch: Path) -> tuple[StoredMedia, dict[str, Any]]:
    """Return an archive's media and description. From a host, index and records are fetched to ``scratch``."""
    if not on_host:
        return _load(Path(os.path.abspath(os.path.expanduser(src))))
    _fetch(session, src, scratch, DESCRIPTION)
    _fetch(session, src, scratch, INDEX)
    media, fields = _load(scratch, src)
    for part in media.parts:
        _fetch(session, src, scratch, part.id + RECORD_SUFFIX)
    return media, fields


def _fetch(session: Session, directory: str, scratch: Path, name: str) -> None:
    with storage_errors(scratch), open(scratch / name, "xb") as stream:
        session.call(Call("read_file", {"path": f"{directory}/{name}"}), Handlers(data=stream.write))


def restore_media(
    session: Session,
    media: StoredMedia,
    fields: dict[str, Any],
    target: dict[str, Any],
    catalog: Catalog,
    progress: Progress,
) -> dict[str, Any]:
    """Put an archive that was checked onto a target whose media directory is absent or empty.

    ``target``: the answer of the agent's check_target. Returns where, and counts in files and bytes.
    """
    where = {"media_root": target["media_root"], "database_path": "", "server": None}
    owner = {"directory_mode": fields["media"]["mode"], "directory_owner": fields["media"]["owner"]}
    state = session.call(Call("begin_restore", where))
    try:
        files, size = media.send(
            session, catalog, progress, state["media_stage"], owner, bool(target["zstd"]) or bool(media.host_parts)
        )
        session.call(Call("place", {**where, **owner, "state": state}))
    except BaseException:
        abandon(session, state)
        raise
    return {"media_root": target["media_root"], "files": files, "media_bytes": size}
