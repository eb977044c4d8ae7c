# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that was killed while it was put in place: found by its journal, undone by the next one."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional, Tuple

from ..database.engine import ServerTarget
from ..errors import MediaError, TargetError
from ..media.extract import Ownership
from ..media.root import MediaRoot
from ..media.scan import Scanner
from ..paths import shown
from .target import require_empty_database
from .workspace import OwnDirectory, abandoned

PURPOSE = "restore"
JOURNAL = "journal.json"
MEDIA, DATABASE = "media", "database.sqlite3"


class Interrupted:
    """A restore that was killed between its first and its last rename.

    The last one takes a database file out of ``directory``, or a staging database off the server. The directory is open
    and locked; ``journal`` is what the restore was about to do.
    """

    def __init__(self, directory: OwnDirectory, journal: Dict[str, Any], written_ns: int) -> None:
        self.directory = directory
        self.journal = journal
        self._written_ns = written_ns

    def require_undoable(self, media_root: str, database: str, server: Optional[ServerTarget]) -> None:
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
        try:
            require_empty_database(database, server)
        except TargetError as error:
            raise TargetError("{0}, but {1}".format(where, error.message)) from None
        for name, identity in self.journal["items"].items():
            placed = os.path.join(media_root, name) if name else media_root
            if self._is_staged(name):
                continue
            if identity_of(placed) != identity:
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
        if self.journal["media_stage"] == self.directory.path:
            self.take_back(self.directory)
            return
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


def identity_of(path: str) -> Optional[List[int]]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino]


def interrupted_restores(media_root: str, database: str, server: Optional[ServerTarget]) -> List[Interrupted]:
    """Return the restores onto a target that were killed half-way; the caller closes them.

    A restore of a database file keeps its journal beside the database; one onto a server, with the media.
    """
    if server is not None:
        parents = [media_root, os.path.dirname(media_root)] if media_root else []
    else:
        parents = [os.path.dirname(database)] if database else []
    found = []
    for parent in parents:
        for directory in abandoned(parent, PURPOSE):
            interrupted = read_journal(directory, server)
            if interrupted is None:
                directory.close()
            else:
                found.append(interrupted)
    return found


def _journal_in(directory: OwnDirectory) -> Tuple[Dict[str, Any], int]:
    """Return a directory's journal and when it was written; empty where there is none."""
    try:
        with open(directory.inside(JOURNAL), encoding="utf-8") as stream:
            return dict(json.load(stream)), os.fstat(stream.fileno()).st_mtime_ns
    except (OSError, ValueError):
        return {}, 0


def is_of_another_server(directory: OwnDirectory, server: Optional[ServerTarget]) -> bool:
    """Tell whether a directory belongs to a restore onto a server other than this one, which alone knows its state."""
    journal, _written_ns = _journal_in(directory)
    return "database_url" in journal and (server is None or journal["database_url"] != server.place.url)


def read_journal(directory: OwnDirectory, server: Optional[ServerTarget]) -> Optional[Interrupted]:
    """Return the restore whose journal a directory of ours holds, None where nothing was begun or all is done."""
    if server is None and not os.path.lexists(directory.inside(DATABASE)):
        return None
    journal, written_ns = _journal_in(directory)
    if not journal:
        return None
    if server is not None and not (
        journal.get("database_url") == server.place.url and server.is_staged(journal["database_stage"])
    ):
        return None
    return Interrupted(directory, journal, written_ns)


def give(path: str, mode: int, ids: Tuple[int, int], ownership: Ownership) -> None:
    """Set mode and owner of a file or directory, never of what a link in its place leads to. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if ownership.can_give and ids != (-1, -1):
            os.fchown(descriptor, *ids)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
