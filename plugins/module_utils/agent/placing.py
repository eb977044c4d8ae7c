# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a restore in place: two directories of ours, a journal, renames, and the way back.

Everything is unpacked into a directory beside (or in) the media directory and one beside the database, so that putting
in place is renames within one file system. The directory beside the database holds the journal while the renames run;
the next restore finds it and undoes what was begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any, Dict, List, Optional

from ..database import sqlite
from ..database.engine import ServerTarget
from ..durable import write_private
from ..errors import SettingError, TargetError, describe_os_error
from ..media.extract import Ownership
from .interrupted import (
    DATABASE,
    JOURNAL,
    MEDIA,
    PURPOSE,
    give,
    identity_of,
    interrupted_restores,
    is_of_another_server,
    read_journal,
)
from .main import Channel
from .target import EMPTY_HINT, require_empty_database, server_of
from .workspace import PREFIX, OwnDirectory, abandoned, is_mount_point

Arguments = Dict[str, Any]
Result = Dict[str, Any]


def require_empty(media_root: str, database: str, server: Optional[ServerTarget]) -> None:
    """Raise TargetError unless nothing is lost by putting a restore in place."""
    names = _content(media_root) if media_root else []
    if names:
        raise TargetError(
            "media directory {0} is not empty: it holds {1}{2}".format(
                media_root, ", ".join(sorted(repr(name) for name in names)[:3]), EMPTY_HINT
            )
        )
    require_empty_database(database, server)


def _content(media_root: str) -> List[str]:
    try:
        return [name for name in os.listdir(media_root) if not name.startswith(PREFIX) and name != "lost+found"]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise TargetError("media directory {0} is not a directory{1}".format(media_root, EMPTY_HINT)) from None
    except OSError as error:
        raise TargetError(
            "media directory {0} cannot be read: {1}".format(media_root, describe_os_error(error))
        ) from None


def clear_up(media_root: str, database: str, server: Optional[ServerTarget]) -> None:
    """Remove what killed restores have left on a target that holds nothing of theirs to undo.

    Such as the empty directories of one that was killed when everything was in its place.
    """
    for parent in (os.path.dirname(database), media_root, os.path.dirname(media_root)):
        for directory in abandoned(parent, PURPOSE) if parent else []:
            if is_of_another_server(directory, server):
                directory.close()
            else:
                directory.remove()
    if server is not None:
        for stage in server.abandoned():
            server.discard(stage)


def begin_restore(channel: Channel, arguments: Arguments) -> Result:
    """Clear up after killed restores and make a stage for each side. Returns what they are, empty for no side.

    ``server``: what check_target answered; None for a database file.
    """
    media_root, database = arguments["media_root"], arguments["database_path"]
    server = server_of(channel, arguments.get("server"))
    state: Dict[str, Any] = {
        "media_stage": "",
        "media_identity": None,
        "database_stage": "",
        "database_path": database,
        "server": arguments.get("server"),
        "database_made": [],
        "media_made": [],
    }
    token = channel.cleanup.add(lambda: _abandon(channel, state))
    for interrupted in interrupted_restores(media_root, database, server):
        try:
            interrupted.require_undoable(media_root, database, server)
            interrupted.undo()
        finally:
            interrupted.close()
    if database:
        _make_parents(os.path.dirname(database), state["database_made"])
    clear_up(media_root, database, server)
    require_empty(media_root, database, server)
    if server is not None:
        state["database_stage"] = server.stage(arguments["server"]["source_database"]["facts"])
    elif database:
        state["database_stage"] = channel.hold(OwnDirectory(os.path.dirname(database), PURPOSE))
    if media_root:
        inside = _has_to_stay(media_root)
        parent = media_root if inside else os.path.dirname(media_root)
        _make_parents(parent, state["media_made"])
        # Several agents unpack into it.
        stage = OwnDirectory(parent, PURPOSE, shared=True)
        state.update(media_stage=channel.hold(stage), media_identity=stage.identity, rename=not inside)
        os.mkdir(stage.inside(MEDIA), 0o700)
    if channel.keep:
        channel.cleanup.remove(token)
        channel.release()
    return state


def _has_to_stay(media_root: str) -> bool:
    """Tell whether a media directory has to be filled where it is.

    A rename can replace only an empty directory that lies in the same file system as its parent and is no mount
    point, and needs a parent that may be written.
    """
    parent = os.path.dirname(media_root)
    try:
        return (
            is_mount_point(media_root)
            or bool(os.listdir(media_root))
            or os.stat(media_root).st_dev != os.stat(parent).st_dev
            or not os.access(parent, os.W_OK)
        )
    except FileNotFoundError:
        return False


def _make_parents(directory: str, made: List[str]) -> None:
    """Make a directory with its parents and note what was made, outermost first."""
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


def _stages(state: Dict[str, Any]) -> Dict[str, str]:
    """Return the directories that a restore has made, by their names in its state."""
    names = ("media_stage",) if state["server"] is not None else ("database_stage", "media_stage")
    return {name: state[name] for name in names if state[name]}


