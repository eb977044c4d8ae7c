# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a project of 1.x to 3.2 as Django itself loads them, in a process of the project's own Python."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from typing import Any, Dict, Optional, Tuple

from ..database.place import DatabasePlace
from ..errors import SettingError
from ..programs import demotion
from .configuration import parse_python
from .projects import Project
from .settings import DATABASE_HINT, MEDIA_HINT, ObjectStorage, below, connection_options, engine_of, hidden, port_of

#: Loads the settings only; the application is not started (seen to work on 2.0.2, 2.1.9 and 3.2). The password
#: travels through this pipe and nowhere else.
SETTINGS_PROGRAM = """
import json, sys
sys.path.insert(0, "")
from django.conf import settings
database = settings.DATABASES["default"]
found = {name: str(database.get(name) or "") for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")}
found["OPTIONS"] = database.get("OPTIONS") or {}
found["MEDIA_ROOT"] = str(settings.MEDIA_ROOT)
print("papermerge-settings " + json.dumps(found, default=str))
"""
SETTINGS_MARK = "papermerge-settings "
TIMEOUT = 60


class DjangoSettings:
    """What Django's settings of a project hold. They are loaded once, when the first part is asked for."""

    def __init__(self, project: Project, python: str) -> None:
        self._project = project
        self._python = python
        self._loaded: Dict[str, Any] = {}

    def media(self) -> Tuple[str, str]:
        return below(self._project.directory, self._load()["MEDIA_ROOT"]), self._where()

    def database(self) -> Tuple[DatabasePlace, str]:
        values, where = self._load(), self._where()
        engine = engine_of(values["ENGINE"].rsplit(".", 1)[-1], where)
        if engine == "sqlite":
            if not values["NAME"] or values["NAME"] == ":memory:":
                raise SettingError("{0} keeps its SQLite database in memory; {1}".format(where, DATABASE_HINT))
            return DatabasePlace(engine, below(self._project.directory, values["NAME"])), where
        options = connection_options(engine, values["OPTIONS"])
        if not values["NAME"] and not any(name == "service" for name, _value in options):
            raise SettingError("{0} names no database; {1}".format(where, DATABASE_HINT))
        place = DatabasePlace(
            engine,
            name=values["NAME"],
            host=str(values["OPTIONS"].get("unix_socket") or values["HOST"]),
            port=port_of(values["PORT"], where),
            user=values["USER"],
            password=values["PASSWORD"],
            options=options,
        )
        return place, where

    def storage(self) -> Optional[ObjectStorage]:
        return None

    def _where(self) -> str:
        return "Django settings {0} in {1}".format(settings_module(self._project), self._project.directory)

    def _load(self) -> Dict[str, Any]:
        if not self._loaded:
            self._loaded = _ask_django(self._project, self._python, self._where())
        return self._loaded


def settings_module(project: Project) -> str:
    """Return the name of the settings module: of the service, or the default that manage.py sets.

    Raises SettingError where neither names one.
    """
    if project.environment.get("DJANGO_SETTINGS_MODULE"):
        return project.environment["DJANGO_SETTINGS_MODULE"]
    path = os.path.join(project.directory, "manage.py")
    for node in ast.walk(parse_python(path)):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            values = [getattr(argument, "value", None) for argument in node.args]
            if values[0] == "DJANGO_SETTINGS_MODULE" and isinstance(values[1], str):
                return values[1]
    raise SettingError(
        "{0} names no DJANGO_SETTINGS_MODULE; {1} and papermerge_backup_database_url".format(path, MEDIA_HINT)
    )


def settings_module_file(project: Project) -> Optional[str]:
    """Return the file of the settings module where it lies in the project, or None."""
    try:
        name = settings_module(project)
    except SettingError:
        return None
    place = os.path.join(project.directory, *name.split("."))
    candidates = (place + ".py", os.path.join(place, "__init__.py"))
    return next((path for path in candidates if os.path.isfile(path)), None)


def _ask_django(project: Project, python: str, where: str) -> Dict[str, Any]:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        **project.environment,
        "DJANGO_SETTINGS_MODULE": settings_module(project),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    hint = "; {0} and papermerge_backup_database_url".format(MEDIA_HINT)
    # The project's code is not ours: root must not run it.
    owner = os.stat(project.directory)
    user_id = owner.st_uid if project.user_id is None else project.user_id
    try:
        answer = subprocess.run(
            [python, "-W", "ignore", "-c", SETTINGS_PROGRAM],
            cwd=project.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            preexec_fn=demotion(user_id, owner.st_gid),
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = "no answer within {0} s".format(TIMEOUT) if isinstance(error, subprocess.TimeoutExpired) else error
        raise SettingError("{0} cannot be loaded with {1}: {2}{3}".format(where, python, reason, hint)) from None
    lines = answer.stdout.decode("utf-8", "replace").splitlines()
    found = [line[len(SETTINGS_MARK) :] for line in lines if line.startswith(SETTINGS_MARK)]
    if answer.returncode != 0 or not found:
        complaint = answer.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no answer"]
        reason = hidden(complaint[0], project.environment)
        raise SettingError("{0} cannot be loaded with {1}: {2}{3}".format(where, python, reason, hint))
    values: Dict[str, Any] = json.loads(found[-1])
    return values
