# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's side of a restore: look at the target, unpack beside it. Module placing puts it in place."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from typing import Any, Dict, Iterator, List, Optional

from ..database import sqlite
from ..database.place import parse_database_url, require_supported
from ..durable import ExactReader, open_private, pieces, sync_file
from ..errors import DamageError, SettingError, TargetError, ToolError, describe_os_error
from ..media.extract import Extractor, Ownership, PartMemberPlan, part_member_plan
from ..papermerge.instance import Instance, InstanceRequest, find_instance
from ..papermerge.releases import release_line_named
from .main import Channel
from .placing import DATABASE, MEDIA, clear_up, interrupted_restores, require_empty
from .rows import row_record
from .workspace import require_space
from .zstd import ZSTD_MAGIC, decompressor, zstd_program

Arguments = Dict[str, Any]
Result = Dict[str, Any]


def check_target(channel: Channel, arguments: Arguments) -> Result:
    """Find where the snapshot, or one side of it, has to go and refuse what must not be touched.

    Changes nothing; with ``clear_up`` it removes what killed restores have left of their own.
    ``sides`` names ``media``, ``database`` or both. Settings win, then what is installed here, then the paths of the
    source (``source_media_root``, ``source_database_path``). ``snapshot_version`` is empty where nobody knows it.
    Raises TargetError for another version or a target that is not empty.
    """
    instance = find_instance(InstanceRequest.from_params(arguments))
    _require_version(instance, arguments["app_version"], arguments["snapshot_version"])
    media_root = database = ""
    if "media" in arguments["sides"]:
        media_root = os.path.realpath(_media_root(instance, arguments))
    if "database" in arguments["sides"]:
        database = os.path.realpath(_database_path(instance, arguments))
    if media_root and (database == media_root or database.startswith(media_root + "/")):
        raise SettingError(
            "the database {0} lies in the media directory {1}; set papermerge_backup_media_root or "
            "papermerge_backup_database_url".format(database, media_root)
        )
    interrupted = interrupted_restores(os.path.dirname(database)) if database else []
    try:
        for found in interrupted:
            found.require_undoable(media_root, database)
    finally:
        for found in interrupted:
            found.close()
    if not interrupted:
        if arguments.get("clear_up"):
            clear_up(media_root, database)
        require_empty(media_root, database)
    _require_space(media_root, database, arguments)
    return {
        "media_root": media_root,
        "database_path": database,
        "release_line": instance.line.name if instance else "",
        "interrupted": [found.journal["media_root"] for found in interrupted],
        "zstd": zstd_program() is not None,
    }


def _require_version(instance: Optional[Instance], named: Optional[str], wanted: str) -> None:
    if not wanted:
        return
    if named and named != wanted:
        raise TargetError(
            "papermerge_backup_app_version is {0}, the snapshot is of Papermerge {1}".format(named, wanted)
        )
    if instance is not None and instance.version != wanted:
        raise TargetError(
            "the target has Papermerge {0} ({1}), the snapshot is of {2}; install {2} on the target first".format(
                instance.version, instance.version_found_in, wanted
            )
        )


def _media_root(instance: Optional[Instance], arguments: Arguments) -> str:
    found = arguments["media_root"] or (instance.media_root if instance else arguments["source_media_root"])
    if not found:
        raise SettingError(
            "found no Papermerge on the target that says where the media belong; set papermerge_backup_media_root"
        )
    return str(found)


def _database_path(instance: Optional[Instance], arguments: Arguments) -> str:
    if arguments["database_url"]:
        found_in = "papermerge_backup_database_url"
        place = parse_database_url(arguments["database_url"], found_in)
    elif instance is not None:
        place, found_in = instance.database, instance.database_found_in
    elif arguments["source_database_path"]:
        return str(arguments["source_database_path"])
    else:
        raise SettingError(
            "found no Papermerge on the target that says where the database belongs; set papermerge_backup_database_url"
        )
    require_supported(place, found_in)
    return place.path


def _require_space(media_root: str, database: str, arguments: Arguments) -> None:
    """Look for room where the two sides are unpacked, on one disk for both together. An empty path needs none."""
    media_place = database_place = ""
    if media_root:
        # What is a mount point is unpacked within itself.
        media_place = media_root if os.path.ismount(media_root) else _existing(os.path.dirname(media_root))
        require_space(media_place, arguments["media_bytes"], "the media of the snapshot")
    if database:
        database_place = _existing(os.path.dirname(database))
        require_space(database_place, arguments["database_bytes"], "the database of the snapshot")
    if media_place and database_place and os.stat(media_place).st_dev == os.stat(database_place).st_dev:
        require_space(media_place, arguments["media_bytes"] + arguments["database_bytes"], "the snapshot")


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _stored(channel: Channel, arguments: Arguments) -> Iterator[bytes]:
    """Yield the stored bytes: of a file on the host where ``host_path`` names one, else the input data."""
    if not arguments["host_path"]:
        yield from channel.input_data()
        return
    try:
        with open(arguments["host_path"], "rb", buffering=0) as stream:
            yield from pieces(stream)
    except OSError as error:
        raise SettingError("cannot read {0}".format(describe_os_error(error))) from None


