# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance as it is found on a host: explicit settings first, discovery for the rest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from ..database.place import DatabasePlace, parse_database_url
from ..errors import SettingError
from .projects import Project, find_project
from .releases import ReleaseLine, release_line_of
from .settings import DATABASE_VARIABLES, MEDIA_VARIABLES, STORAGE_VARIABLES, ObjectStorage
from .sources import configuration_files, source_of_project
from .version import find_version


@dataclass(frozen=True)
class InstanceRequest:
    """What the user has set by hand; None is discovered. ``database_url`` may hold a password."""

    project_dir: Optional[str] = None
    media_root: Optional[str] = None
    database_url: Optional[str] = field(default=None, repr=False)
    app_version: Optional[str] = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> InstanceRequest:
        return cls(*(params.get(name) for name in ("project_dir", "media_root", "database_url", "app_version")))


@dataclass(frozen=True)
class Instance:
    """Where an instance keeps what, and where each of these facts was found.

    ``storage``: the bucket that holds originals, if there is one. ``configuration_files``: absolute paths of the
    settings files in use. ``service_environment``: Papermerge's variables of its services. Secrets are in
    ``database``, in these files and in this environment; :meth:`as_dict` holds none.
    """

    project_dir: str
    version: str
    version_found_in: str
    line: ReleaseLine
    media_root: str
    media_found_in: str
    database: DatabasePlace
    database_found_in: str
    storage: Optional[ObjectStorage] = None
    configuration_files: Tuple[str, ...] = ()
    service_environment: Dict[str, str] = field(default_factory=dict, repr=False, hash=False)

    def as_dict(self) -> Dict[str, Any]:
        return {
            "project_dir": self.project_dir,
            "version": self.version,
            "version_found_in": self.version_found_in,
            "release_line": self.line.name,
            "media_root": self.media_root,
            "media_found_in": self.media_found_in,
            "media_layout": self.line.layout,
            "database_engine": self.database.engine,
            "database_url": self.database.url,
            "database_found_in": self.database_found_in,
            "storage": self.storage.as_dict() if self.storage else None,
            "configuration_files": list(self.configuration_files),
        }


def find_instance(request: InstanceRequest) -> Optional[Instance]:
    """Return the instance on this host, or None where there is no Papermerge and not everything is set by hand.

    Raises SettingError for settings that are wrong or ambiguous, UnsupportedError for an unknown release.
    """
    for name, path in (("project_dir", request.project_dir), ("media_root", request.media_root)):
        if path is not None and not os.path.isabs(path):
            raise SettingError("papermerge_backup_{0} must be an absolute path, found {1!r}".format(name, path))
    by_hand = bool(request.media_root and request.database_url and request.app_version)
    project: Optional[Project] = None
    if request.project_dir or not by_hand:
        project = find_project(request.project_dir)
        if project is None:
            return None
    version, version_found_in = _version(request, project)
    line = release_line_of(version)
    media_root, media_found_in = request.media_root, "papermerge_backup_media_root"
    place: Optional[DatabasePlace] = None
    database_found_in = "papermerge_backup_database_url"
    if request.database_url:
        place = parse_database_url(request.database_url, database_found_in)
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
        line,
        media_root,
        media_found_in,
        place,
        database_found_in,
        storage,
        configuration_files(project, version) if project else (),
        project.service_environment if project else {},
    )


def _version(request: InstanceRequest, project: Optional[Project]) -> Tuple[str, str]:
    if request.app_version:
        return request.app_version, "papermerge_backup_app_version"
    found = find_version(project) if project is not None else None
    if found is None:
        where = "{0} ({1})".format(project.directory, project.found_in) if project is not None else "this host"
        raise SettingError(
            "no file of {0} tells the version of Papermerge; set papermerge_backup_app_version".format(where)
        )
    return found


def require_instance(request: InstanceRequest) -> Instance:
    """Return the instance on this host. Raises SettingError where there is none."""
    instance = find_instance(request)
    if instance is None:
        raise SettingError(
            "found no Papermerge on this host: no process or systemd unit works in a project of it, and "
            "none is in a usual place; set papermerge_backup_project_dir, or "
            "papermerge_backup_media_root, papermerge_backup_database_url and "
            "papermerge_backup_app_version"
        )
    return instance
