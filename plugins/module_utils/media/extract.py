# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The extractor: writes from a part's tar what the index names, below one directory, and nothing else.

The tar is read in lockstep with the part's commit record: every member must be the record's next one. So there is
nothing that the archive can name, or how much it can hold, on which the extractor would have to decide.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
from functools import lru_cache
from itertools import islice
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from ..durable import ExactReader
from ..errors import DamageError
from ..paths import is_safe_member, path_fields, path_of, shown
from .root import DIRECTORY
from .tar import Piece, TarReader

#: Of a stored mode only the permissions are restored; set-user-id and its like have no business in a media directory.
PERMISSIONS = 0o777
_NOBODY = (-1, -1)


class PartMemberPlan(NamedTuple):
    """A member of a part as its record says, and how the index wants it restored (``wanted`` False: read past it)."""

    path: bytes
    size: int
    sha256: str
    wanted: bool
    mode: int = 0o600
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    owner: str = ""
    group: str = ""


#: Members that travel in one record.
_TOGETHER = 256


def plan_records(plans: Iterable[PartMemberPlan]) -> Iterator[Dict[str, Any]]:
    """Yield records that hold some members each, a list of values a member: names in every one would cost more."""
    pending = iter(plans)
    while True:
        some = [[_path_value(plan.path), *plan[1:]] for plan in islice(pending, _TOGETHER)]
        if not some:
            return
        yield {"members": some}


def _path_value(path: bytes) -> Any:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return path_fields(path)


def member_plans(records: Iterable[Dict[str, Any]]) -> Iterator[PartMemberPlan]:
    """Read what :func:`plan_records` wrote. Raises DamageError for an unsafe path."""
    for fields in records:
        for named, *values in fields["members"]:
            path = path_of({"path": named} if isinstance(named, str) else named)
            if not is_safe_member(path):
                raise DamageError("refused a path outside the target directory: {0}".format(shown(path)))
            yield PartMemberPlan(path, *values)


class Ownership:
    """Whom restored files belong to: the stored names where the host knows them, else the stored numbers.

    Only root can give files away; for anybody else every file belongs to the caller.
    """

    def __init__(self) -> None:
        self.can_give = os.geteuid() == 0

    def ids(self, uid: int, gid: int, owner: str, group: str) -> Tuple[int, int]:
        """Return the user id and group id, or (-1, -1) where they stay as they are."""
        if not self.can_give:
            return -1, -1
        return _user_id(owner, uid), _group_id(group, gid)


@lru_cache(maxsize=256)
def _user_id(name: str, number: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid if name else number
    except KeyError:
        return number


@lru_cache(maxsize=256)
def _group_id(name: str, number: int) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else number
    except KeyError:
        return number


#: Directories that are kept open on the way to the current one; a path may have thousands.
DEPTH_OPEN = 32
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Writes files below ``root``, a directory that nobody else uses. Directories get one mode and owner."""

    def __init__(self, root: str, directory_mode: int, directory_ids: Tuple[int, int], ownership: Ownership) -> None:
        self._root = os.open(root, DIRECTORY)
        self._mode = directory_mode
        self._ids = directory_ids
        self._ownership = ownership
        #: The directory of the last file, as it is called and open, and those above it that are open.
        self._path = b""
        self._current = self._root
        self._above: List[Tuple[bytes, int]] = []
        self.files = 0
        self.size = 0

    def close(self) -> None:
        self._leave(0)
        os.close(self._root)

    def extract(self, source: ExactReader, tar_size: int, members: Iterable[PartMemberPlan]) -> None:
        """Read one part's tar and write the wanted members. Raises DamageError, or OSError from the target."""
        reader = TarReader(source.read, tar_size, source.some, source.at_hand)
        for plan in members:
            content = reader.at_once(plan.path, plan.size)
            if content is None:
                member = reader.next_member()
                if member is None or (member.path, member.size) != plan[:2]:
                    found = "its end" if member is None else "{0} ({1} bytes)".format(shown(member.path), member.size)
                    raise DamageError(
                        "the part's archive holds {0} where its record says {1} ({2} bytes)".format(
                            found, shown(plan.path), plan.size
                        )
                    )
            if plan.wanted:
                self._write(plan, reader.pieces(plan.size) if content is None else (content,))
            elif content is None:
                reader.content(plan.size, lambda _piece: None)
        if reader.next_member() is not None:
            raise DamageError("the part's archive holds more members than its record")
        reader.finish()

    def _write(self, plan: PartMemberPlan, content: Iterable[Piece]) -> None:
        directory, _slash, name = plan.path.rpartition(b"/")
        if directory != self._path:
            self._enter(directory)
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=self._current)
        try:
            digest = hashlib.sha256()
            for piece in content:
                digest.update(piece)
                written = os.write(descriptor, piece)
                while written < len(piece):
                    written += os.write(descriptor, memoryview(piece)[written:])
            if digest.hexdigest() != plan.sha256:
                raise DamageError("the content of {0} is not what the index says".format(shown(plan.path)))
            ids = self._ownership.ids(plan.uid, plan.gid, plan.owner, plan.group)
            if ids != _NOBODY:
                os.fchown(descriptor, *ids)
            if plan.mode & PERMISSIONS != 0o600:
                os.fchmod(descriptor, plan.mode & PERMISSIONS)
            os.utime(descriptor, ns=(plan.mtime_ns, plan.mtime_ns))
        finally:
            os.close(descriptor)
        self.files += 1
        self.size += plan.size

    def _enter(self, path: bytes) -> None:
        """Make the directory the current one. Those that the last one shares with it are open still."""
        names = path.split(b"/") if path else []
        common = 0
        for (above, _descriptor), name in zip(self._above, names):
            if above != name:
                break
            common += 1
        self._leave(common)
        for name in names[common:]:
            following = self._open(name)
            if len(self._above) < DEPTH_OPEN:
                self._above.append((name, following))
            elif self._current != self._above[-1][1]:
                os.close(self._current)
            self._current = following
        self._path = path

    def _leave(self, depth: int) -> None:
        """Close what is open below so many directories, and make the last of those the current one."""
        if self._above and self._current != self._above[-1][1]:
            os.close(self._current)
        while len(self._above) > depth:
            os.close(self._above.pop()[1])
        self._current = self._above[-1][1] if self._above else self._root
        self._path = b"/".join(name for name, _descriptor in self._above)

    def _open(self, name: bytes) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=self._current)
        except FileExistsError:
            return os.open(name, DIRECTORY, dir_fd=self._current)
        descriptor = os.open(name, DIRECTORY, dir_fd=self._current)
        if self._ids != _NOBODY:
            os.fchown(descriptor, *self._ids)
        if self._mode != 0o700:
            os.fchmod(descriptor, self._mode)
        return descriptor
