# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent does on request. Each operation takes the channel and its arguments and returns a small result.

docs/agent.md lists arguments, records and results.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import socket
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from ..database.engines import database_at
from ..durable import pieces, sync_directory
from ..errors import MediaError, SettingError, SpaceError, describe_os_error
from ..media.root import MediaRoot
from ..owners import owner_name
from ..papermerge.description import describe_instance
from ..papermerge.instance import Instance, InstanceRequest, require_instance
from ..paths import is_safe_member, path_fields, path_of
from . import deliver, placing, restore
from .archiving import archive_media
from .configuration import archive_configuration
from .hostfile import sink
from .main import Channel
from .rows import row_record
from .scanning import hash_media, scan_media
from .workspace import MEMORY_FILE_SYSTEMS, OwnDirectory, file_system_type, remove_abandoned, require_space
from .zstd import compress, zstd_program

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


def instance_of(channel: Channel, arguments: Arguments) -> Instance:
    """Return the instance that the arguments' ``instance`` asks for. It is looked for once a conversation."""
    request = InstanceRequest.from_params(arguments["instance"])
    found = channel.memory.get(request)
    if found is None:
        found = channel.memory[request] = require_instance(request)
    return found


def describe(channel: Channel, arguments: Arguments) -> Result:
    """Find the instance, check that it can be backed up, and tell what the controller has to know of it."""
    instance = instance_of(channel, arguments)
    return {**describe_instance(instance, arguments, channel.progress), "host": host_facts()}


def _copy_parent(default: str, explicit: str) -> str:
    parent = explicit or default
    if explicit and not (os.path.isabs(explicit) and os.path.isdir(explicit)):
        raise SettingError(
            "directory {0} (papermerge_backup_copy_dir) does not exist, or is no absolute path".format(explicit)
        )
    kind = file_system_type(parent)
    if kind in MEMORY_FILE_SYSTEMS:
        raise SpaceError(
            "{0} is on a {1}, where a copy of the database would take memory; set "
            "papermerge_backup_copy_dir to a directory on a disk".format(parent, kind)
        )
    return parent


def dump_database(channel: Channel, arguments: Arguments) -> Result:
    """Dump the database: its content as data, then its version rows of the same moment as records.

    With ``host_path`` the content goes to that new file on the host instead.
    """
    instance = instance_of(channel, arguments)
    line = instance.line
    database = database_at(instance.database, instance.database_found_in)
    digest = hashlib.sha256()
    done = 0
    with contextlib.ExitStack() as stack:

        def workspace(default: str, size: int) -> Callable[[str], str]:
            parent = _copy_parent(default, arguments["copy_dir"])
            remove_abandoned(parent, COPY_PURPOSE)
            require_space(parent, size, "the copy of database {0}".format(instance.database.url))
            directory = OwnDirectory(parent, COPY_PURPOSE)
            token = channel.cleanup.add(directory.remove)
            stack.callback(channel.cleanup.remove, token)
            stack.callback(directory.remove)
            return directory.inside

        with database.dump(line, workspace, channel.progress) as dump:

            def content() -> Iterator[bytes]:
                nonlocal done
                for piece in dump.content():
                    digest.update(piece)
                    done += len(piece)
                    yield piece
                    channel.progress(done, dump.size)

            with sink(arguments, channel.data, channel.cleanup) as (write, file):
                compress(zstd_program() if arguments["compress"] else None, content(), write)
                with dump.view() as view:
                    view.require_tables(line)
                    result: Result = {"schema_marker": view.schema_marker(line), "row_counts": view.row_counts(line)}
                    channel.records(row_record(row) for row in view.expected_rows(line))
                result["stored"] = {"size": file.size, "sha256": file.finish()} if file is not None else None
    return {
        **result,
        "plain_size": done,
        "plain_sha256": digest.hexdigest(),
        "moment_ns": dump.moment_ns,
        "dump_format": database.dump_format,
        "facts": dump.facts,
    }


