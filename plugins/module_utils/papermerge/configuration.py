# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Papermerge 1.x and 2.0 without Django: its Python files are parsed, never run."""

from __future__ import annotations

import ast
import os
import warnings
from dataclasses import replace
from typing import Any, Dict, Mapping, Optional, Tuple

from ..database.place import DatabasePlace
from ..errors import SettingError
from .settings import DATABASE_HINT, MEDIA_HINT, ObjectStorage, Variables, below, connection_options, engine_of, port_of

#: What a name holds that is no constant and none of the environment's variables.
UNKNOWN = object()
#: What the images of 1.x and 2.0 connect to where their variables are not set.
IMAGE_DATABASE = {"NAME": "dbname", "USER": "dbuser", "PASSWORD": "dbpass", "HOST": "db", "PORT": "5432"}
IMAGE_VARIABLES = {
    "NAME": "POSTGRES_DB",
    "USER": "POSTGRES_USER",
    "PASSWORD": "POSTGRES_PASSWORD",
    "HOST": "POSTGRES_HOST",
    "PORT": "POSTGRES_PORT",
}


def configuration_file(variables: Variables, working_directory: str, system_root: str = "/") -> Optional[str]:
    """Return the papermerge.conf.py that Papermerge 1.x and 2.0 would load, or None.

    Its order: /etc, the working directory, and PAPERMERGE_CONFIG only where neither exists.
    """
    candidates = [
        os.path.join(system_root, "etc/papermerge.conf.py"),
        os.path.join(working_directory, "papermerge.conf.py"),
    ]
    named = variables.get("PAPERMERGE_CONFIG")
    if named:
        candidates.append(below(working_directory, named))
    return next((path for path in candidates if os.path.isfile(path)), None)


def parse_python(path: str) -> ast.Module:
    """Parse a Python file. Raises SettingError."""
    try:
        with open(path, "rb") as stream, warnings.catch_warnings():
            # A warning, as of an odd escape, would print the line, maybe the one with the password.
            warnings.simplefilter("ignore")
            return ast.parse(stream.read(1 << 20), path)
    except (OSError, SyntaxError, ValueError) as error:
        # A syntax error's own text would hold the line, too.
        reason = "line {0}: {1}".format(error.lineno, error.msg) if isinstance(error, SyntaxError) else error
        raise SettingError(
            "{0} cannot be read: {1}; {2} and papermerge_backup_database_url".format(path, reason, MEDIA_HINT)
        ) from None


def constants(tree: ast.Module, environment: Mapping[str, str]) -> Dict[str, Any]:
    """Return the names that a Python file sets to literals or to variables of the environment.

    Any other value is :data:`UNKNOWN`; within a dictionary, too.
    """
    values: Dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    values[target.id] = _value(node.value, environment)
    return values


def _value(node: ast.AST, environment: Mapping[str, str]) -> Any:
    if isinstance(node, ast.Dict):
        keys = [_value(key, environment) if key is not None else UNKNOWN for key in node.keys]
        values = [_value(value, environment) for value in node.values]
        return {key: value for key, value in zip(keys, values) if isinstance(key, str)}
    if isinstance(node, ast.Call) and ast.dump(node.func) in _GETTERS and node.args and not node.keywords:
        words = [_value(argument, environment) for argument in node.args]
        return environment.get(words[0], words[1] if len(words) > 1 else None) if _is_text(words[0]) else UNKNOWN
    if isinstance(node, ast.Subscript) and ast.dump(node.value) == _ENVIRON:
        # Python 3.8 wraps what stands in the brackets.
        index: Any = node.slice
        name = _value(index.value if type(index).__name__ == "Index" else index, environment)
        return environment.get(name, UNKNOWN) if _is_text(name) else UNKNOWN
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNKNOWN


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _dumped(expression: str) -> str:
    return ast.dump(ast.parse(expression, mode="eval").body)


_ENVIRON = _dumped("os.environ")
_GETTERS = (_dumped("os.environ.get"), _dumped("os.getenv"))


