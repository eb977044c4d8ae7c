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
from typing import Any, Callable, Dict, Iterable, NamedTuple, Optional, Tuple

from ..errors import DamageError
from ..paths import is_safe_member, path_fields, path_of, shown
from .root import DIRECTORY
from .tar import TarReader

#: Of a stored mode only the permissions are restored; set-user-id and its like have no business in a media directory.
PERMISSIONS = 0o777


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

    def as_record(self) -> Dict[str, Any]:
        values = self._asdict()
        del values["path"]
        return {**path_fields(self.path), **values}


def part_member_plan(fields: Dict[str, Any]) -> PartMemberPlan:
    """Read what :meth:`PartMemberPlan.as_record` wrote. Raises DamageError for an unsafe path."""
    path = path_of(fields)
    if not is_safe_member(path):
        raise DamageError("refused a path outside the target directory: {0}".format(shown(path)))
    return PartMemberPlan(path=path, **{name: fields[name] for name in PartMemberPlan._fields if name != "path"})


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


class Extractor:
    """Writes files below ``root``, a directory that nobody else uses. Directories get one mode and owner."""

    def __init__(self, root: str, directory_mode: int, directory_ids: Tuple[int, int], ownership: Ownership) -> None:
        self._root = os.open(root, DIRECTORY)
        self._mode = directory_mode
        self._ids = directory_ids
        self._ownership = ownership
        self._cached: Optional[Tuple[bytes, int]] = None
        self.files = 0
        self.size = 0

    def close(self) -> None:
        if self._cached is not None:
            os.close(self._cached[1])
            self._cached = None
        os.close(self._root)

    def extract(self, read: Callable[[int], bytes], tar_size: int, members: Iterable[PartMemberPlan]) -> None:
        """Read one part's tar and write the wanted members. Raises DamageError, or OSError from the target."""
        reader = TarReader(read, tar_size)
        for plan in members:
            member = reader.next_member()
            if member is None or (member.path, member.size) != (plan.path, plan.size):
                found = "its end" if member is None else "{0} ({1} bytes)".format(shown(member.path), member.size)
                raise DamageError(
                    "the part's archive holds {0} where its record says {1} ({2} bytes)".format(
                        found, shown(plan.path), plan.size
                    )
                )
            if plan.wanted:
                self._write(reader, plan)
            else:
                reader.content(plan.size, lambda _piece: None)
        if reader.next_member() is not None:
            raise DamageError("the part's archive holds more members than its record")
        reader.finish()

    def _write(self, reader: TarReader, plan: PartMemberPlan) -> None:
        directory, _slash, name = plan.path.rpartition(b"/")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._directory(directory))
        try:
            digest = hashlib.sha256()

            def keep(piece: bytes) -> None:
                digest.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]

            reader.content(plan.size, keep)
            if digest.hexdigest() != plan.sha256:
                raise DamageError("the content of {0} is not what the index says".format(shown(plan.path)))
            uid, gid = self._ownership.ids(plan.uid, plan.gid, plan.owner, plan.group)
            if (uid, gid) != (-1, -1):
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, plan.mode & PERMISSIONS)
            os.utime(descriptor, ns=(plan.mtime_ns, plan.mtime_ns))
        finally:
            os.close(descriptor)
        self.files += 1
        self.size += plan.size

    def _directory(self, path: bytes) -> int:
        if not path:
            return self._root
        if self._cached is not None and self._cached[0] == path:
            return self._cached[1]
        if self._cached is not None:
            os.close(self._cached[1])
            self._cached = None
        descriptor = os.dup(self._root)
        for name in path.split(b"/"):
            try:
                os.mkdir(name, 0o700, dir_fd=descriptor)
                made = True
            except FileExistsError:
                made = False
            try:
                following = os.open(name, DIRECTORY, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = following
            if made:
                if self._ids != (-1, -1):
                    os.fchown(descriptor, *self._ids)
                os.fchmod(descriptor, self._mode)
        self._cached = (path, descriptor)
        return descriptor