def archive_config(channel: Channel, arguments: Arguments) -> Result:
    """Send a tar of the instance's settings files and environment; the result names its entries."""
    entries: List[Dict[str, Any]] = []
    digest = hashlib.sha256()
    size = 0

    def content() -> Iterator[bytes]:
        nonlocal size
        for piece in archive_configuration(instance_of(channel, arguments), entries):
            digest.update(piece)
            size += len(piece)
            yield piece

    compress(zstd_program() if arguments["compress"] else None, content(), channel.data)
    return {"entries": entries, "plain_size": size, "plain_sha256": digest.hexdigest()}


def settle(channel: Channel, arguments: Arguments) -> Result:
    """Look again at the input records: a record each with ``row`` (it exists and still names this file) and the file's
    ``size``, ``ctime_ns`` and whether it ``rests``: unchanged for ``rest_ns``. The size is null for no file.
    """
    instance = instance_of(channel, arguments)
    root = MediaRoot(arguments["root"], arguments["media_allowed_roots"])
    asked = list(channel.input_records())
    try:
        with database_at(instance.database, instance.database_found_in).view() as view:
            rows = view.rows_with_keys(instance.line, (fields["key"] for fields in asked))
            named = {(row.key, row.path) for row in rows}
        channel.records(_second_look(root, fields, named, arguments["rest_ns"]) for fields in asked)
        return {"looked_at": len(asked)}
    finally:
        root.close()


def _second_look(root: MediaRoot, fields: Result, named: Set[Tuple[str, Optional[bytes]]], rest_ns: int) -> Result:
    path = path_of(fields)
    found: Result = {**path_fields(path), "row": (fields["key"], path) in named, "size": None}
    if not is_safe_member(path):
        return found
    try:
        descriptor = root.open_file(path)
    except FileNotFoundError:
        return found
    except (OSError, MediaError):
        # It is there, and the archive will tell why it cannot be read.
        return {**found, "size": 0, "ctime_ns": 0, "rests": True}
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    rests = time.time_ns() - status.st_ctime_ns >= rest_ns
    return {**found, "size": status.st_size, "ctime_ns": status.st_ctime_ns, "rests": rests}


def make_directory(channel: Channel, arguments: Arguments) -> Result:
    """Make a private directory on the host, or take an empty one. What is put there goes unless keep_directory."""
    path = arguments["path"]
    try:
        os.mkdir(path, 0o700)
        made = True
    except FileExistsError:
        made = False
    except OSError as error:
        raise SettingError("cannot make a directory on the host: {0}".format(describe_os_error(error))) from None
    if not made and (not os.path.isdir(path) or os.listdir(path)):
        raise SettingError("{0} on the host is not an empty directory".format(path))
    if not channel.keep:
        channel.cleanup.add(lambda: _clear_directory(path, made))
    return {"made": made}


def _clear_directory(path: str, made: bool) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    if made:
        os.rmdir(path)


def keep_directory(channel: Channel, arguments: Arguments) -> Result:
    """Keep what make_directory has begun: it is whole."""
    sync_directory(arguments["path"])
    channel.cleanup.clear()
    return {}


def write_file(channel: Channel, arguments: Arguments) -> Result:
    """Write the input data to a new private file on the host."""
    with sink(arguments, channel.data, channel.cleanup) as (write, file):
        for piece in channel.input_data():
            write(piece)
        return {"size": file.size, "sha256": file.finish()} if file is not None else {}


def read_file(channel: Channel, arguments: Arguments) -> Result:
    """Send a file of the host as data."""
    try:
        with open(arguments["path"], "rb", buffering=0) as stream:
            for piece in pieces(stream):
                channel.data(piece)
    except OSError as error:
        raise SettingError("cannot read on the host: {0}".format(describe_os_error(error))) from None
    return {}


OPERATIONS: Dict[str, Callable[[Channel, Arguments], Result]] = {
    "describe": describe,
    "dump_database": dump_database,
    "scan_media": scan_media,
    "hash_media": hash_media,
    "archive_media": archive_media,
    "archive_config": archive_config,
    "settle": settle,
    "make_directory": make_directory,
    "keep_directory": keep_directory,
    "write_file": write_file,
    "write_files": deliver.write_files,
    "read_file": read_file,
    "check_target": restore.check_target,
    "begin_restore": placing.begin_restore,
    "extract": restore.extract,
    "receive_database": restore.receive_database,
    "receive_config": restore.receive_config,
    "place": placing.place,
    "abandon_restore": placing.abandon_restore,
}
