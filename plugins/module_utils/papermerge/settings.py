# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Papermerge's own settings say: media directory and database of a 1.x or 2.0 project."""

from __future__ import annotations

import ast
import json
import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

from ..database.place import ENGINES, DatabasePlace
from ..errors import SettingError
from .projects import Project

#: Loads the settings only; the application is not started (seen to work on 2.0.2).
SETTINGS_PROGRAM = """
import json, sys
sys.path.insert(0, "")
from django.conf import settings
database = settings.DATABASES["default"]
print("papermerge-settings " + json.dumps({"media": str(settings.MEDIA_ROOT), "engine": database["ENGINE"],
                                           "name": str(database["NAME"])}))
"""
SETTINGS_MARK = "papermerge-settings "
TIMEOUT = 60
#: How the values of DBTYPE in papermerge.conf.py name an engine.
DATABASE_TYPES = {"pg": "postgresql", "postgre": "postgresql", "my": "mysql", "maria": "mysql", **ENGINES}


@dataclass(frozen=True)
class Settings:
    """Media root (absolute) and database, each with the place where it was found."""

    media_root: str
    media_found_in: str
    database: DatabasePlace
    database_found_in: str


def read_settings(project: Project) -> Settings:
    """Return the settings of a project, from Django where its Python is at hand, else from papermerge.conf.py.

    Raises SettingError for settings that cannot be read; explicit values make the call unnecessary.
    """
    python = project.python()
    return _from_django(project, python) if python else _from_configuration(project)


def _demote(user_id: Optional[int], directory: str) -> Optional[Callable[[], None]]:
    """Return a function that gives up root's rights for a child process: the project's code is not ours."""
    if os.geteuid() != 0:
        return None
    uid = os.stat(directory).st_uid if user_id is None else user_id
    if uid == 0:
        return None
    try:
        entry = pwd.getpwuid(uid)
        gid, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        gid, groups = os.stat(directory).st_gid, []

    def demote() -> None:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)

    return demote


def _settings_module(project: Project) -> str:
    """Return the settings module: of the service, or the default that manage.py sets."""
    if "DJANGO_SETTINGS_MODULE" in project.environment:
        return project.environment["DJANGO_SETTINGS_MODULE"]
    path = os.path.join(project.directory, "manage.py")
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            values = [getattr(argument, "value", None) for argument in node.args]
            if values[0] == "DJANGO_SETTINGS_MODULE" and isinstance(values[1], str):
                return values[1]
    raise SettingError(
        "{0} names no DJANGO_SETTINGS_MODULE; set papermerge_backup_media_root and "
        "papermerge_backup_database_url".format(path)
    )


def _parse(path: str) -> ast.Module:
    try:
        with open(path, "rb") as stream:
            return ast.parse(stream.read(1 << 20), path)
    except (OSError, SyntaxError, ValueError) as error:
        raise SettingError("{0} cannot be read: {1}".format(path, error)) from None


def _from_django(project: Project, python: str) -> Settings:
    module = _settings_module(project)
    where = "Django settings {0} in {1}".format(module, project.directory)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        **project.environment,
        "DJANGO_SETTINGS_MODULE": module,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    hint = "; set papermerge_backup_media_root and papermerge_backup_database_url"
    try:
        answer = subprocess.run(
            [python, "-W", "ignore", "-c", SETTINGS_PROGRAM],
            cwd=project.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            preexec_fn=_demote(project.user_id, project.directory),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingError("{0} cannot be loaded with {1}: {2}{3}".format(where, python, error, hint)) from None
    lines = answer.stdout.decode("utf-8", "replace").splitlines()
    found = [line[len(SETTINGS_MARK) :] for line in lines if line.startswith(SETTINGS_MARK)]
    if answer.returncode != 0 or not found:
        complaint = answer.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no answer"]
        raise SettingError("{0} cannot be loaded with {1}: {2}{3}".format(where, python, complaint[0], hint))
    values: Dict[str, Any] = json.loads(found[-1])
    return Settings(
        _absolute(values["media"], project),
        where,
        _place(values["engine"].rsplit(".", 1)[-1], values["name"], project, where),
        where,
    )


def _absolute(path: str, project: Project) -> str:
    return os.path.normpath(os.path.join(project.directory, path))


def _place(kind: str, name: str, project: Project, where: str) -> DatabasePlace:
    engine = DATABASE_TYPES.get(kind.replace("sqlite3", "sqlite"))
    if engine is None:
        raise SettingError(
            "{0} names the unknown database engine {1!r}; set papermerge_backup_database_url".format(where, kind)
        )
    return DatabasePlace(engine, _absolute(name, project) if engine == "sqlite" else "")


def configuration_file(project: Project, system_root: str = "/") -> Optional[str]:
    """Return the papermerge.conf.py that Papermerge 1.x and 2.0 would load, or None.

    Its order: /etc, the project, and PAPERMERGE_CONFIG only where neither exists.
    """
    candidates = [
        os.path.join(system_root, "etc/papermerge.conf.py"),
        os.path.join(project.directory, "papermerge.conf.py"),
    ]
    if "PAPERMERGE_CONFIG" in project.environment:
        candidates.append(_absolute(project.environment["PAPERMERGE_CONFIG"], project))
    return next((path for path in candidates if os.path.isfile(path)), None)


def _constants(path: str) -> Dict[str, Any]:
    """Return the names that a Python file sets to literals, without running it."""
    values: Dict[str, Any] = {}
    for node in _parse(path).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    try:
                        values[target.id] = ast.literal_eval(node.value)
                    except (ValueError, TypeError):
                        values[target.id] = None
    return values


def _from_configuration(project: Project, system_root: str = "/") -> Settings:
    path = configuration_file(project, system_root)
    values = _constants(path) if path else {}

    def setting(name: str, default: str) -> Tuple[str, str]:
        if name not in values:
            return default, "default of project {0}".format(project.directory)
        value = values[name]
        if not isinstance(value, str):
            raise SettingError(
                "{0} in {1} is not a plain text and the project's Python was not found; set "
                "papermerge_backup_media_root and papermerge_backup_database_url".format(name, path)
            )
        return value, "{0} in {1}".format(name, path)

    media, media_found_in = setting("MEDIA_DIR", os.path.join(project.directory, "media"))
    kind, kind_found_in = setting("DBTYPE", "sqlite")
    directory, found_in = setting("DBDIR", project.directory)
    place = _place(kind.lower(), os.path.join(directory, "db.sqlite3"), project, kind_found_in)
    return Settings(
        _absolute(media, project), media_found_in, place, found_in if place.engine == "sqlite" else kind_found_in
    )
