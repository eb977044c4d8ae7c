# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of a host that may be a Papermerge: running processes and systemd units, with their environment."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Mapping, Optional, Set

from .units import Unit, find_units

#: Of the environment of Papermerge's services these belong to Papermerge.
PAPERMERGE_VARIABLES = re.compile(r"PAPERMERGE_|PM_|DJANGO_|POSTGRES_|AWS_|DB|MEDIA", re.I)
#: A service with one of these is Papermerge or one of its workers, whatever its directory holds.
TELLING_VARIABLES = re.compile(r"(PAPERMERGE__\w+__\w+|PM_DB_URL|PM_MEDIA_ROOT|PM_STORAGE_BACKEND)\Z", re.I)
#: What a Papermerge is run by; a script shows its Python. An editor or a pager in its directory is none of it.
PROGRAMS = re.compile(r"python|gunicorn|uwsgi|uvicorn|hypercorn|granian|celery|poetry|uv\Z")
#: A directory that a command changes to before it starts what it is for.
CHANGED_DIRECTORY = re.compile(r"(?:--chdir|--directory)[= ](\S+)|\bcd (\S+?)(?: |;|&)")


@dataclass
class Service:
    """A process or a unit. ``directory``: its working directory, resolved. ``user_id``: None where nobody has said.

    ``environment`` may hold secrets. ``files``: unit files, drop-ins and environment files.
    """

    found_in: str
    directory: str
    words: List[str]
    environment: Dict[str, str] = field(repr=False)
    user_id: Optional[int]
    files: List[str]

    @property
    def programs(self) -> List[str]:
        """Return the programs that its command names with their whole path."""
        return [word for word in self.words if os.path.isabs(word) and os.path.basename(os.path.dirname(word)) == "bin"]

    @property
    def environments(self) -> List[str]:
        """Return the directories that may be its virtual environments."""
        found = [os.path.dirname(os.path.dirname(program)) for program in self.programs]
        if self.environment.get("VIRTUAL_ENV"):
            found.insert(0, self.environment["VIRTUAL_ENV"])
        return list(dict.fromkeys(found))

    @property
    def tells(self) -> bool:
        """Tell whether its environment alone makes it a part of a Papermerge."""
        return any(value and TELLING_VARIABLES.match(name) for name, value in self.environment.items())


def papermerge_variables(environment: Mapping[str, str]) -> Dict[str, str]:
    """Return what of a service's environment belongs to Papermerge."""
    return {name: value for name, value in sorted(environment.items()) if PAPERMERGE_VARIABLES.match(name)}


def find_services(system_root: str) -> Iterator[Service]:
    """Yield what may be a Papermerge: processes first, since they show what is in force, then units."""
    yield from _processes(system_root)
    for unit in find_units(system_root):
        service = _of_unit(unit)
        if service is not None:
            yield service


def _of_unit(unit: Unit) -> Optional[Service]:
    directory = unit.working_directory
    user_id = _user_id(unit.user)
    if directory == "~":
        directory = _home(user_id)
    changed = CHANGED_DIRECTORY.search(" ".join(unit.words))
    if changed:
        directory = os.path.join(directory or "/", changed.group(1) or changed.group(2))
    return Service(
        "unit {0}".format(unit.path),
        os.path.realpath(directory or "/"),
        unit.words,
        unit.environment,
        user_id,
        unit.files,
    )


def _user_id(name: str) -> Optional[int]:
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return None


def _home(user_id: Optional[int]) -> str:
    try:
        return pwd.getpwuid(user_id or 0).pw_dir
    except KeyError:
        return "/"


def _processes(system_root: str) -> Iterator[Service]:
    """Processes that may be a Papermerge. Those of containers, in other mount namespaces, are not ours."""
    proc = os.path.join(system_root, "proc")
    try:
        namespace = os.readlink(os.path.join(proc, "self", "ns", "mnt"))
        pids = sorted(int(name) for name in os.listdir(proc) if name.isdigit())
    except OSError:
        return
    skipped = _of_this_run(proc, pids)
    for pid in pids:
        home = os.path.join(proc, str(pid))
        try:
            if pid in skipped or os.readlink(os.path.join(home, "ns", "mnt")) != namespace:
                continue
            words = _words(home)
            if not words or not PROGRAMS.search(os.path.basename(words[0])):
                continue
            directory = os.path.realpath(os.readlink(os.path.join(home, "cwd")))
            with open(os.path.join(home, "environ"), "rb") as stream:
                pairs = (os.fsdecode(line).partition("=") for line in stream.read().split(b"\0"))
                environment = {name: value for name, equals, value in pairs if equals}
            owner = os.stat(home).st_uid
        except OSError:
            continue
        yield Service("working directory of process {0}".format(pid), directory, words, environment, owner, [])


def _words(home: str) -> List[str]:
    with open(os.path.join(home, "cmdline"), "rb") as stream:
        return [os.fsdecode(word) for word in stream.read().split(b"\0") if word]


def _of_this_run(proc: str, pids: List[int]) -> Set[int]:
    """Return the processes of Ansible and this one with all above it: where they were started, variables of a
    Papermerge may be set, too."""
    parents: Dict[int, int] = {}
    ansible = set()
    for pid in pids:
        home = os.path.join(proc, str(pid))
        try:
            with open(os.path.join(home, "stat"), "rb") as stream:
                # The name in the second field may hold anything, also spaces and brackets.
                parents[pid] = int(stream.read().rpartition(b")")[2].split()[1])
            if any(os.path.basename(word).startswith("ansible") for word in _words(home)[:2]):
                ansible.add(pid)
        except (OSError, ValueError, IndexError):
            continue
    found: Set[int] = set()
    pid = os.getpid()
    while pid in parents and pid not in found:
        found.add(pid)
        pid = parents[pid]
    for pid in pids:
        line: List[int] = []
        while pid in parents and pid not in line:
            line.append(pid)
            pid = parents[pid]
        if ansible.intersection(line):
            found.update(line[: 1 + max(index for index, one in enumerate(line) if one in ansible)])
    return found
