# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Papermerge that runs in containers of this host: found from nothing but what their engine says of them.

Owners of files are numbers of the host: with user namespaces (rootless engines, userns-remap) they differ from what the
container sees, and a restore on the same kind of engine needs the host's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, List, Mapping, Optional, Protocol, Sequence, Tuple

from ..database.place import DatabasePlace
from ..errors import BackupError, SettingError, ToolError
from .configula import SettingsText
from .container import WORKING_DIRECTORY_LABEL, Container, on_the_host, parse_container
from .container_database import Server, find_server, reach
from .container_engine import Engine, engines
from .container_files import configuration_files, media_on_the_host, settings_text, sqlite_on_the_host
from .container_roles import is_application, is_helper, is_surely_papermerge, rank, serves
from .container_version import find_version_of
from .marked import find_marked
from .sources import numbers_of

#: Variables as other software's images have them, for an entry of the user's own: what the application then gets is not
#: in the environment of the container.
SECRET_FILES = ("PAPERMERGE__DATABASE__URL_FILE", "PM_DB_URL_FILE")


class ContainerSettings(Protocol):
    """What a Papermerge's environment says, as the container sees it, each with the place where it was found.

    Raises SettingError for what cannot be read.
    """

    def media(self) -> Tuple[str, str]: ...

    def database(self) -> Tuple[DatabasePlace, str]: ...


#: From (environment, version, working directory, what messages call the environment, what they call single variables,
#: papermerge.toml).
SettingsReader = Callable[
    [Mapping[str, str], str, str, str, Optional[Mapping[str, str]], Optional[SettingsText]], ContainerSettings
]


@dataclass(frozen=True)
class ContainerInstance:
    """An instance in containers, as the host sees it.

    ``names``: its containers, first the one that the rest was read from; ``line_only``: nothing but the release line is
    known, for which ``version`` stands; ``engine``: the path of the engine's program;
    ``media_root`` and the path of a SQLite database are paths on the host; ``project_dir``: the compose project's
    directory, empty without one; ``stopped``: the application does not run, which a backup does not mind;
    ``configuration_files``: compose files, their environment files and settings that are mounted, as far as they exist.
    """

    names: Tuple[str, ...]
    engine: str
    version: str
    version_found_in: str
    line_only: bool
    environment: Mapping[str, str] = field(repr=False)
    working_directory: str
    media_root: str
    media_found_in: str
    database: DatabasePlace
    database_found_in: str
    compose_project: str
    project_dir: str
    stopped: bool
    configuration_files: Tuple[str, ...]


@dataclass
class Candidate:
    """Containers that use one database: one instance, and what went wrong when its database was looked for.

    ``identity``: the database, by a text that is the same however its containers name it. ``others``: what was found
    for each further container of the application, by itself.
    """

    engine: Engine
    containers: List[Container]
    version: str
    version_found_in: str
    settings: Optional[ContainerSettings] = None
    database: Optional[DatabasePlace] = None
    database_found_in: str = ""
    server: Optional[Server] = None
    problem: Optional[BackupError] = None
    identity: str = ""
    others: List[Candidate] = field(default_factory=list)
    line_only: bool = False

    @property
    def primary(self) -> Container:
        return self.containers[0]

    def describe(self) -> str:
        project = " of compose project {0}".format(self.primary.project) if self.primary.project else ""
        return "{0}{1} ({2}, Papermerge {3}, {4})".format(
            self.primary.name, project, self.primary.engine, self.version, self.primary.state
        )


@dataclass(frozen=True)
class ContainerRequest:
    """What the user has set by hand; None is discovered.

    ``container`` (papermerge_backup_container): any container of the wanted instance; ``project_dir``: the directory of
    its compose project; ``media_root`` and ``database`` as the host sees them.
    """

    container: Optional[str] = None
    project_dir: Optional[str] = None
    app_version: Optional[str] = None
    media_root: Optional[str] = None
    database: Optional[DatabasePlace] = None


