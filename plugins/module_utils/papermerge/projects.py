# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Papermerge is installed on a host: projects of 1.x and 2.0, without starting the application."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shlex
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Tuple

from ..errors import SettingError

#: Places named by the documentation and the images of 1.x and 2.0, and what people commonly choose.
KNOWN_DIRECTORIES = (
    "/opt/papermerge",
    "/opt/papermerge/*",
    "/opt/app",
    "/app/papermerge",
    "/srv/papermerge",
    "/srv/papermerge/*",
    "/var/www/papermerge",
    "/usr/local/papermerge",
    "/home/*/papermerge",
    "/home/*/papermerge-core",
    "/root/papermerge",
)
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
VIRTUAL_ENVIRONMENTS = (".venv", "venv", "env")
#: Of a service's environment only these matter to Django and to Papermerge's settings.
ENVIRONMENT = re.compile(r"(DJANGO_|PAPERMERGE|POSTGRES_|DB|MEDIA|PYTHONPATH$|HOME$|PATH$|LANG$|LC_ALL$)")


@dataclass
class Project:
    """A Papermerge project directory: how it was found, and what is known of the service that runs it.

    ``programs``: programs of its virtual environment as seen in a process or a unit. ``user_id``: whom the service
    runs as, None where nobody has said.
    """

    directory: str
    found_in: str
    programs: List[str] = field(default_factory=list)
    environment: Dict[str, str] = field(default_factory=dict)
    user_id: Optional[int] = None

    def python(self) -> Optional[str]:
        """Return the Python that runs the project: of its virtual environment, or of the service."""
        candidates = [os.path.join(self.directory, name, "bin", "python") for name in VIRTUAL_ENVIRONMENTS]
        candidates += [os.path.join(os.path.dirname(program), "python") for program in self.programs]
        return next((path for path in candidates if os.access(path, os.X_OK)), None)

    def site_packages(self) -> List[str]:
        """Return the directories in which Papermerge's distribution may be installed for this project."""
        homes = [os.path.join(self.directory, name) for name in VIRTUAL_ENVIRONMENTS]
        homes += [os.path.dirname(os.path.dirname(program)) for program in self.programs]
        found = []
        for home in homes:
            found += glob.glob(os.path.join(glob.escape(home), "lib", "python3*", "site-packages"))
        return list(dict.fromkeys(os.path.realpath(path) for path in found))


def is_project(directory: str) -> bool:
    """Tell whether a directory holds a Papermerge project of 1.x or 2.0."""
    if not os.path.isfile(os.path.join(directory, "manage.py")):
        return False
    if os.path.exists(os.path.join(directory, "papermerge.conf.py")):
        return True
    if os.path.isdir(os.path.join(directory, "papermerge")):
        return True
    settings = glob.glob(os.path.join(glob.escape(directory), "config", "settings*"))
    settings += glob.glob(os.path.join(glob.escape(directory), "config", "settings", "*.py"))
    return any(os.path.isfile(path) and _mentions_papermerge(path) for path in settings)


