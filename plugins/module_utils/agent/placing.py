# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a restore in place: two directories of ours, a journal, renames, and the way back.

Everything is unpacked into a directory beside (or in) the media directory and one beside the database, so that putting
in place is renames within one file system. The directory beside the database holds the journal while the renames run;
the next restore finds it and undoes what was begun.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import Any, Dict, List, Tuple

from ..database import sqlite
from ..durable import sync_directory, write_private
from ..errors import SettingError, TargetError, describe_os_error
from ..media.extract import Ownership
from .main import Channel
from .workspace import PREFIX, OwnDirectory, abandoned, is_mount_point, remove_abandoned

Arguments = Dict[str, Any]
Result = Dict[str, Any]

PURPOSE = "restore"
JOURNAL = "journal.json"
MEDIA, DATABASE = "media", "database.sqlite3"


def require_empty(media_root: str, database: str) -> None:
    hint = (
        "; a restore goes onto a target that is empty: move it aside, or set papermerge_backup_media_root and "
        "papermerge_backup_database_url to another place"
    )
    names = _content(media_root, hint) if media_root else []
    if names:
        raise TargetError(
            "media directory {0} is not empty: it holds {1}{2}".format(
                media_root, ", ".join(sorted(repr(name) for name in names)[:3]), hint
            )
        )
    if database and not sqlite.is_empty_database(database):
        raise TargetError("database {0} is not empty{1}".format(database, hint))


def _content(media_root: str, hint: str) -> List[str]:
    try:
        return [name for name in os.listdir(media_root) if not name.startswith(PREFIX) and name != "lost+found"]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise TargetError("media directory {0} is not a directory{1}".format(media_root, hint)) from None
    except OSError as error:
        raise TargetError(
            "media directory {0} cannot be read: {1}".format(media_root, describe_os_error(error))
        ) from None


def interrupted_restores(directory: str) -> List[Tuple[str, Dict[str, Any]]]:
    """Return the directories of restores that were killed between their first and their last rename, with journals.

    The last rename takes the database out of the directory.
    """
    found = []
    for path in abandoned(directory, PURPOSE):
        try:
            with open(os.path.join(path, JOURNAL), encoding="utf-8") as stream:
                journal = json.load(stream)
        except (OSError, ValueError):
            continue
        if os.path.exists(os.path.join(path, DATABASE)):
            found.append((path, journal))
    return found


def _undo(path: str, journal: Dict[str, Any]) -> None:
    """Take the media of an interrupted restore back out of their place, then forget the journal.

    May itself be killed at any step: the next undo goes on from there.
    """
    staged, media_root = os.path.join(journal["media_stage"], MEDIA), journal["media_root"]
    if not journal["rename"]:
        for name in journal["entries"]:
            if os.path.lexists(os.path.join(media_root, name)):
                os.rename(os.path.join(media_root, name), os.path.join(staged, name))
    else:
        if not os.path.exists(staged) and os.path.isdir(media_root):
            os.rename(media_root, staged)
        if journal["media_existed"]:
            os.makedirs(media_root, exist_ok=True)
            os.chown(media_root, *journal["media_ids"])
            os.chmod(media_root, journal["media_mode"])
    # Before the directories go: without them the media could not be told from what somebody else put there.
    os.unlink(os.path.join(path, JOURNAL))


def clear_up(media_root: str, database: str) -> None:
    """Remove what killed restores have left on a target that holds nothing of theirs to undo.

    Such as the empty directories of one that was killed when everything was in its place.
    """
    for parent in (os.path.dirname(database), media_root, os.path.dirname(media_root)):
        if parent:
            remove_abandoned(parent, PURPOSE)


def begin_restore(channel: Channel, arguments: Arguments) -> Result:
    """Clear up after killed restores and make a directory for each side. Returns their paths, empty for no side."""
    media_root, database = arguments["media_root"], arguments["database_path"]
    state: Dict[str, Any] = {"media_stage": "", "database_stage": "", "database_made": [], "media_made": []}
    token = channel.cleanup.add(lambda: _abandon(state))
    held: List[OwnDirectory] = []
    if database:
        parent = os.path.dirname(database)
        interrupted = interrupted_restores(parent)
        for path, journal in interrupted:
            _undo(path, journal)
            remove_abandoned(os.path.dirname(journal["media_stage"]), PURPOSE)
        remove_abandoned(parent, PURPOSE)
        if interrupted:
            require_empty(media_root, database)
        _make_parents(parent, state["database_made"])
        held.append(OwnDirectory(parent, PURPOSE))
        state["database_stage"] = held[-1].path
    if media_root:
        remove_abandoned(media_root, PURPOSE)
        remove_abandoned(os.path.dirname(media_root), PURPOSE)
        inside = _has_to_stay(media_root)
        media_parent = media_root if inside else os.path.dirname(media_root)
        _make_parents(media_parent, state["media_made"])
        held.append(OwnDirectory(media_parent, PURPOSE))
        state.update(media_stage=held[-1].path, rename=not inside)
        os.mkdir(os.path.join(held[-1].path, MEDIA), 0o700)
    if channel.keep:
        channel.cleanup.remove(token)
        for directory in held:
            directory.close()
    return state