class ConfigurationSettings:
    """papermerge.conf.py, and before it what the settings module of an image sets itself."""

    def __init__(
        self,
        variables: Variables,
        environment: Mapping[str, str],
        project_directory: str,
        working_directory: str,
        configuration: Optional[str] = None,
        settings_module: Optional[str] = None,
    ) -> None:
        """``configuration`` and ``settings_module``: paths of the files, where they are."""
        self._variables = variables
        self._environment = environment
        self._project = project_directory
        self._directory = working_directory
        self._paths = {"configuration": configuration, "module": settings_module}
        self._read: Dict[str, Dict[str, Any]] = {}

    def media(self) -> Tuple[str, str]:
        for file, name in (("module", "MEDIA_ROOT"), ("configuration", "MEDIA_DIR")):
            values = self._constants(file)
            # A settings module computes it as a rule, from the configuration file.
            if name in values and not (file == "module" and values[name] is UNKNOWN):
                return below(self._directory, self._text(file, name, MEDIA_HINT)), self._where(file, name)
        return below(self._project, "media"), "default of project {0}".format(self._project)

    def database(self) -> Tuple[DatabasePlace, str]:
        databases = self._constants("module").get("DATABASES")
        if isinstance(databases, dict) and isinstance(databases.get("default"), dict):
            computed = any(value is UNKNOWN for value in databases["default"].values())
            if not (computed and "CFG_PAPERMERGE" in self._constants("module")):
                return self._of_django(databases["default"])
        if any(self._variables.get(name) for name in IMAGE_VARIABLES.values()) and not self._paths["module"]:
            return self._of_image()
        return self._of_configuration()

    def storage(self) -> Optional[ObjectStorage]:
        return None

    def _of_django(self, settings: Dict[str, Any]) -> Tuple[DatabasePlace, str]:
        where = self._where("module", "DATABASES")
        unknown = [name for name, value in settings.items() if value is UNKNOWN and name in ("ENGINE", *IMAGE_DATABASE)]
        if unknown:
            raise SettingError(
                "{0} of {1} is computed and the project's Python was not found; {2}".format(
                    unknown[0], where, DATABASE_HINT
                )
            )
        engine = engine_of(str(settings.get("ENGINE", "")).rsplit(".", 1)[-1], where)
        options = settings.get("OPTIONS")
        place = self._place(engine, {name: settings.get(name) for name in IMAGE_DATABASE}, where)
        if engine != "sqlite" and isinstance(options, dict):
            place = replace(place, options=connection_options(engine, options))
        return place, where

    def _of_image(self) -> Tuple[DatabasePlace, str]:
        values = {name: self._variables.get(variable) for name, variable in IMAGE_VARIABLES.items()}
        where = next(self._variables.where(variable) for name, variable in IMAGE_VARIABLES.items() if values[name])
        values = {name: value or IMAGE_DATABASE[name] for name, value in values.items()}
        return self._place("postgresql", values, where), where

    def _of_configuration(self) -> Tuple[DatabasePlace, str]:
        values = self._constants("configuration")
        engine = "sqlite"
        if "DBTYPE" in values:
            where = self._where("configuration", "DBTYPE")
            engine = engine_of(self._text("configuration", "DBTYPE", DATABASE_HINT), where)
        if engine != "sqlite":
            names = {"NAME": "DBNAME", "USER": "DBUSER", "PASSWORD": "DBPASS", "HOST": "DBHOST", "PORT": "DBPORT"}
            defaults = {"NAME": "papermerge", "USER": "papermerge", "HOST": "localhost"}
            given = {
                key: self._text("configuration", name, DATABASE_HINT) if name in values else defaults.get(key)
                for key, name in names.items()
            }
            return self._place(engine, given, where), where
        directory, where = self._project, "default of project {0}".format(self._project)
        if "DBDIR" in values:
            directory, where = (
                self._text("configuration", "DBDIR", DATABASE_HINT),
                self._where("configuration", "DBDIR"),
            )
        return DatabasePlace("sqlite", below(self._directory, os.path.join(directory, "db.sqlite3"))), where

    def _place(self, engine: str, values: Mapping[str, Any], where: str) -> DatabasePlace:
        if engine == "sqlite":
            return DatabasePlace(engine, below(self._directory, str(values["NAME"])))
        return DatabasePlace(
            engine,
            name=str(values["NAME"] or ""),
            user=str(values["USER"] or ""),
            password=str(values["PASSWORD"] or ""),
            host=str(values["HOST"] or ""),
            port=port_of(values["PORT"], where),
        )

    def _constants(self, file: str) -> Dict[str, Any]:
        path = self._paths[file]
        if file not in self._read:
            self._read[file] = constants(parse_python(path), self._environment) if path else {}
        return self._read[file]

    def _where(self, file: str, name: str) -> str:
        return "{0} in {1}".format(name, self._paths[file])

    def _text(self, file: str, name: str, hint: str) -> str:
        value = self._constants(file)[name]
        if isinstance(value, int) and not isinstance(value, bool) and name == "DBPORT":
            return str(value)
        if not isinstance(value, str):
            raise SettingError(
                "{0} is not a plain text and the project's Python was not found; {1}".format(
                    self._where(file, name), hint
                )
            )
        return value