def find_container_instance(
    read_settings: SettingsReader,
    request: ContainerRequest = ContainerRequest(),
    installed: Optional[Sequence[Engine]] = None,
) -> Tuple[Optional[ContainerInstance], List[str]]:
    """Return the Papermerge in containers of this host, and what kept an engine from being asked.

    None where there is none, or none in the project's directory. Raises SettingError when there are several and nothing
    says which, or when the container named is none of a Papermerge; MediaError, DatabaseError for where the one found
    keeps its files.
    """
    candidates: List[Candidate] = []
    notes: List[str] = []
    seen: List[str] = []
    known: List[Container] = []
    for engine in engines() if installed is None else installed:
        try:
            # A docker program may be Podman under another name.
            found = [parse_container(document, engine.name) for document in engine.containers()]
            found = [one for one in found if one.identity not in seen]
            seen += [one.identity for one in found]
            known += found
            candidates += _candidates(engine, found, read_settings, request)
        except ToolError as error:
            notes.append(error.message)
    chosen = _choose(candidates, known, request, notes)
    return (_build(chosen, request) if chosen else None), notes


def _choose(
    candidates: List[Candidate], known: List[Container], request: ContainerRequest, notes: List[str]
) -> Optional[Candidate]:
    container, project_dir = request.container, request.project_dir
    if container is not None:
        for candidate in candidates:
            if any(_is_called(member, container) for member in candidate.containers):
                return candidate
        there = any(_is_called(one, container) for one in known)
        raise SettingError(
            "container {0} (papermerge_backup_container) {1}; containers of Papermerge on this host: {2}{3}".format(
                container,
                "is no Papermerge" if there else "does not exist",
                ", ".join(candidate.describe() for candidate in candidates) or "none",
                "".join("; " + note for note in notes),
            )
        )
    if project_dir is not None:
        candidates = [one for one in candidates if _project_directory(one) == (project_dir.rstrip("/") or "/")]
    if len(candidates) > 1:
        raise SettingError(
            "found {0} Papermerge instances in containers: {1}; set papermerge_backup_container to a container of "
            "one of them".format(len(candidates), "; ".join(candidate.describe() for candidate in candidates))
        )
    return candidates[0] if candidates else None


def _is_called(container: Container, name: str) -> bool:
    return name.lstrip("/") == container.name or (len(name) >= 12 and container.identity.startswith(name))


def _project_directory(candidate: Candidate) -> str:
    directories = (one.labels.get(WORKING_DIRECTORY_LABEL, "") for one in candidate.containers)
    return next((directory.rstrip("/") or "/" for directory in directories if directory), "")


def _build(candidate: Candidate, request: ContainerRequest) -> ContainerInstance:
    app = candidate.primary
    if candidate.settings is None:
        raise candidate.problem or SettingError(
            "neither the image nor a file of container {0} tells the version of Papermerge; set "
            "papermerge_backup_app_version".format(app.name)
        )
    if request.media_root:
        media_root, media_found_in = request.media_root, "papermerge_backup_media_root"
    else:
        _require_one_media_root(candidate)
        media_root, media_found_in = media_on_the_host(candidate.engine, app, *candidate.settings.media())
    place, database_found_in = _database(candidate, request)
    return ContainerInstance(
        names=tuple(container.name for container in candidate.containers),
        engine=candidate.engine.program,
        version=candidate.version,
        version_found_in=candidate.version_found_in,
        line_only=candidate.line_only,
        environment=app.environment,
        working_directory=app.working_directory,
        media_root=media_root,
        media_found_in=media_found_in,
        database=place,
        database_found_in=database_found_in,
        compose_project=app.project,
        project_dir=_project_directory(candidate),
        stopped=not any(member.is_running for member in candidate.containers),
        configuration_files=configuration_files(candidate.containers),
    )


def _require_one_media_root(candidate: Candidate) -> None:
    """Raise SettingError where containers that serve one database at the same time keep their media apart."""
    serving = [one for one in [candidate] + candidate.others if one.primary.is_running and serves(one.primary)]
    places = {one.primary.name: _media_place(one) for one in serving}
    if len(set(places.values())) > 1:
        raise SettingError(
            "containers {0} run with one database, but with different media directories: {1}; stop what is not meant, "
            "or set papermerge_backup_media_root".format(
                ", ".join(places), ", ".join(place or "none on the host" for place in places.values())
            )
        )


def _media_place(candidate: Candidate) -> str:
    path = candidate.settings.media()[0] if candidate.settings else ""
    mount = candidate.primary.mount_of(path) if path else None
    return on_the_host(mount, path) if mount and mount.source else ""


