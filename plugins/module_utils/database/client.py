# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine's own client programs: on the host, or inside the container that the server runs in."""

from __future__ import annotations

import os
import pwd
from typing import Callable, Dict, List, Optional, Tuple

from ..errors import ToolError
from ..programs import Program, demotion, find_program, find_programs
from .place import DatabasePlace

#: What a client program may see of our own environment.
INHERITED = ("PATH", "HOME", "TMPDIR", "DOCKER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")


class Client:
    """Starts the client programs of one place.

    ``environment``: what they need to know, secrets included; names of it are handed into a container, values never
    stand in an argument list. ``directories``: glob patterns of where an engine's programs may lie besides PATH.
    """

    def __init__(self, place: DatabasePlace, environment: Dict[str, str], directories: Tuple[str, ...] = ()) -> None:
        self._place = place
        self._own = environment
        self._directories = directories

    def find(self, program: str) -> Optional[str]:
        """Return where a program is, or None. In a container its name is all that there is to know."""
        return program if self._place.container else find_program(program, self._directories)

    def find_all(self, program: str) -> List[str]:
        """Return where all installed releases of a program are."""
        return [program] if self._place.container else find_programs(program, self._directories)

    def missing(self, program: str, package: str) -> ToolError:
        """Return the error for a program that is not there, naming the package to install."""
        return ToolError("the host has no program {0}; install {1}".format(program, package))

    def require(self, program: str, package: str) -> str:
        """Return where a program is. Raises ToolError that names the package to install."""
        found = self.find(program)
        if found is None:
            raise self.missing(program, package)
        return found

    def start(self, argv: List[str], pass_fds: Tuple[int, ...] = (), more: Optional[Dict[str, str]] = None) -> Program:
        """Start a program whose path is the first of ``argv``. ``more``: environment for this one only."""
        own = {**self._own, **(more or {})}
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment.update(LC_ALL="C", **own)
        if self._place.container:
            engine, _colon, name = self._place.container.partition(":")
            program = find_program(engine)
            if program is None:
                raise ToolError("the host has no program {0}, in whose container {1} is".format(engine, name))
            names = [word for variable in sorted(own) for word in ("-e", variable)]
            argv = [program, "exec", "-i"] + names + [name] + argv
            return Program(argv, environment)
        return Program(argv, environment, self._demote(environment), pass_fds)

    def _demote(self, environment: Dict[str, str]) -> Optional[Callable[[], None]]:
        """Where a socket is asked without a password, the server wants to see the user of the same name (peer)."""
        place = self._place
        if place.password or not place.user or (place.host and not place.host.startswith("/")):
            return None
        try:
            entry = pwd.getpwnam(place.user)
        except KeyError:
            return None
        demote = demotion(entry.pw_uid, entry.pw_gid)
        if demote is not None:
            environment["HOME"] = entry.pw_dir
        return demote

    @property
    def changes_user(self) -> bool:
        """Whether programs run as another user than we do."""
        return bool(self._place.container) or self._demote({}) is not None
