# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance as it is found on a host: explicit settings first, discovery for the rest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..database.place import DatabasePlace, parse_database_url
from ..errors import SettingError
from .containers import ContainerInstance, ContainerRequest, find_container_instance
from .marked import find_marked
from .projects import Project, find_project
from .releases import ReleaseLine, release_line_of
from .services import papermerge_variables
from .settings import DATABASE_VARIABLES, MEDIA_VARIABLES, STORAGE_VARIABLES, ObjectStorage
from .sources import configuration_files, source_of_environment, source_of_project
from .version import find_version

DATABASE_SETTING = "papermerge_backup_database_url"


@dataclass(frozen=True)
class InstanceRequest:
    """What the user has set by hand; None is discovered. ``database_url`` may hold a password."""

    project_dir: Optional[str] = None
    media_root: Optional[str] = None
    database_url: Optional[str] = field(default=None, repr=False)
    app_version: Optional[str] = None
    container: Optional[str] = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> InstanceRequest:
        names = ("project_dir", "media_root", "database_url", "app_version", "container")
        return cls(*(params.get(name) for name in names))

    @property
    def is_whole(self) -> bool:
        """Whether nothing has to be discovered."""
        return bool(self.media_root and self.database_url and self.app_version) and not self.container

    def database(self) -> Optional[DatabasePlace]:
        """Return the place of the database that was set. Raises SettingError."""
        return parse_database_url(self.database_url, DATABASE_SETTING) if self.database_url else None


@dataclass(frozen=True)
class Instance:
    """Where an instance keeps what, and where each of these facts was found.

    ``line_only``: nothing but the release line is known, for which ``version`` stands. ``containers``: names of those
    that Papermerge runs in. ``storage``: the bucket that holds originals, if there is one. ``configuration_files``:
    absolute paths of the settings files in use. ``service_environment``: Papermerge's variables of its services.
    Secrets are in ``database``, in these files and in this environment; :meth:`as_dict` holds none.
    """

    project_dir: str
    version: str
    version_found_in: str
    line: ReleaseLine
    line_only: bool
    media_root: str
    media_found_in: str
    database: DatabasePlace
    database_found_in: str
    storage: Optional[ObjectStorage] = None
    configuration_files: Tuple[str, ...] = ()
    service_environment: Dict[str, str] = field(default_factory=dict, repr=False, hash=False)
    containers: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        return {
            "project_dir": self.project_dir,
            "version": self.version,
            "version_found_in": self.version_found_in,
            "release_line": self.line.name,
            "release_line_only": self.line_only,
            "media_root": self.media_root,
            "media_found_in": self.media_found_in,
            "media_layout": self.line.layout,
            "database_engine": self.database.engine,
            "database_url": self.database.url,
            "database_found_in": self.database_found_in,
            "storage": self.storage.as_dict() if self.storage else None,
            "configuration_files": list(self.configuration_files),
            "containers": list(self.containers),
        }


def find_instance(request: InstanceRequest) -> Optional[Instance]:
    """Return the instance on this host, or None where there is no Papermerge and not everything is set by hand.

    Raises SettingError for settings that are wrong or ambiguous.
    """
    return _find(request)[0]


def _find(request: InstanceRequest) -> Tuple[Optional[Instance], List[str]]:
    """Return the instance, and what kept a container engine from being asked."""
    for name, path in (("project_dir", request.project_dir), ("media_root", request.media_root)):
        if path is not None and not os.path.isabs(path):
            raise SettingError("papermerge_backup_{0} must be an absolute path, found {1!r}".format(name, path))
    if request.is_whole and not request.project_dir:
        return _in_project(request, None), []
    contained, notes = find_container_instance(source_of_environment, _container_request(request))
    if contained is not None and (request.container or request.project_dir):
        return _in_container(contained), notes
    project = find_project(request.project_dir)
    if contained is not None and project is not None:
        raise SettingError(
            "found a Papermerge on the host, {0} ({1}), and one in container {2}; set papermerge_backup_project_dir or "
            "papermerge_backup_container to one of them".format(project.directory, project.found_in, contained.names[0])
        )
    if contained is not None:
        return _in_container(contained), notes
    return (_in_project(request, project) if project is not None else None), notes


def _container_request(request: InstanceRequest) -> ContainerRequest:
    return ContainerRequest(
        request.container, request.project_dir, request.app_version, request.media_root, request.database()
    )


def _in_container(found: ContainerInstance) -> Instance:
    where = "environment of container {0}".format(found.names[0])
    source = source_of_environment(found.environment, found.version, found.working_directory, where)
    return Instance(
        found.project_dir,
        found.version,
        found.version_found_in,
        release_line_of(found.version),
        found.line_only,
        found.media_root,
        found.media_found_in,
        found.database,
        found.database_found_in,
        source.storage(),
        found.configuration_files,
        papermerge_variables(found.environment),
        found.names,
    )


def _in_project(request: InstanceRequest, project: Optional[Project]) -> Optional[Instance]:
    version, version_found_in, line_only = _version(request, project)
    media_root, media_found_in = request.media_root, "papermerge_backup_media_root"
    place, database_found_in = request.database(), DATABASE_SETTING
    storage: Optional[ObjectStorage] = None
    if project is not None:
        source = source_of_project(project, version)
        if not media_root:
            project.require_agreement(MEDIA_VARIABLES, "set papermerge_backup_media_root, or make them agree")
            media_root, media_found_in = source.media()
        if place is None:
            project.require_agreement(DATABASE_VARIABLES, "set papermerge_backup_database_url, or make them agree")
            place, database_found_in = source.database()
        project.require_agreement(STORAGE_VARIABLES, "make them agree")
        storage = source.storage()
    if not media_root or place is None:
        return None
    return Instance(
        project.directory if project else "",
        version,
        version_found_in,
        release_line_of(version),
        line_only,
        media_root,
        media_found_in,
        place,
        database_found_in,
        storage,
        configuration_files(project, version) if project else (),
        project.service_environment if project else {},
    )


def _version(request: InstanceRequest, project: Optional[Project]) -> Tuple[str, str, bool]:
    """Return the version, where it was found, and whether it stands for a release line of which no more is known."""
    if request.app_version:
        return request.app_version, "papermerge_backup_app_version", False
    if project is None:
        raise SettingError("no file of this host tells the version of Papermerge; set papermerge_backup_app_version")
    found = find_version(project)
    if found is not None:
        return found[0], found[1], False
    given = request.database()
    line, mark = find_marked(
        lambda version: (given, DATABASE_SETTING) if given else source_of_project(project, version).database()
    )
    if line is None:
        raise SettingError(
            "no file of {0} ({1}) tells the version of Papermerge, nor does its database ({2}); set "
            "papermerge_backup_app_version".format(project.directory, project.found_in, mark)
        )
    return line.newest_version, mark, True


def require_instance(request: InstanceRequest) -> Instance:
    """Return the instance on this host. Raises SettingError where there is none."""
    instance, notes = _find(request)
    if instance is None:
        raise SettingError(
            "found no Papermerge on this host: no process or systemd unit works in a project of it, "
            "none is in a usual place, and none is in a container{0}; set papermerge_backup_project_dir, or "
            "papermerge_backup_media_root, papermerge_backup_database_url and "
            "papermerge_backup_app_version".format("".join(" ({0})".format(note) for note in notes))
        )
    return instance
