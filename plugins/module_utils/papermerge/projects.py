# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Papermerge is installed on a host, whatever its release, without starting the application."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Pattern, Tuple

from ..errors import SettingError
from .services import Service, find_services, papermerge_variables
from .settings import DATABASE_VARIABLES, MEDIA_VARIABLES, SECRET_VARIABLES, STORAGE_VARIABLES
from .toml import TomlError, read_toml

#: Places named by the documentation and the images of all releases, and what people commonly choose.
KNOWN_DIRECTORIES = (
    "/opt/papermerge",
    "/opt/papermerge/*",
    "/opt/papermerge-core",
    "/opt/app",
    "/app",
    "/app/papermerge",
    "/core_app",
    "/srv/papermerge",
    "/srv/papermerge/*",
    "/srv/papermerge-core",
    "/var/www/papermerge",
    "/var/lib/papermerge",
    "/usr/local/papermerge",
    "/usr/share/papermerge",
    "/home/*/papermerge",
    "/home/*/papermerge-core",
    "/home/papermerge",
    "/root/papermerge",
    "/root/papermerge-core",
)
VIRTUAL_ENVIRONMENTS = (".venv", "venv", "env")
DISTRIBUTION = re.compile(r"papermerge(?:[_-]core)?-([0-9][^-]*)(?:-py[0-9.]+)?\.(?:dist|egg)-info\Z", re.I)
#: What Papermerge's pyproject.toml calls it: the former up to 3.3, the latter since 3.4.
PROJECT_NAMES = ("papermerge-core", "papermerge")
DECIDING_VARIABLES = (MEDIA_VARIABLES, DATABASE_VARIABLES, STORAGE_VARIABLES)