def _has_to_stay(media_root: str) -> bool:
    """Tell whether a media directory has to be filled where it is: a rename can replace only an empty directory, and
    no mount point, beside which lies another file system."""
    try:
        return is_mount_point(media_root) or bool(os.listdir(media_root))
    except FileNotFoundError:
        return False


def remove_tree(path: str) -> None:
    """Remove a directory of ours with everything in it; an empty name is none."""
    if path:
        shutil.rmtree(path, ignore_errors=True)


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


def _abandon(state: Dict[str, Any]) -> None:
    journal = os.path.join(state["database_stage"], JOURNAL)
    if os.path.exists(journal) and os.path.exists(os.path.join(state["database_stage"], DATABASE)):
        with open(journal, encoding="utf-8") as stream:
            _undo(state["database_stage"], json.load(stream))
    remove_tree(state["media_stage"])
    remove_tree(state["database_stage"])
    for path in reversed(state["database_made"] + state["media_made"]):
        try:
            os.rmdir(path)
        except OSError:
            continue


def abandon_restore(_channel: Channel, arguments: Arguments) -> Result:
    """Undo everything since begin_restore, whose result is the argument ``state``."""
    _abandon(arguments["state"])
    return {}


def place(channel: Channel, arguments: Arguments) -> Result:
    """Put media and database in place: look once more that the target is empty, sync, then rename.

    The database comes last: while it is absent no Papermerge takes the target for a working one.
    """
    state, media_root, database = arguments["state"], arguments["media_root"], arguments["database_path"]
    require_empty(media_root, database)
    ownership = Ownership()
    if database:
        _dress_database(os.path.join(state["database_stage"], DATABASE), database, arguments, ownership)
        # SQLite makes its journal beside the database: the directory has to belong to the same user.
        if arguments["database_owner"] is not None:
            _give_directories(state["database_made"], arguments["database_owner"], ownership)
    journal = {}
    if media_root:
        journal = _dress_media(state, media_root, arguments, ownership)
        _give_directories(state["media_made"], arguments["directory_owner"], ownership)
    # One sync for all files of the tree instead of one each; Linux returns when the data is on disk.
    os.sync()
    with channel.cleanup.held_off():
        if media_root and database:
            write_private(os.path.join(state["database_stage"], JOURNAL), json.dumps(journal).encode("ascii"))
            sync_directory(state["database_stage"])
        if media_root:
            _place_media(journal)
        if database:
            _place_database(os.path.join(state["database_stage"], DATABASE), database)
        # From here on nothing is undone: what is in place is whole.
        channel.cleanup.clear()
        remove_tree(state["media_stage"])
        remove_tree(state["database_stage"])
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
    _give(copy, mode, ids, ownership)


def _dress_media(state: Dict[str, Any], media_root: str, arguments: Arguments, ownership: Ownership) -> Dict[str, Any]:
    """Give the unpacked media directory mode and owner, and return the journal of putting it in place."""
    staged = os.path.join(state["media_stage"], MEDIA)
    existed = os.path.isdir(media_root)
    mode, ids = arguments["directory_mode"], ownership.ids(*arguments["directory_owner"])
    if existed:
        status = os.stat(media_root)
        mode, ids = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if state["rename"]:
        _give(staged, mode, ids, ownership)
    return {
        "media_root": media_root,
        "media_stage": state["media_stage"],
        "rename": state["rename"],
        "media_existed": existed,
        "media_mode": mode,
        "media_ids": ids,
        "entries": sorted(os.listdir(staged)),
    }


def _place_media(journal: Dict[str, Any]) -> None:
    staged, media_root = os.path.join(journal["media_stage"], MEDIA), journal["media_root"]
    if journal["rename"]:
        os.rename(staged, media_root)
        sync_directory(os.path.dirname(media_root))
        return
    for name in journal["entries"]:
        os.rename(os.path.join(staged, name), os.path.join(media_root, name))
    sync_directory(media_root)


def _place_database(copy: str, database: str) -> None:
    for suffix in sqlite.SIDE_FILES:
        try:
            os.unlink(database + suffix)
        except FileNotFoundError:
            continue
    os.rename(copy, database)
    sync_directory(os.path.dirname(database))


def _give_directories(paths: List[str], owner: List[Any], ownership: Ownership) -> None:
    for path in paths:
        _give(path, 0o755, ownership.ids(*owner), ownership)


def _give(path: str, mode: int, ids: Tuple[int, int], ownership: Ownership) -> None:
    if ownership.can_give and ids != (-1, -1):
        os.chown(path, *ids)
    os.chmod(path, mode)
