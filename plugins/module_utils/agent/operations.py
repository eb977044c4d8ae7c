# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent does on request. Each operation takes the channel and its arguments and returns a small result.

docs/agent.md lists arguments, records and results.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from typing import Any, Callable, Dict, Iterator, List

from ..database import sqlite
from ..durable import pieces
from ..errors import MediaError, SettingError, SpaceError, describe_os_error
from ..media.archive import Archiver, group_name, in_tar, owner_name
from ..media.root import MediaRoot
from ..media.scan import Scanner
from ..papermerge.description import database_size, describe_instance
from ..papermerge.releases import ExpectedRow, release_line_named
from ..paths import is_safe_member, path_fields, path_of
from . import restore
from .main import Channel
from .workspace import MEMORY_FILE_SYSTEMS, OwnDirectory, file_system_type, remove_abandoned, require_space
from .zstd import compress, compressor, zstd_program

Arguments = Dict[str, Any]
Result = Dict[str, Any]

COPY_PURPOSE = "copy"


def host_facts() -> Result:
    """Return what the controller has to know of the host itself."""
    return {
        "hostname": socket.gethostname(),
        "python": platform.python_version(),
        "zstd": zstd_program() is not None,
        "user": owner_name(os.geteuid()) or str(os.geteuid()),
    }


def describe(channel: Channel, arguments: Arguments) -> Result:
    """Find the instance, check that it can be backed up, and tell what the controller has to know of it."""
    return {**describe_instance(arguments, channel.progress), "host": host_facts()}


def _names(texts: List[str]) -> List[bytes]:
    return [os.fsencode(text) for text in texts]


def _copy_parent(place: str, explicit: str) -> str:
    parent = explicit or os.path.dirname(place)
    if explicit and not os.path.isdir(explicit):
        raise SettingError("directory {0} (papermerge_backup_copy_dir) does not exist".format(explicit))
    kind = file_system_type(parent)
    if kind in MEMORY_FILE_SYSTEMS:
        raise SpaceError(
            "{0} is on a {1}, where a copy of the database would take memory; set "
            "papermerge_backup_copy_dir to a directory on a disk".format(parent, kind)
        )
    return parent


def dump_database(channel: Channel, arguments: Arguments) -> Result:
    """Copy the database, check the copy, send its version rows as records and its content as data."""
    place, line = arguments["path"], release_line_named(arguments["release_line"])
    parent = _copy_parent(place, arguments["copy_dir"])
    remove_abandoned(parent, COPY_PURPOSE)
    size = database_size(place)
    require_space(parent, size + (size >> 5) + (1 << 20), "the copy of database {0}".format(place))
    directory = OwnDirectory(parent, COPY_PURPOSE)
    token = channel.cleanup.add(directory.remove)
    try:
        copy = os.path.join(directory.path, "database.sqlite3")
        status = os.stat(place)
        report = sqlite.copy_database(place, copy, channel.progress)
        with sqlite.DatabaseFile(copy, place) as database:
            database.quick_check()
            database.require_tables(line)
            marker, counts, encoding = database.schema_marker(line), database.row_counts(line), database.encoding()
            channel.records(_row_record(row) for row in database.expected_rows(line))
        digest = hashlib.sha256()

        def content() -> Iterator[bytes]:
            done = 0
            with open(copy, "rb", buffering=0) as stream:
                for piece in pieces(stream):
                    digest.update(piece)
                    done += len(piece)
                    yield piece
                    channel.progress(done, report.size)

        compress(zstd_program() if arguments["compress"] else None, content(), channel.data)
    finally:
        directory.remove()
        channel.cleanup.remove(token)
    return {
        "plain_size": report.size,
        "plain_sha256": digest.hexdigest(),
        "moment_ns": report.moment_ns,
        "restarts": report.restarts,
        "locked_seconds": report.locked_seconds,
        "journal_mode": report.journal_mode,
        "row_counts": counts,
        "schema_marker": marker,
        "encoding": encoding,
        "server_version": sqlite.LIBRARY_VERSION,
        "mode": status.st_mode & 0o777,
        "owner": [status.st_uid, status.st_gid, owner_name(status.st_uid), group_name(status.st_gid)],
    }


def _row_record(row: ExpectedRow) -> Dict[str, Any]:
    path = path_fields(row.path) if row.path is not None else {}
    return {"row": row.row, "key": row.key, "older": row.older, "directory": os.fsdecode(row.directory), **path}


