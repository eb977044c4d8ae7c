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
from typing import Any, Dict, List, Optional, Tuple

from ..database import sqlite
from ..durable import write_private
from ..errors import MediaError, SettingError, TargetError, describe_os_error
from ..media.extract import Ownership
from ..media.root import MediaRoot
from ..media.scan import Scanner
from ..paths import shown
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


class Interrupted:
    """A restore that was killed between its first and its last rename. The last one takes the database out of
    ``directory``, which is open and locked; ``journal`` is what it was about to do."""

    def __init__(self, directory: OwnDirectory, journal: Dict[str, Any], written_ns: int) -> None:
        self.directory = directory
        self.journal = journal
        self._written_ns = written_ns

    def require_undoable(self, media_root: str, database: str) -> None:
        """Raise TargetError unless undoing takes back what the restore has put in place, and nothing else."""
        where = "a restore onto this target was interrupted (its journal is {0}/{1})".format(
            self.directory.path, JOURNAL
        )
        if self.journal["media_root"] != media_root:
            raise TargetError(
                "{0}, with media directory {1}, not {2}; restore with the same settings first".format(
                    where, self.journal["media_root"], media_root
                )
            )
        if not sqlite.is_empty_database(database):
            raise TargetError(
                "{0}, but database {1} is not empty any more; move one of them aside".format(where, database)
            )
        for name, identity in self.journal["items"].items():
            placed = os.path.join(media_root, name) if name else media_root
            if self._is_staged(name):
                continue
            if _identity(placed) != identity:
                raise TargetError(
                    "{0}, but {1} is not what it had put there; move it and the journal's directory aside".format(
                        where, placed
                    )
                )
        self._require_untouched(media_root, where)

    def _is_staged(self, name: str) -> bool:
        return os.path.lexists(os.path.join(self.journal["media_stage"], MEDIA, name))

    def _require_untouched(self, media_root: str, where: str) -> None:
        """Raise TargetError when something was written to the media since: it would be taken away with them."""
        if not os.path.isdir(media_root):
            return
        root = MediaRoot(media_root)
        try:
            for found in Scanner(root).files():
                if b"/" in found.path and found.ctime_ns > self._written_ns:
                    raise TargetError(
                        "{0}, but {1} in {2} was written after that; move it and the journal's directory aside".format(
                            where, shown(found.path), media_root
                        )
                    )
        except MediaError as error:
            raise TargetError("{0}, but {1}".format(where, error.message)) from None
        finally:
            root.close()

    def undo(self) -> None:
        """Take the media back out of their place, and forget the journal. What :meth:`require_undoable` has allowed.

        May itself be killed at any step: the next undo goes on from there.
        """
        stage = OwnDirectory.reopen(self.journal["media_stage"])
        try:
            self.take_back(stage)
        finally:
            stage.close()

    def take_back(self, stage: OwnDirectory) -> None:
        """Undo with a media stage that is open already."""
        journal = self.journal
        for name in journal["items"]:
            if not self._is_staged(name):
                os.rename(
                    os.path.join(journal["media_root"], name) if name else journal["media_root"],
                    stage.inside(os.path.join(MEDIA, name) if name else MEDIA),
                )
        if journal["rename"] and journal["media_existed"]:
            os.makedirs(journal["media_root"], exist_ok=True)
            give(journal["media_root"], journal["media_mode"], tuple(journal["media_ids"]), Ownership())
        # Before the directories go: without them the media could not be told from what somebody else put there.
        os.unlink(self.directory.inside(JOURNAL))

    def close(self) -> None:
        self.directory.close()


def _identity(path: str) -> Optional[List[int]]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino]


def interrupted_restores(parent: str) -> List[Interrupted]:
    """Return the restores that were killed half-way below the parent of a database; the caller closes them."""
    found = []
    for directory in abandoned(parent, PURPOSE):
        interrupted = _read_journal(directory)
        if interrupted is None:
            directory.close()
        else:
            found.append(interrupted)
    return found


def _read_journal(directory: OwnDirectory) -> Optional[Interrupted]:
    if not os.path.lexists(directory.inside(DATABASE)):
        return None
    try:
        with open(directory.inside(JOURNAL), encoding="utf-8") as stream:
            return Interrupted(directory, json.load(stream), os.fstat(stream.fileno()).st_mtime_ns)
    except (OSError, ValueError):
        return None


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
    state: Dict[str, Any] = {
        "media_stage": "",
        "database_stage": "",
        "database_path": database,
        "database_made": [],
        "media_made": [],
    }
    token = channel.cleanup.add(lambda: _abandon(channel, state))
    if database:
        parent = os.path.dirname(database)
        for interrupted in interrupted_restores(parent):
            try:
                interrupted.require_undoable(media_root, database)
                interrupted.undo()
            finally:
                interrupted.close()
        _make_parents(parent, state["database_made"])
    clear_up(media_root, database)
    require_empty(media_root, database)
    if database:
        state["database_stage"] = channel.hold(OwnDirectory(os.path.dirname(database), PURPOSE))
    if media_root:
        inside = _has_to_stay(media_root)
        parent = media_root if inside else os.path.dirname(media_root)
        _make_parents(parent, state["media_made"])
        stage = OwnDirectory(parent, PURPOSE)
        state.update(media_stage=channel.hold(stage), rename=not inside)
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


def _abandon(channel: Channel, state: Dict[str, Any]) -> None:
    """Undo everything since begin_restore. What cannot be undone safely stays, with its journal, for a person."""
    with contextlib.ExitStack() as stack:
        stages = [
            stack.enter_context(channel.held(state[name])) for name in ("database_stage", "media_stage") if state[name]
        ]
        interrupted = _read_journal(stages[0]) if state["database_stage"] and stages else None
        if interrupted is not None:
            interrupted.require_undoable(interrupted.journal["media_root"], state["database_path"])
            interrupted.take_back(stages[1])
        for stage in stages:
            stage.remove()
    for path in reversed(state["database_made"] + state["media_made"]):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def abandon_restore(channel: Channel, arguments: Arguments) -> Result:
    """Undo everything since begin_restore, whose result is the argument ``state``."""
    _abandon(channel, arguments["state"])
    return {}


def place(channel: Channel, arguments: Arguments) -> Result:
    """Put media and database in place: sync, look once more that the target is empty, then rename.

    The database comes last: while it is absent no Papermerge takes the target for a working one.
    """
    state, media_root, database = arguments["state"], arguments["media_root"], arguments["database_path"]
    ownership = Ownership()
    with contextlib.ExitStack() as stack:
        stages = {
            name: stack.enter_context(channel.held(state[name]))
            for name in ("database_stage", "media_stage")
            if state[name]
        }
        require_empty(media_root, database)
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
            require_empty(media_root, database)
            if media_root and database:
                write_private(stages["database_stage"].inside(JOURNAL), json.dumps(journal).encode("ascii"))
                stages["database_stage"].sync()
            if media_root:
                _place_media(stages["media_stage"], journal)
            if database:
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
        "items": {name: _identity(os.path.join(staged, name) if name else staged) for name in names},
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


def give(path: str, mode: int, ids: Tuple[int, int], ownership: Ownership) -> None:
    """Set mode and owner of a file or directory, never of what a link in its place leads to. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if ownership.can_give and ids != (-1, -1):
            os.fchown(descriptor, *ids)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
