# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's side of a restore: look at the target, unpack beside it, put in place at the end.

Everything is unpacked into two directories of our own, one beside (or in) the media directory and one beside the
database, so that putting in place is renames within one file system. The directory beside the database holds the
journal while the renames run; the next restore finds it and undoes what was begun.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import stat
import threading
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..database import sqlite
from ..database.place import parse_database_url, require_supported
from ..durable import ExactReader, open_private, sync_directory, sync_file, write_private
from ..errors import DamageError, SettingError, TargetError, describe_os_error
from ..media.extract import Extractor, Ownership, PartMemberPlan, part_member_plan
from ..papermerge.instance import InstanceRequest, find_instance
from ..papermerge.releases import release_line_named
from ..paths import path_fields
from .main import Channel
from .workspace import PREFIX, OwnDirectory, abandoned, remove_abandoned, require_space
from .zstd import decompressor, zstd_program

Arguments = Dict[str, Any]
Result = Dict[str, Any]

PURPOSE = "restore"
JOURNAL = "journal.json"
MEDIA, DATABASE = "media", "database.sqlite3"


def check_target(channel: Channel, arguments: Arguments) -> Result:
    """Find where the snapshot has to go and refuse what a restore must not touch. Changes nothing.

    Settings win, then what is installed here, then the paths of the source (``source_media_root``,
    ``source_database_path``). Raises TargetError for another version or a target that is not empty.
    """
    instance = find_instance(InstanceRequest.from_params(arguments))
    wanted = arguments["snapshot_version"]
    if arguments["app_version"] and arguments["app_version"] != wanted:
        raise TargetError(
            "papermerge_backup_app_version is {0}, the snapshot is of Papermerge {1}".format(
                arguments["app_version"], wanted
            )
        )
    if instance is not None and instance.version != wanted:
        raise TargetError(
            "the target has Papermerge {0} ({1}), the snapshot is of {2}; install {2} on the target first".format(
                instance.version, instance.version_found_in, wanted
            )
        )
    media_root = arguments["media_root"] or (instance.media_root if instance else arguments["source_media_root"])
    if arguments["database_url"]:
        place = parse_database_url(arguments["database_url"], "papermerge_backup_database_url")
        require_supported(place)
        database = place.path
    elif instance is not None:
        require_supported(instance.database)
        database = instance.database.path
    else:
        database = arguments["source_database_path"]
    media_root = os.path.realpath(media_root)
    database = os.path.realpath(database)
    if database == media_root or database.startswith(media_root + "/"):
        raise SettingError(
            "the database {0} lies in the media directory {1}; set papermerge_backup_media_root or "
            "papermerge_backup_database_url".format(database, media_root)
        )
    interrupted = _interrupted(os.path.dirname(database))
    if not interrupted:
        _require_empty(media_root, database)
    require_space(_existing(os.path.dirname(media_root)), arguments["media_bytes"], "the media of the snapshot")
    require_space(_existing(os.path.dirname(database)), arguments["database_bytes"], "the database of the snapshot")
    return {
        "media_root": media_root,
        "database_path": database,
        "installed": instance is not None,
        "interrupted": [journal["media_root"] for _path, journal in interrupted],
        "zstd": zstd_program() is not None,
    }


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _require_empty(media_root: str, database: str) -> None:
    hint = (
        "; a restore goes onto a target that is empty: move it aside, or set papermerge_backup_media_root and "
        "papermerge_backup_database_url to another place"
    )
    try:
        names = [name for name in os.listdir(media_root) if not name.startswith(PREFIX) and name != "lost+found"]
    except FileNotFoundError:
        names = []
    except NotADirectoryError:
        raise TargetError("media directory {0} is not a directory{1}".format(media_root, hint)) from None
    except OSError as error:
        raise TargetError(
            "media directory {0} cannot be read: {1}".format(media_root, describe_os_error(error))
        ) from None
    if names:
        raise TargetError(
            "media directory {0} is not empty: it holds {1}{2}".format(
                media_root, ", ".join(sorted(repr(name) for name in names)[:3]), hint
            )
        )
    if not sqlite.is_empty_database(database):
        raise TargetError("database {0} is not empty{1}".format(database, hint))


