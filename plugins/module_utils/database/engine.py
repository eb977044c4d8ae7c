# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine has to be able to do: be looked at, dumped, and restored. One engine is one file beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional

from ..papermerge.releases import ReleaseLine
from .place import DatabasePlace
from .view import View

Progress = Callable[[int, int], None]
#: Makes a private directory below a parent, after a look at the room for so many bytes; returns a way to name what is
#: in it.
Workspace = Callable[[str, int], Callable[[str], str]]


@dataclass
class Dump:
    """A dump that is about to be read.

    ``content`` yields its bytes, once and to the end, and raises what went wrong. After that ``view`` returns the rows
    of exactly the dump's moment, and ``facts`` holds what the manifest tells of the database: ``server_version``,
    ``client``, ``encoding``, ``locale``, and what a restore needs to know of this engine. ``moment_ns``: the moment in
    nanoseconds since 1970 by the host's clock; nothing written later is in the dump. ``size``: about so many bytes.
    """

    content: Callable[[], Iterator[bytes]]
    view: Callable[[], View]
    moment_ns: int
    size: int
    facts: Dict[str, Any] = field(default_factory=dict)


class Database(ABC):
    """A database of an instance. ``found_in`` tells where its place was found.

    Every method raises DatabaseError, ToolError, SettingError, SpaceError or TargetError with what to do about it.
    """

    #: What the manifest calls the form of the dump.
    dump_format = ""

    def __init__(self, place: DatabasePlace, found_in: str) -> None:
        self.place = place
        self.found_in = found_in

    @abstractmethod
    def check(self) -> None:
        """Raise an error unless the database is there and can be read."""

    @abstractmethod
    def size(self) -> int:
        """Return about how many bytes the database has."""

    @abstractmethod
    def view(self) -> View:
        """Return a moment of the database in use."""

    @abstractmethod
    def dump(self, line: ReleaseLine, workspace: Workspace, progress: Progress) -> ContextManager[Dump]:
        """Return a context in which the dump can be read. ``progress`` is told what happens before the first byte."""


class ServerTarget(ABC):
    """Where a restore puts a server's database: into a staging database beside it, which takes its name at the end.

    ``place``: the target's database and the account that owns it. ``admin``: the account that may create, rename and
    drop databases. Every method raises DatabaseError, ToolError, SettingError, SpaceError or TargetError.
    """

    def __init__(self, place: DatabasePlace, found_in: str, admin: Optional[DatabasePlace] = None) -> None:
        self.place = place
        self.found_in = found_in
        self.admin = admin or place

    @abstractmethod
    def require_fit(self, facts: Dict[str, Any]) -> None:
        """Raise TargetError, naming everything that is missing, unless a dump with these facts can be restored here.

        ``facts``: what :class:`Dump` told of the source; empty for a dump that nobody knows anything of.
        """

    @abstractmethod
    def content(self) -> List[str]:
        """Return the names of the tables that the target's database holds; none for an empty or absent one."""

    @abstractmethod
    def stage(self, facts: Dict[str, Any]) -> str:
        """Make an empty staging database and return its name."""

    @abstractmethod
    def load(self, stage: str, content: Iterator[bytes]) -> None:
        """Restore a dump into the staging database, stopping at the first error."""

    @abstractmethod
    def staged_view(self, stage: str) -> View:
        """Return a moment of the staging database."""

    @abstractmethod
    def is_staged(self, stage: str) -> bool:
        """Tell whether a staging database of this name exists."""

    @abstractmethod
    def abandoned(self) -> List[str]:
        """Return the staging databases that killed restores onto this database have left."""

    @abstractmethod
    def put_in_place(self, stage: str, facts: Dict[str, Any]) -> None:
        """Give the staging database the name of the target's, whose empty database goes."""

    @abstractmethod
    def discard(self, stage: str) -> None:
        """Drop a staging database, and end who is connected to it."""