def _mentions_papermerge(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return "papermerge" in stream.read(1 << 20)
    except OSError:
        return False


def find_project(explicit: Optional[str], system_root: str = "/") -> Optional[Project]:
    """Return the project on this host, or None where there is none.

    An explicit directory wins. Raises SettingError when it is no project, or when several projects are found.
    """
    candidates: Dict[str, Project] = {}
    if explicit is not None:
        if not os.path.isdir(explicit):
            raise SettingError("project directory {0} (papermerge_backup_project_dir) does not exist".format(explicit))
        if not is_project(os.path.realpath(explicit)):
            raise SettingError(
                "{0} (papermerge_backup_project_dir) is no project of Papermerge 1.x or 2.0: that has "
                "manage.py, and papermerge.conf.py or settings that name papermerge".format(explicit)
            )
        candidates[os.path.realpath(explicit)] = Project(os.path.realpath(explicit), "papermerge_backup_project_dir")
    sightings = list(_processes(system_root)) + list(_units(system_root)) + list(_known(system_root))
    for seen in sightings:
        known = candidates.get(seen.directory)
        if known is None:
            if explicit is None:
                candidates[seen.directory] = seen
            continue
        known.programs += [program for program in seen.programs if program not in known.programs]
        known.environment = known.environment or seen.environment
        known.user_id = seen.user_id if known.user_id is None else known.user_id
    if len(candidates) > 1:
        raise SettingError(
            "found {0} Papermerge projects: {1}; set papermerge_backup_project_dir to one of them".format(
                len(candidates),
                ", ".join("{0} ({1})".format(project.directory, project.found_in) for project in candidates.values()),
            )
        )
    return next(iter(candidates.values()), None)


def _known(system_root: str) -> Iterator[Project]:
    for pattern in KNOWN_DIRECTORIES:
        for directory in sorted(glob.glob(os.path.join(system_root, pattern.lstrip("/")))):
            if is_project(directory):
                yield Project(os.path.realpath(directory), "directory {0}".format(directory))


def _processes(system_root: str) -> Iterator[Project]:
    """Projects in whose directory a process runs. Processes of containers, in other mount namespaces, are not ours."""
    proc = os.path.join(system_root, "proc")
    try:
        namespace = os.readlink(os.path.join(proc, "self", "ns", "mnt"))
    except OSError:
        return
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        home = os.path.join(proc, pid)
        try:
            if os.readlink(os.path.join(home, "ns", "mnt")) != namespace:
                continue
            directory = os.path.realpath(os.readlink(os.path.join(home, "cwd")))
            if not is_project(directory):
                continue
            with open(os.path.join(home, "cmdline"), "rb") as stream:
                words = [os.fsdecode(word) for word in stream.read().split(b"\0") if word]
            with open(os.path.join(home, "environ"), "rb") as stream:
                environment = _environment(os.fsdecode(line) for line in stream.read().split(b"\0"))
            if not any(
                "python" in word or "manage.py" in word or "gunicorn" in word or "uwsgi" in word for word in words[:2]
            ):
                continue
            owner = os.stat(home).st_uid
        except OSError:
            continue
        yield Project(directory, "working directory of process {0}".format(pid), _programs(words), environment, owner)


def _environment(assignments: Iterator[str]) -> Dict[str, str]:
    pairs = (assignment.partition("=") for assignment in assignments)
    return {name: value for name, _equals, value in pairs if ENVIRONMENT.match(name)}


def _programs(words: List[str]) -> List[str]:
    return [word for word in words if os.path.isabs(word) and os.path.basename(os.path.dirname(word)) == "bin"]


def _units(system_root: str) -> Iterator[Project]:
    """Projects that a systemd unit names as its working directory."""
    seen = set()
    for place in UNIT_DIRECTORIES:
        for path in sorted(glob.glob(os.path.join(system_root, place.lstrip("/"), "*.service"))):
            name = os.path.basename(path)
            if name in seen:
                continue
            seen.add(name)
            settings = _unit_settings(path)
            directory = dict(settings).get("WorkingDirectory", "").lstrip("-~")
            if not directory or not is_project(directory):
                continue
            words: List[str] = []
            assignments: List[str] = []
            for key, value in settings:
                if key == "ExecStart":
                    words += _split(value.lstrip("@-:+!"))
                elif key == "Environment":
                    assignments += _split(value)
                elif key == "EnvironmentFile":
                    assignments += _environment_file(value.lstrip("-"))
            yield Project(
                os.path.realpath(directory),
                "unit {0}".format(path),
                _programs(words),
                _environment(iter(assignments)),
                _user_id(dict(settings).get("User")),
            )


def _unit_settings(path: str) -> List[Tuple[str, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(1 << 20).replace("\\\n", " ")
    except OSError:
        return []
    pairs = (line.partition("=") for line in text.splitlines() if line and line[0] not in "#;[")
    return [(key.strip(), value.strip()) for key, equals, value in pairs if equals]


def _environment_file(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read(1 << 20).splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and not name.lstrip().startswith("#"):
            found.append(name.strip() + "=" + "".join(_split(value.strip())[:1]))
    return found


def _split(text: str) -> List[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _user_id(name: Optional[str]) -> Optional[int]:
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return None
