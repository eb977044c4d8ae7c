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
from ..database.view import View
from ..durable import PIECE, ExactReader, Piece, open_private, pieces, sync_file
from ..errors import DamageError, SettingError, TargetError, ToolError, describe_os_error
from ..media.extract import Extractor, Ownership, member_plans
from ..media.frames import ZSTD_MAGIC
from ..media.raw import CUT_SHORT, MOST_BLOCKS, raw_extents, read_extents
from ..papermerge.instance import Instance
from ..papermerge.releases import release_line_named, release_line_of
from .configuration import require_free, restore_configuration
from .interrupted import DATABASE, MEDIA, interrupted_restores
from .main import Channel
from .placing import clear_up, require_empty
from .rows import row_record
from .target import database_place_of, instance_on_target, media_root_of, server_of
from .workspace import require_space
from .zstd import decompressor, zstd_program

Arguments = Dict[str, Any]
Result = Dict[str, Any]


def check_target(channel: Channel, arguments: Arguments) -> Result:
    """Find where the snapshot, or one side of it, has to go and refuse what must not be touched.

    Changes nothing; with ``clear_up`` it removes what killed restores have left of their own.
    ``sides`` names ``media``, ``database`` or both. ``instance``: the discovery settings. ``source_database``:
    ``engine``, ``path``, ``url`` and ``facts``. ``snapshot_version`` is empty where nobody knows it;
    ``snapshot_line_only``: it stands for a release line of which no more is known.
    Raises TargetError for another version or a target that is not empty.
    """
    instance = instance_on_target(channel, arguments["instance"])
    note = _require_version(instance, arguments["instance"].get("app_version"), arguments)
    media_root = database = database_url = ""
    server_request = None
    if "media" in arguments["sides"]:
        media_root = os.path.realpath(media_root_of(instance, arguments))
    if "database" in arguments["sides"]:
        place, _found_in = database_place_of(instance, arguments)
        database_url = place.url
        if place.engine == "sqlite":
            database = os.path.realpath(place.path)
        else:
            server_request = {name: arguments[name] for name in ("instance", "source_database", "admin_url")}
    server = server_of(channel, server_request)
    if media_root and (database == media_root or database.startswith(media_root + "/")):
        raise SettingError(
            "the database {0} lies in the media directory {1}; set papermerge_backup_media_root or "
            "papermerge_backup_database_url".format(database, media_root)
        )
    if server is not None:
        server.require_fit(arguments["source_database"]["facts"])
    interrupted = interrupted_restores(media_root, database, server)
    try:
        for found in interrupted:
            found.require_undoable(media_root, database, server)
    finally:
        for found in interrupted:
            found.close()
    if not interrupted:
        if arguments.get("clear_up"):
            clear_up(media_root, database, server)
        require_empty(media_root, database, server)
    require_free(arguments.get("config", []))
    _require_space(media_root, database, arguments)
    return {
        "media_root": media_root,
        "database_path": database,
        "database_url": database_url,
        "server": server_request,
        "release_line": instance.line.name if instance else "",
        "version_note": note,
        "interrupted": [found.journal["media_root"] for found in interrupted],
        "zstd": zstd_program() is not None,
    }


def _require_version(instance: Optional[Instance], named: Optional[str], arguments: Arguments) -> str:
    """Return what is not certain about the target's version. Raises TargetError for another one than the snapshot's."""
    wanted, vaguely = arguments["snapshot_version"], arguments.get("snapshot_line_only", False)
    if not wanted:
        return ""
    line = release_line_of(wanted)
    if named and named != wanted and not (vaguely and release_line_of(named) is line):
        raise TargetError(
            "papermerge_backup_app_version is {0}, the snapshot is of Papermerge {1}".format(
                named, "of the release line {0}".format(line.name) if vaguely else wanted
            )
        )
    if instance is None or (instance.version == wanted and not (vaguely or instance.line_only)):
        return ""
    if (vaguely or instance.line_only) and instance.line is line:
        return (
            "nobody knows whether the target has exactly the release of the snapshot: the target has {0} ({1}), the "
            "snapshot is of {2}; both are of the release line {3}, which is all that is known of {4}".format(
                instance.version,
                instance.version_found_in,
                wanted,
                line.name,
                "the snapshot" if vaguely else "the target",
            )
        )
    raise TargetError(
        "the target has Papermerge {0} ({1}), the snapshot is of {2}; install {2} on the target first".format(
            instance.version, instance.version_found_in, "{0} ({1})".format(wanted, line.name) if vaguely else wanted
        )
    )


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
    yield from _unpacked(_stored(channel, arguments)) if packed else _stored(channel, arguments)