def _database(candidate: Candidate, request: ContainerRequest) -> Tuple[DatabasePlace, str]:
    if request.database is not None:
        return request.database, "papermerge_backup_database_url"
    if candidate.problem is not None or candidate.database is None:
        raise candidate.problem or SettingError("container {0} has no database".format(candidate.primary.name))
    app, found_in = candidate.primary, candidate.database_found_in
    if candidate.server is not None:
        return reach(candidate.database, found_in, app, candidate.server), found_in
    return sqlite_on_the_host(candidate.engine, app, candidate.database, found_in)


def _candidates(
    engine: Engine, containers: List[Container], read_settings: SettingsReader, request: ContainerRequest
) -> List[Candidate]:
    """Return the instances among the containers of one engine, each with every container of it."""
    found: List[Candidate] = []
    for app in sorted((one for one in containers if is_application(one)), key=rank):
        candidate = Candidate(engine, [app], *_version(engine, app, request))
        if not candidate.version and not is_surely_papermerge(app):
            continue
        if not candidate.version:
            _look_into_database(candidate, containers, read_settings, request)
        candidate.identity = _read(candidate, containers, read_settings)
        same = next((other for other in found if _is_same(candidate, other)), None)
        if same is not None:
            same.containers.append(app)
            same.others.append(candidate)
        else:
            found.append(candidate)
    for helper in (one for one in containers if is_helper(one)):
        for candidate in found:
            if _belongs(helper, candidate):
                candidate.containers.append(helper)
    return found


def _version(engine: Engine, app: Container, request: ContainerRequest) -> Tuple[str, str]:
    if request.app_version:
        return request.app_version, "papermerge_backup_app_version"
    try:
        return find_version_of(engine, app) or ("", "")
    except ToolError:
        return "", ""  # a container whose files cannot be read is named when it is the wanted one


def _look_into_database(
    candidate: Candidate, containers: List[Container], read_settings: SettingsReader, request: ContainerRequest
) -> None:
    """Learn the release line from the database, if that tells."""

    def place_of(version: str) -> Tuple[DatabasePlace, str]:
        trial = Candidate(candidate.engine, candidate.containers, version, "")
        _read(trial, containers, read_settings)
        return _database(trial, request)

    line, mark = find_marked(place_of)
    if line is not None:
        candidate.version, candidate.version_found_in, candidate.line_only = line.newest_version, mark, True


def _is_same(candidate: Candidate, other: Candidate) -> bool:
    """Tell whether two containers are of one instance: they use one database, or one project is all that is known."""
    if candidate.identity and other.identity:
        return candidate.identity == other.identity
    return bool(candidate.primary.project) and candidate.primary.project == other.primary.project


def _read(candidate: Candidate, containers: List[Container], read_settings: SettingsReader) -> str:
    """Look for the database of a candidate and return what all who use it have in common; empty where none is found."""
    app = candidate.primary
    if not candidate.version:
        return ""
    found_in = "environment of container {0}".format(app.name)
    try:
        toml = settings_text(candidate.engine, app) if (2, 1) <= numbers_of(candidate.version) < (3, 3) else None
        directory, version = app.working_directory, candidate.version
        candidate.settings = read_settings(app.environment, version, directory, found_in, None, toml)
        for name in app.environment:
            if name in SECRET_FILES:
                raise SettingError(
                    "{0} of container {1} is nothing that Papermerge reads by itself, so its database is not "
                    "known; set papermerge_backup_database_url".format(name, app.name)
                )
        place, candidate.database_found_in = candidate.settings.database()
        candidate.database = place
        if place.engine == "sqlite":
            mount = app.mount_of(place.path)
            return "{0} {1}".format(mount.source, place.path[len(mount.destination) :]) if mount else ""
        candidate.server = find_server(app, place, containers)
        return "{0} {1}".format(candidate.server.identity, place.name)
    except BackupError as error:
        candidate.problem = error
        return ""


def _belongs(helper: Container, candidate: Candidate) -> bool:
    # One file of environment for all services makes the database look like a helper.
    if candidate.server is not None and candidate.server.container == helper:
        return False
    if helper.project or candidate.primary.project:
        return helper.project == candidate.primary.project
    shared = {mount.source for mount in helper.mounts if mount.source}
    return any(mount.source in shared for mount in candidate.primary.mounts)