def _is_packed(arguments: Arguments) -> bool:
    """Tell whether the stored bytes are zstd: ``compressed`` says so, or, for a file on the host, its first bytes."""
    if arguments["host_path"]:
        with open(arguments["host_path"], "rb") as stream:
            return stream.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC
    return bool(arguments["compressed"])


def _plain(channel: Channel, arguments: Arguments) -> Iterator[bytes]:
    """Yield the stored bytes, unpacked by the zstd program when they are zstd."""
    try:
        packed = _is_packed(arguments)
    except OSError as error:
        raise SettingError("cannot read {0}".format(describe_os_error(error))) from None
    if not packed:
        yield from _stored(channel, arguments)
        return
    program = zstd_program()
    if program is None:
        raise ToolError("the data is compressed and this host has no zstd program")
    unpacked: queue.Queue[Optional[bytes]] = queue.Queue(maxsize=4)
    problems: List[BaseException] = []
    stop = threading.Event()

    def hand_over(piece: bytes) -> None:
        while not stop.is_set():
            try:
                unpacked.put(piece, timeout=0.5)
                return
            except queue.Full:
                continue

    def feed() -> None:
        try:
            with decompressor(str(program), hand_over) as pipe:
                for piece in _stored(channel, arguments):
                    pipe.write(piece)
                pipe.close()
        except BaseException as error:  # raised in the thread that reads
            problems.append(error)
        while not stop.is_set():
            try:
                unpacked.put(None, timeout=0.5)
                return
            except queue.Full:
                continue

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        while True:
            piece = unpacked.get()
            if piece is None:
                break
            yield piece
    finally:
        stop.set()
    feeder.join()
    if problems:
        raise problems[0]


def extract(channel: Channel, arguments: Arguments) -> Result:
    """Unpack one part: the input records are its members in order, the input data its tar."""
    ownership = Ownership()
    ids = ownership.ids(*arguments["directory_owner"])
    members: List[PartMemberPlan] = [part_member_plan(fields) for fields in channel.input_records()]
    with channel.held(arguments["media_stage"]) as stage:
        extractor = Extractor(stage.inside(MEDIA), arguments["directory_mode"], ids, ownership)
        try:
            source = _plain(channel, arguments)
            extractor.extract(ExactReader(source).read, arguments["tar_size"], members)
            for _rest in source:
                raise DamageError("the part goes on after the end of its archive")
        finally:
            extractor.close()
    return {"files": extractor.files, "size": extractor.size}


def receive_database(channel: Channel, arguments: Arguments) -> Result:
    """Write a database beside its place, check it, and send its version rows as records.

    ``plain_size`` (bytes) and ``plain_sha256`` are 0 and empty where nobody knows them, ``release_line`` likewise.
    """
    with channel.held(arguments["database_stage"]) as stage:
        return _receive(channel, stage.inside(DATABASE), arguments)


def _receive(channel: Channel, path: str, arguments: Arguments) -> Result:
    digest = hashlib.sha256()
    size = 0
    limit = arguments["plain_size"]
    with open_private(path) as stream:
        for piece in _plain(channel, arguments):
            stream.write(piece)
            digest.update(piece)
            size += len(piece)
            if limit and size > limit:
                raise DamageError("the database is larger than the manifest says")
            channel.progress(size, limit)
        sync_file(stream)
    sha256 = digest.hexdigest()
    if (limit and size != limit) or (arguments["plain_sha256"] and sha256 != arguments["plain_sha256"]):
        raise DamageError("the database is not the one whose size and SHA-256 were recorded")
    sqlite.check_database_file(path, "as it was unpacked")
    result: Result = {"plain_size": size, "plain_sha256": sha256, "row_counts": {}, "schema_marker": ""}
    with sqlite.DatabaseFile(path, "of the snapshot") as database:
        database.quick_check()
        if arguments["release_line"]:
            line = release_line_named(arguments["release_line"])
            database.require_tables(line)
            channel.records(row_record(row) for row in database.expected_rows(line))
            result.update(row_counts=database.row_counts(line), schema_marker=database.schema_marker(line))
    return result