def _interrupted(directory: str) -> List[Tuple[str, Dict[str, Any]]]:
    """Return the directories of restores that were killed while they put things in place, with their journals."""
    found = []
    for path in abandoned(directory, PURPOSE):
        try:
            with open(os.path.join(path, JOURNAL), encoding="utf-8") as stream:
                found.append((path, json.load(stream)))
        except (OSError, ValueError):
            continue
    return found


def _undo(path: str, journal: Dict[str, Any]) -> None:
    """Undo a restore that was killed between its first and its last rename. The last one is the database's."""
    staged = os.path.join(journal["media_stage"], MEDIA)
    if not os.path.exists(os.path.join(path, DATABASE)):
        return
    if journal["rename"]:
        if not os.path.exists(staged) and os.path.isdir(journal["media_root"]):
            os.rename(journal["media_root"], staged)
            if journal["media_existed"]:
                os.mkdir(journal["media_root"], journal["media_mode"])
                os.chown(journal["media_root"], *journal["media_ids"])
    else:
        for name in journal["entries"]:
            if os.path.lexists(os.path.join(journal["media_root"], name)):
                os.rename(os.path.join(journal["media_root"], name), os.path.join(staged, name))


def begin_restore(channel: Channel, arguments: Arguments) -> Result:
    """Clear up after killed restores and make the two directories. Returns their paths."""
    media_root, database = arguments["media_root"], arguments["database_path"]
    parent = os.path.dirname(database)
    interrupted = _interrupted(parent)
    for path, journal in interrupted:
        _undo(path, journal)
        for directory in abandoned(os.path.dirname(journal["media_stage"]), PURPOSE):
            if directory == journal["media_stage"]:
                remove_tree(directory)
    remove_abandoned(parent, PURPOSE)
    if interrupted:
        _require_empty(media_root, database)
    made = _make_parents(parent) + _make_parents(os.path.dirname(media_root))
    # A mount point cannot be renamed onto, and what lies beside it is another file system.
    inside = os.path.isdir(media_root) and os.path.ismount(media_root)
    media_parent = media_root if inside else os.path.dirname(media_root)
    remove_abandoned(media_parent, PURPOSE)
    database_stage = OwnDirectory(parent, PURPOSE)
    media_stage = OwnDirectory(media_parent, PURPOSE)
    os.mkdir(os.path.join(media_stage.path, MEDIA), 0o700)
    state = {"media_stage": media_stage.path, "database_stage": database_stage.path, "made": made, "rename": not inside}
    if channel.keep:
        media_stage.close()
        database_stage.close()
    else:
        channel.cleanup.add(lambda: _abandon(state))
    return state


def remove_tree(path: str) -> None:
    """Remove a directory of ours with everything in it."""
    shutil.rmtree(path, ignore_errors=True)


def _make_parents(directory: str) -> List[str]:
    made = []
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o755)
        except OSError as error:
            raise SettingError("cannot make directory {0}: {1}".format(path, describe_os_error(error))) from None
        made.append(path)
    return made


def _abandon(state: Dict[str, Any]) -> None:
    journal = os.path.join(state["database_stage"], JOURNAL)
    if os.path.exists(journal):
        with open(journal, encoding="utf-8") as stream:
            _undo(state["database_stage"], json.load(stream))
    remove_tree(state["media_stage"])
    remove_tree(state["database_stage"])
    for path in reversed(state["made"]):
        try:
            os.rmdir(path)
        except OSError:
            continue


def abandon_restore(_channel: Channel, arguments: Arguments) -> Result:
    """Undo everything since begin_restore, whose result is the argument ``state``."""
    _abandon(arguments["state"])
    return {}