@dataclass
class Project:
    """A Papermerge project directory: how it was found, and what is known of the services that run it.

    ``programs``: programs of its virtual environment as seen in a process or a unit. ``user_id``: whom the service
    runs as, None where nobody has said. ``working_directory``: what relative paths of 3.3 and later are relative to.
    ``services``: where each service was found. ``told``: one of them has variables that are Papermerge's own.
    ``variable_places``: where each variable was found. ``disagreements``: for a variable the (value, place) of each
    service that has it, where they differ. ``files``: unit files, drop-ins, environment files.
    """

    directory: str
    found_in: str
    programs: List[str] = field(default_factory=list)
    environment: Dict[str, str] = field(default_factory=dict, repr=False)
    user_id: Optional[int] = None
    working_directory: str = ""
    environments: List[str] = field(default_factory=list)
    services: List[str] = field(default_factory=list)
    told: bool = False
    variable_places: Dict[str, str] = field(default_factory=dict)
    disagreements: Dict[str, List[Tuple[str, str]]] = field(default_factory=dict, repr=False)
    files: List[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.working_directory = self.working_directory or self.directory

    @property
    def is_django(self) -> bool:
        return os.path.isfile(os.path.join(self.directory, "manage.py"))

    @property
    def service_environment(self) -> Dict[str, str]:
        """Return the services' variables that belong to Papermerge. Secrets are among them."""
        return papermerge_variables(self.environment)

    def homes(self) -> List[str]:
        """Return the directories that may be this project's virtual environments, the likeliest first."""
        found = _environments_in(self.directory) + self.environments
        found += [os.path.dirname(os.path.dirname(program)) for program in self.programs]
        # Papermerge 2.0's documentation has both beside each other in /opt/papermerge.
        found += [home for home in _environments_in(os.path.dirname(self.directory)) if _distributions_in(home)]
        return list(dict.fromkeys(found))

    def python(self) -> Optional[str]:
        """Return the Python that runs the project: of its virtual environment, or of the service."""
        candidates = [os.path.join(home, "bin", "python") for home in self.homes()]
        return next((path for path in candidates if os.access(path, os.X_OK)), None)

    def site_packages(self) -> List[str]:
        """Return the directories in which Papermerge's distribution may be installed for this project."""
        return list(dict.fromkeys(path for home in self.homes() for path in site_packages_of(home)))

    def add(self, service: Service) -> None:
        """Take over what a service of this project tells. Raises nothing: see :meth:`require_agreement`."""
        if not self.services or (service.tells and not self.told):
            self.working_directory = service.directory
        self.told = self.told or service.tells
        self.services.append(service.found_in)
        self.programs += [program for program in service.programs if program not in self.programs]
        self.environments += [home for home in service.environments if home not in self.environments]
        self.files += [path for path in service.files if path not in self.files]
        self.user_id = service.user_id if self.user_id is None else self.user_id
        for name, value in service.environment.items():
            if name not in self.environment:
                self.environment[name] = value
                self.variable_places[name] = service.found_in
            elif value != self.environment[name] and value and _decides(name):
                first = (self.environment[name], self.variable_places[name])
                self.disagreements.setdefault(name, [first]).append((value, service.found_in))

    def require_agreement(self, variables: Pattern[str], remedy: str) -> None:
        """Raise SettingError where the services differ in one of the variables. ``remedy``: what to do about it."""
        for name, found in sorted(self.disagreements.items()):
            if variables.match(name):
                raise SettingError(
                    "the services of Papermerge in {0} differ in {1}: {2}; {3}".format(
                        self.directory, name, "; ".join(_shown(name, value, place) for value, place in found), remedy
                    )
                )

    def contradicts(self, service: Service) -> bool:
        """Tell whether a service keeps its data elsewhere than this project."""
        return any(
            value and self.environment.get(name, value) != value and _decides(name)
            for name, value in service.environment.items()
        )


def _decides(name: str) -> bool:
    return any(pattern.match(name) for pattern in DECIDING_VARIABLES)


def _shown(name: str, value: str, place: str) -> str:
    """Return a variable's value for a message: of a secret only that part which is none."""
    if SECRET_VARIABLES.search(name):
        value = re.sub(r"(://[^:/@]*):.*@", r"\1:…@", value, flags=re.DOTALL) if "://" in value else "…"
        value = re.sub(r"(?i)(password=)[^&]*", r"\1…", value)
    return "{0} ({1})".format(value, place)


def site_packages_of(home: str) -> List[str]:
    """Return the directories for packages of a virtual environment, resolved."""
    found = []
    for pattern in ("lib/python3*/site-packages", "lib/python3*/dist-packages", "lib/python3/dist-packages"):
        found += glob.glob(os.path.join(glob.escape(home), pattern))
    return list(dict.fromkeys(os.path.realpath(path) for path in found))


def distributions_in(packages: str) -> Iterator[Tuple[str, str]]:
    """Yield (version, path) of Papermerge's distributions in a directory for packages."""
    try:
        names = sorted(os.listdir(packages))
    except OSError:
        return
    for name in names:
        match = DISTRIBUTION.match(name)
        if match:
            yield match.group(1), os.path.join(packages, name)


def project_table(directory: str) -> Mapping[str, Any]:
    """Return Papermerge's own table of the directory's pyproject.toml, empty where there is none."""
    try:
        with open(os.path.join(directory, "pyproject.toml"), encoding="utf-8") as stream:
            tables = read_toml(stream.read(1 << 20))
    except (OSError, ValueError, TomlError):
        return {}
    tool = tables.get("tool")
    for table in (tables.get("project"), tool.get("poetry") if isinstance(tool, dict) else None):
        if isinstance(table, dict) and table.get("name") in PROJECT_NAMES:
            return table
    return {}


def is_project(directory: str) -> bool:
    """Tell whether a directory holds a Papermerge, of any release."""
    return _has_sources(directory) or _has_environment(directory)


def _has_sources(directory: str) -> bool:
    if project_table(directory):
        return True
    core = os.path.isdir(os.path.join(directory, "papermerge", "core"))
    if core and os.path.isfile(os.path.join(directory, "alembic.ini")):
        return True
    if not os.path.isfile(os.path.join(directory, "manage.py")):
        return False
    if os.path.exists(os.path.join(directory, "papermerge.conf.py")):
        return True
    if os.path.isdir(os.path.join(directory, "papermerge")):
        return True
    settings = glob.glob(os.path.join(glob.escape(directory), "config", "settings*"))
    settings += glob.glob(os.path.join(glob.escape(directory), "config", "settings", "*.py"))
    return any(os.path.isfile(path) and _mentions_papermerge(path) for path in settings)


def _has_environment(directory: str) -> bool:
    return any(_distributions_in(home) for home in _environments_in(directory))


def _environments_in(directory: str) -> List[str]:
    found = [os.path.join(directory, name) for name in VIRTUAL_ENVIRONMENTS]
    if os.path.isfile(os.path.join(directory, "pyvenv.cfg")):
        found.append(directory)
    return [home for home in found if os.path.isdir(home)]


def _distributions_in(home: str) -> bool:
    return any(True for packages in site_packages_of(home) for _found in distributions_in(packages))


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
        directory = os.path.realpath(explicit)
        candidates[directory] = Project(directory, "papermerge_backup_project_dir")
    services = list(find_services(system_root))
    loose = []
    for service in services:
        home = _directory_of(service, explicit and os.path.realpath(explicit))
        if home is None:
            if service.tells:
                loose.append(service)
        elif explicit is None or home in candidates:
            candidates.setdefault(home, Project(home, service.found_in)).add(service)
    if explicit is None:
        for project in _known(system_root):
            candidates.setdefault(project.directory, project)
        _drop_bare_environments(candidates)
    elif not is_project(directory) and not candidates[directory].services:
        raise SettingError(
            "{0} (papermerge_backup_project_dir) is no project of Papermerge: that has manage.py (1.x to 3.2) with "
            "papermerge.conf.py or settings that name papermerge, or papermerge's pyproject.toml or alembic.ini, or a "
            "virtual environment with papermerge, or a service of Papermerge works in it".format(explicit)
        )
    _add_loose(candidates, loose, explicit is None)
    if len(candidates) > 1:
        raise SettingError(
            "found {0} Papermerge projects: {1}; set papermerge_backup_project_dir to one of them".format(
                len(candidates),
                ", ".join("{0} ({1})".format(project.directory, project.found_in) for project in candidates.values()),
            )
        )
    return next(iter(candidates.values()), None)


def _directory_of(service: Service, explicit: Optional[str]) -> Optional[str]:
    """Return the project that a service belongs to by what lies on disk, or None."""
    if explicit is not None and service.directory == explicit and service.tells:
        return explicit
    if is_project(service.directory):
        return service.directory
    for home in service.environments:
        # A program of a Papermerge's virtual environment, started from anywhere.
        parent = os.path.dirname(home)
        if os.path.basename(home) in VIRTUAL_ENVIRONMENTS and is_project(parent):
            return os.path.realpath(parent)
        if os.path.isfile(os.path.join(home, "pyvenv.cfg")) and _distributions_in(home):
            return os.path.realpath(home)
    return None


def _known(system_root: str) -> Iterator[Project]:
    for pattern in KNOWN_DIRECTORIES:
        for directory in sorted(glob.glob(os.path.join(glob.escape(system_root), pattern.lstrip("/")))):
            if is_project(directory):
                yield Project(os.path.realpath(directory), "directory {0}".format(directory))


def _drop_bare_environments(candidates: Dict[str, Project]) -> None:
    """Leave out directories that hold nothing but the virtual environment of another project."""
    for directory in sorted(candidates, key=len, reverse=True):
        if candidates[directory].services or _has_sources(directory):
            continue
        for other, project in candidates.items():
            below = os.path.dirname(other) == directory and not _has_environment(other)
            if other != directory and (below or directory in project.homes()):
                del candidates[directory]
                break


def _add_loose(candidates: Dict[str, Project], loose: List[Service], make: bool) -> None:
    """Give services that only their environment betrays to the project whose data they work on.

    Workers have directories of their own. ``make``: one that fits no project is a project itself.
    """
    for service in loose:
        fitting = [project for project in candidates.values() if not project.contradicts(service)]
        if len(fitting) == 1 and (make or len(candidates) == 1):
            fitting[0].add(service)
        elif make and not fitting:
            found = candidates.setdefault(service.directory, Project(service.directory, service.found_in))
            found.add(service)