def _unpacked(stored: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what the zstd program makes of stored bytes. Raises DamageError, or ToolError where there is none."""
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
                for piece in stored:
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


def _part_here(path: str, starts: List[int]) -> Iterator[Piece]:
    """Yield the tar of a part that lies on this host. ``starts``: of its frames, or of some of them, sorted.

    What is there as raw blocks is read from where it lies; everything else goes through the zstd program. A piece may
    be a view of a buffer that is used again for the next one.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise SettingError("cannot read {0}".format(describe_os_error(error))) from None
    with stream:
        descriptor, size = stream.fileno(), os.fstat(stream.fileno()).st_size
        room, unread, position = MOST_BLOCKS, 0, 0
        for start, end in zip(starts, [*starts[1:], size]):
            extents = raw_extents(descriptor, start, end, room)
            if extents is None:
                position = end
                continue
            if unread < position:
                yield from _unpacked(_stretch(descriptor, unread, position))
            room -= len(extents)
            yield from read_extents(descriptor, extents)
            unread = position = end
        if unread < size:
            yield from _unpacked(_stretch(descriptor, unread, size))


def _stretch(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        piece = os.pread(descriptor, min(PIECE, end - start), start)
        if not piece:
            raise DamageError(CUT_SHORT)
        start += len(piece)
        yield piece


def extract(channel: Channel, arguments: Arguments) -> Result:
    """Unpack one part: the input records are its members in order, the input data its tar.

    ``host_path``: of a part that lies on this host, else empty; ``frames``: where frames begin in it, sorted.
    ``media_stage``, ``media_identity``: what begin_restore of this agent or another one beside it has answered.
    """
    ownership = Ownership()
    ids = ownership.ids(*arguments["directory_owner"])
    members = list(member_plans(channel.input_records()))
    with channel.held(arguments["media_stage"], arguments["media_identity"]) as stage:
        extractor = Extractor(stage.inside(MEDIA), arguments["directory_mode"], ids, ownership)
        try:
            here = arguments["host_path"]
            source = _part_here(here, arguments["frames"]) if here else _plain(channel, arguments)
            extractor.extract(ExactReader(source), arguments["tar_size"], members)
            for _rest in source:
                raise DamageError("the part goes on after the end of its archive")
        finally:
            extractor.close()
    return {"files": extractor.files, "size": extractor.size}


def receive_config(channel: Channel, arguments: Arguments) -> Result:
    """Write settings files: the input data are their tar, ``entries`` the manifest's."""
    return {"written": restore_configuration(_plain(channel, arguments), arguments["entries"])}


def receive_database(channel: Channel, arguments: Arguments) -> Result:
    """Put a database beside its place, check it, and send its version rows as records.

    ``plain_size`` (bytes) and ``plain_sha256`` are 0 and empty where nobody knows them, ``release_line`` likewise.
    """
    content = _Content(channel, arguments)
    server = server_of(channel, arguments.get("server"))
    if server is not None:
        server.load(arguments["database_stage"], content.pieces())
        with server.staged_view(arguments["database_stage"]) as view:
            return {**content.require_whole(), **_compare(channel, view, arguments)}
    with channel.held(arguments["database_stage"]) as stage:
        path = stage.inside(DATABASE)
        with open_private(path) as stream:
            for piece in content.pieces():
                stream.write(piece)
            sync_file(stream)
        result = content.require_whole()
        sqlite.check_database_file(path, "as it was unpacked")
        with sqlite.DatabaseFile(path, "of the snapshot") as file:
            file.quick_check()
            return {**result, **_compare(channel, file, arguments)}


class _Content:
    """The bytes of a database on their way, against what the manifest says of them."""

    def __init__(self, channel: Channel, arguments: Arguments) -> None:
        self._channel = channel
        self._arguments = arguments
        self._digest = hashlib.sha256()
        self._size = 0

    def pieces(self) -> Iterator[bytes]:
        limit = self._arguments["plain_size"]
        for piece in _plain(self._channel, self._arguments):
            self._digest.update(piece)
            self._size += len(piece)
            if limit and self._size > limit:
                raise DamageError("the database is larger than the manifest says")
            yield piece
            self._channel.progress(self._size, limit)

    def require_whole(self) -> Result:
        """Return size and SHA-256. Raises DamageError when they are not those that were recorded."""
        size, sha256 = self._arguments["plain_size"], self._arguments["plain_sha256"]
        found = self._digest.hexdigest()
        if (size and size != self._size) or (sha256 and sha256 != found):
            raise DamageError("the database is not the one whose size and SHA-256 were recorded")
        return {"plain_size": self._size, "plain_sha256": found}


def _compare(channel: Channel, view: View, arguments: Arguments) -> Result:
    """Send the version rows of a restored database, and return what its manifest is compared with."""
    if not arguments["release_line"]:
        return {"row_counts": {}, "schema_marker": ""}
    line = release_line_named(arguments["release_line"])
    view.require_tables(line)
    channel.records(row_record(row) for row in view.expected_rows(line))
    return {"row_counts": view.row_counts(line), "schema_marker": view.schema_marker(line)}