def _plain(channel: Channel, compressed: bool) -> Iterator[bytes]:
    """Yield the input data, unpacked by the zstd program when it is compressed."""
    if not compressed:
        yield from channel.input_data()
        return
    program = zstd_program()
    if program is None:
        raise DamageError("the data is compressed and this host has no zstd program")
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
                for piece in channel.input_data():
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
    extractor = Extractor(os.path.join(arguments["media_stage"], MEDIA), arguments["directory_mode"], ids, ownership)
    try:
        source = _plain(channel, arguments["compressed"])
        extractor.extract(ExactReader(source).read, arguments["tar_size"], members)
        for _rest in source:
            raise DamageError("the part goes on after the end of its archive")
    finally:
        extractor.close()
    return {"files": extractor.files, "size": extractor.size}


def receive_database(channel: Channel, arguments: Arguments) -> Result:
    """Write the input data as the database beside its place, check it, and send its version rows as records."""
    path = os.path.join(arguments["database_stage"], DATABASE)
    line = release_line_named(arguments["release_line"])
    digest = hashlib.sha256()
    size = 0
    with open_private(path) as stream:
        for piece in _plain(channel, arguments["compressed"]):
            stream.write(piece)
            digest.update(piece)
            size += len(piece)
            if size > arguments["plain_size"]:
                raise DamageError("the database is larger than the manifest says")
            channel.progress(size, arguments["plain_size"])
        sync_file(stream)
    if (size, digest.hexdigest()) != (arguments["plain_size"], arguments["plain_sha256"]):
        raise DamageError("the database is not what the manifest says")
    with sqlite.DatabaseFile(path, "of the snapshot") as database:
        database.quick_check()
        database.require_tables(line)
        channel.records(
            {
                "row": row.row,
                "key": row.key,
                "older": row.older,
                **(path_fields(row.path) if row.path is not None else {}),
            }
            for row in database.expected_rows(line)
        )
        return {"row_counts": database.row_counts(line), "schema_marker": database.schema_marker(line)}


def place(channel: Channel, arguments: Arguments) -> Result:
    """Put media and database in place: look once more that the target is empty, sync, then rename.

    The database comes last: while it is absent no Papermerge takes the target for a working one.
    """
    state = arguments["state"]
    media_root, database = arguments["media_root"], arguments["database_path"]
    _require_empty(media_root, database)
    ownership = Ownership()
    staged = os.path.join(state["media_stage"], MEDIA)
    copy = os.path.join(state["database_stage"], DATABASE)
    existed = os.path.isdir(media_root)
    if existed:
        status = os.stat(media_root)
        mode, ids = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    else:
        mode, ids = arguments["directory_mode"], ownership.ids(*arguments["directory_owner"])
    if state["rename"]:
        _give(staged, mode, ids, ownership)
    try:
        status = os.stat(database)
        _give(copy, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), ownership)
    except FileNotFoundError:
        _give(copy, arguments["database_mode"], ownership.ids(*arguments["database_owner"]), ownership)
    entries = sorted(os.listdir(staged))
    # One sync for all files of the tree instead of one each; Linux returns when the data is on disk.
    os.sync()
    journal = {
        "media_root": media_root,
        "media_stage": state["media_stage"],
        "rename": state["rename"],
        "media_existed": existed,
        "media_mode": mode,
        "media_ids": ids,
        "entries": entries,
    }
    write_private(os.path.join(state["database_stage"], JOURNAL), json.dumps(journal).encode("ascii"))
    sync_directory(state["database_stage"])
    if state["rename"]:
        os.rename(staged, media_root)
        sync_directory(os.path.dirname(media_root))
    else:
        for name in entries:
            os.rename(os.path.join(staged, name), os.path.join(media_root, name))
        sync_directory(media_root)
    for suffix in sqlite.SIDE_FILES:
        try:
            os.unlink(database + suffix)
        except FileNotFoundError:
            continue
    os.rename(copy, database)
    sync_directory(os.path.dirname(database))
    # From here on nothing is undone: _undo sees that the database has left its directory.
    remove_tree(state["media_stage"])
    remove_tree(state["database_stage"])
    channel.cleanup.clear()
    return {"media_root": media_root, "database_path": database, "given_away": ownership.can_give}


def _give(path: str, mode: int, ids: Tuple[int, int], ownership: Ownership) -> None:
    if ownership.can_give and ids != (-1, -1):
        os.chown(path, *ids)
    os.chmod(path, mode)