def _abandon(channel: Channel, state: Dict[str, Any]) -> None:
    """Undo everything since begin_restore. What cannot be undone safely stays, with its journal, for a person."""
    server = server_of(channel, state["server"])
    with contextlib.ExitStack() as stack:
        stages = {name: stack.enter_context(channel.held(path)) for name, path in _stages(state).items()}
        if "media_stage" in stages:
            keeper = stages["media_stage"] if server is not None else stages.get("database_stage")
            interrupted = read_journal(keeper, server) if keeper is not None else None
            if interrupted is not None:
                interrupted.require_undoable(interrupted.journal["media_root"], state["database_path"], server)
                interrupted.take_back(stages["media_stage"])
        for stage in stages.values():
            stage.remove()
    for path in reversed(state["database_made"] + state["media_made"]):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    if server is not None and state["database_stage"]:
        server.discard(state["database_stage"])


def abandon_restore(channel: Channel, arguments: Arguments) -> Result:
    """Undo everything since begin_restore, whose result is the argument ``state``."""
    _abandon(channel, arguments["state"])
    return {}


def place(channel: Channel, arguments: Arguments) -> Result:
    """Put media and database in place: sync, look once more that the target is empty, then rename.

    The database comes last: while it is absent no Papermerge takes the target for a working one.
    """
    state, media_root, database = arguments["state"], arguments["media_root"], arguments["database_path"]
    server = server_of(channel, state["server"])
    ownership = Ownership()
    with contextlib.ExitStack() as stack:
        stages = {name: stack.enter_context(channel.held(path)) for name, path in _stages(state).items()}
        require_empty(media_root, database, server)
        if database:
            _dress_database(stages["database_stage"].inside(DATABASE), database, arguments, ownership)
            # SQLite makes its journal beside the database: the directory has to belong to the same user.
            if arguments["database_owner"] is not None:
                _give_directories(state["database_made"], arguments["database_owner"], ownership)
        journal: Dict[str, Any] = {}
        if media_root:
            journal = _dress_media(stages["media_stage"], state["rename"], media_root, arguments, ownership)
            _give_directories(state["media_made"], arguments["directory_owner"], ownership)
        # One sync for all files of the tree instead of one each.
        for stage in stages.values():
            stage.sync_file_system()
        with channel.cleanup.held_off():
            # The sync may have taken minutes.
            require_empty(media_root, database, server)
            if media_root and (database or server is not None):
                keeper = stages["media_stage" if server is not None else "database_stage"]
                if server is not None:
                    journal.update(database_url=server.place.url, database_stage=state["database_stage"])
                write_private(keeper.inside(JOURNAL), json.dumps(journal).encode("ascii"))
                keeper.sync()
            if media_root:
                _place_media(stages["media_stage"], journal)
            if server is not None:
                server.put_in_place(state["database_stage"], state["server"]["source_database"]["facts"])
            elif database:
                _place_database(stages["database_stage"], database)
            # From here on nothing is undone: what is in place is whole.
            channel.cleanup.clear()
            for stage in stages.values():
                stage.remove()
    return {"media_root": media_root, "database_path": database, "given_away": ownership.can_give}


def _dress_database(copy: str, database: str, arguments: Arguments, ownership: Ownership) -> None:
    """Give the unpacked database the mode and owner of the file it replaces, else those it had.

    Where nobody knows whose it was (``database_owner`` is None), it goes to the owner of its directory.
    """
    try:
        status = os.stat(database)
        mode, ids = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    except FileNotFoundError:
        if arguments["database_owner"] is None:
            status = os.stat(os.path.dirname(database))
            mode, ids = 0o600, (status.st_uid, status.st_gid)
        else:
            mode, ids = arguments["database_mode"], ownership.ids(*arguments["database_owner"])
    give(copy, mode, ids, ownership)


def _dress_media(
    stage: OwnDirectory, rename: bool, media_root: str, arguments: Arguments, ownership: Ownership
) -> Dict[str, Any]:
    """Give the unpacked media directory mode and owner, and return the journal of putting it in place.

    ``items``: device and inode of what is moved, by its name below the media root; the directory itself has none.
    """
    staged = stage.inside(MEDIA)
    existed = os.path.isdir(media_root)
    mode, ids = arguments["directory_mode"], ownership.ids(*arguments["directory_owner"])
    if existed:
        status = os.stat(media_root)
        mode, ids = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if rename:
        give(staged, mode, ids, ownership)
    names = [""] if rename else sorted(os.listdir(staged))
    return {
        "media_root": media_root,
        "media_stage": stage.path,
        "rename": rename,
        "media_existed": existed,
        "media_mode": mode,
        "media_ids": ids,
        "items": {name: identity_of(os.path.join(staged, name) if name else staged) for name in names},
    }


def _place_media(stage: OwnDirectory, journal: Dict[str, Any]) -> None:
    if journal["rename"]:
        os.rename(stage.inside(MEDIA), stage.beside(os.path.basename(journal["media_root"])))
    else:
        for name in journal["items"]:
            os.rename(stage.inside(os.path.join(MEDIA, name)), stage.beside(name))
    stage.sync_parent()


def _place_database(stage: OwnDirectory, database: str) -> None:
    name = os.path.basename(database)
    for suffix in sqlite.SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stage.beside(name + suffix))
    os.rename(stage.inside(DATABASE), stage.beside(name))
    stage.sync_parent()


def _give_directories(paths: List[str], owner: List[Any], ownership: Ownership) -> None:
    for path in paths:
        give(path, 0o755, ownership.ids(*owner), ownership)