def scan_media(channel: Channel, arguments: Arguments) -> Result:
    """Send a record for each file below the media root."""
    root = MediaRoot(arguments["root"], arguments["media_allowed_roots"])
    try:
        scanner = Scanner(root, _names(arguments["excluded"]))
        files = size = 0

        def rows() -> Iterator[Dict[str, Any]]:
            nonlocal files, size
            for found in scanner.files():
                files += 1
                size += found.size
                yield found.as_record()
                if not files % 4096:
                    channel.progress(files, 0)

        channel.records(rows())
        return {
            "files": files,
            "size": size,
            "skipped": scanner.skipped,
            "skipped_example": os.fsdecode(scanner.skipped_example),
        }
    finally:
        root.close()


def archive_media(channel: Channel, arguments: Arguments) -> Result:
    """Send one part: the files named by the input records as tar data, and a record for what became of each.

    With ``compress`` each frame is a zstd frame; an event ends each frame either way.
    """
    root = MediaRoot(arguments["root"], arguments["media_allowed_roots"])
    program = zstd_program() if arguments["compress"] else None
    sink = _Frames(channel, program)
    try:
        paths = [path_of(fields) for fields in channel.input_records()]
        archiver = Archiver(root, sink.write, sink.end, arguments["frame_bytes"])
        members = done = 0

        def rows() -> Iterator[Dict[str, Any]]:
            nonlocal members, done
            for found in archiver.archive(paths):
                members += in_tar(found)
                done += found.size
                yield found.as_record()
                channel.progress(done, arguments["size"])

        channel.records(rows())
        return {"members": members, "tar_size": archiver.tar_size}
    finally:
        sink.stop()
        root.close()


class _Frames:
    """Sends tar bytes frame by frame, each through a compressor of its own where there is a program."""

    def __init__(self, channel: Channel, program: Any) -> None:
        self._channel = channel
        self._program = program
        self._pipe: Any = None

    def write(self, data: bytes) -> None:
        if self._program is None:
            self._channel.data(data)
            return
        if self._pipe is None:
            self._pipe = compressor(self._program, self._channel.data)
        self._pipe.write(data)

    def end(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self._channel.event({"frame": "end"})

    def stop(self) -> None:
        if self._pipe is not None:
            self._pipe.__exit__(None, None, None)


def settle(channel: Channel, arguments: Arguments) -> Result:
    """Look again at the input records' files and rows: a record each that tells whether ``row`` and ``file`` exist."""
    line = release_line_named(arguments["release_line"])
    root = MediaRoot(arguments["root"], arguments["media_allowed_roots"])
    asked = list(channel.input_records())
    try:
        with sqlite.DatabaseFile(arguments["path"], arguments["path"], live=True) as database:
            rows = [database.has_row(line, fields["key"]) if fields["key"] else False for fields in asked]
        channel.records(
            {**path_fields(path_of(fields)), "row": row, "file": _is_file(root, path_of(fields))}
            for fields, row in zip(asked, rows)
        )
        return {"looked_at": len(asked)}
    finally:
        root.close()


def _is_file(root: MediaRoot, path: bytes) -> bool:
    if not is_safe_member(path):
        return False
    try:
        os.close(root.open_file(path))
    except FileNotFoundError:
        return False
    except (OSError, MediaError):
        return True
    return True


def write_file(channel: Channel, arguments: Arguments) -> Result:
    """Write the input data to a new private file on the host; see database_dump and media_archive with a host path."""
    path = arguments["path"]
    temporary = path + ".partial"
    size = 0
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingError("cannot write {0}: {1}".format(path, describe_os_error(error))) from None
    token = channel.cleanup.add(lambda: os.unlink(temporary))
    with os.fdopen(descriptor, "wb") as stream:
        for piece in channel.input_data():
            stream.write(piece)
            size += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)
    channel.cleanup.remove(token)
    return {"size": size}


OPERATIONS: Dict[str, Callable[[Channel, Arguments], Result]] = {
    "describe": describe,
    "dump_database": dump_database,
    "scan_media": scan_media,
    "archive_media": archive_media,
    "settle": settle,
    "check_target": restore.check_target,
    "begin_restore": restore.begin_restore,
    "extract": restore.extract,
    "receive_database": restore.receive_database,
    "place": restore.place,
    "abandon_restore": restore.abandon_restore,
}
