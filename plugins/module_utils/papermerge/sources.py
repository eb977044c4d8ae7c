# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of its settings a Papermerge of some release reads: Django's, files, or the environment alone."""

from __future__ import annotations

import glob
import os
import re
from typing import Mapping, Optional, Tuple

from ..database.place import DatabasePlace
from .configula import ConfigulaSettings, SettingsText, configula_file
from .configuration import ConfigurationSettings, configuration_file
from .django_settings import DjangoSettings, settings_module_file
from .environment import EnvironmentSettings
from .projects import Project
from .settings import Settings, SettingsSource, Variables, settings_of

#: Of the images of 1.x and 2.0 (official, linuxserver): working directory, media, SQLite database. Their settings files
#: say so, not their environment.
IMAGES = {"/opt/app": ("/opt/media", None), "/app/papermerge": ("/data/media", "/data/papermerge.db")}


def numbers_of(version: str) -> Tuple[int, int]:
    """Return the first two numbers of a version; one that is missing counts as 0, a word as the newest."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?", version)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else (99, 0)


def source_of_environment(
    environment: Mapping[str, str],
    version: str,
    working_directory: str,
    found_in: str,
    places: Optional[Mapping[str, str]] = None,
    toml: Optional[SettingsText] = None,
) -> SettingsSource:
    """Return the settings of a Papermerge of which only the environment is known; nothing of this host is looked at.

    ``working_directory``: absolute, of the service; it counts as the project directory, too. ``found_in``: what
    messages call the environment; ``places`` does so for single variables. ``toml``: the papermerge.toml of 2.1 to 3.2.
    """
    variables = Variables(environment, found_in, places)
    numbers = numbers_of(version)
    if numbers < (2, 1):
        return _ImageSettings(variables, environment, working_directory)
    if numbers < (3, 3):
        return ConfigulaSettings(variables, numbers >= (3, 0), working_directory, working_directory, toml)
    # 3.6 has new names. A release that is not known yet may have either.
    prefixed = numbers >= (3, 6) and not (
        numbers >= (3, 7)
        and variables.get("PM_DB_URL") is None
        and variables.get("PAPERMERGE__DATABASE__URL") is not None
    )
    return EnvironmentSettings(variables, version, prefixed, working_directory)


def settings_from_environment(
    environment: Mapping[str, str],
    version: str,
    working_directory: str,
    found_in: str,
    places: Optional[Mapping[str, str]] = None,
    toml: Optional[SettingsText] = None,
) -> Settings:
    """Return media root, database and storage as :func:`source_of_environment` finds them. Raises SettingError."""
    return settings_of(source_of_environment(environment, version, working_directory, found_in, places, toml))


class _ImageSettings(ConfigurationSettings):
    """An image of 1.x or 2.0 with the settings files that came with it."""

    def __init__(self, variables: Variables, environment: Mapping[str, str], working_directory: str) -> None:
        super().__init__(variables, environment, working_directory, working_directory)
        self._image = IMAGES.get(working_directory)
        self._found_in = "default of the image with {0}".format(working_directory)

    def media(self) -> Tuple[str, str]:
        return (self._image[0], self._found_in) if self._image else super().media()

    def database(self) -> Tuple[DatabasePlace, str]:
        place, where = super().database()
        if place.engine == "sqlite" and self._image and self._image[1]:
            return DatabasePlace("sqlite", self._image[1]), self._found_in
        return place, where


def source_of_project(project: Project, version: str, system_root: str = "/") -> SettingsSource:
    """Return the settings of a project on this host; nothing is read before it is asked for.

    1.x to 3.2: from Django where the project's Python is at hand, else from its settings files and environment.
    """
    numbers = numbers_of(version)
    found_in = ", ".join(project.services[:3]) or "any service (found none of {0})".format(project.directory)
    variables = Variables(project.environment, found_in, project.variable_places)
    python = project.python()
    if numbers < (3, 3) and project.is_django and python:
        return DjangoSettings(project, python)
    if numbers < (2, 1):
        return ConfigurationSettings(
            variables,
            project.environment,
            project.directory,
            project.directory,
            configuration_file(variables, project.directory, system_root),
            settings_module_file(project),
        )
    directory, toml = project.working_directory, None
    if numbers < (3, 3):
        # Django's lines are started in the project directory, wherever their unit starts a shell for it.
        directory = project.directory
        path = configula_file(variables, directory, system_root)
        toml = SettingsText(path) if path else None
    return source_of_environment(project.environment, version, directory, found_in, project.variable_places, toml)


def read_settings(project: Project, version: str, system_root: str = "/") -> Settings:
    """Return the settings of a project on this host. Raises SettingError for those that cannot be read."""
    return settings_of(source_of_project(project, version, system_root))


def configuration_files(project: Project, version: str, system_root: str = "/") -> Tuple[str, ...]:
    """Return the absolute paths of the settings files that a project on this host uses; they may hold secrets.

    papermerge.conf.py or papermerge.toml, the project's Python settings, unit files with drop-ins, environment files.
    """
    numbers = numbers_of(version)
    found = []
    if numbers < (3, 3):
        variables = Variables(project.environment, "")
        named = configuration_file if numbers < (2, 1) else configula_file
        found.append(named(variables, project.directory, system_root))
        if project.is_django:
            found.append(settings_module_file(project))
            for pattern in ("config/settings*.py", "config/settings/*.py"):
                found += sorted(glob.glob(os.path.join(glob.escape(project.directory), pattern)))
    found += project.files
    return tuple(dict.fromkeys(os.path.abspath(path) for path in found if path))
