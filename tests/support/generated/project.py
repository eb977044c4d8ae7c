# SPDX-License-Identifier: GPL-3.0-or-later
"""The files by which each Papermerge release is found on a host, laid out as that release has them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.projects import DJANGO_CONF, MANAGE

SECRET_KEY = 'the secret key of "this" 100 % Papermerge\\'
UNIT = "/etc/systemd/system/papermerge.service"
ENVIRONMENT_FILE = "/etc/papermerge/environment"
PACKAGES = ".venv/lib/python3.11/site-packages"

_DJANGO_SETTINGS = """
import os, runpy
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[{depth}]
INSTALLED_APPS = ["papermerge.core"]
{load}
MEDIA_ROOT = {media}
if {type}.startswith(("pg", "postg")):
    ENGINE = "django.db.backends.postgresql"
elif {type}.startswith(("my", "maria")):
    ENGINE = "django.db.backends.mysql"
else:
    ENGINE = "django.db.backends.sqlite3"
if ENGINE.endswith("sqlite3"):
    DATABASES = {{"default": {{"ENGINE": ENGINE, "NAME": os.path.join({dir}, "db.sqlite3")}}}}
else:
    DATABASES = {{"default": {{"ENGINE": ENGINE, "NAME": {name}, "USER": {user}, "PASSWORD": {password},
                               "HOST": {host}, "PORT": {port}}}}}
"""
_CONF_FILE = """
settings = {}
for path in ("/etc/papermerge.conf.py", "papermerge.conf.py"):
    if os.path.exists(path):
        settings = runpy.run_path(path)
        break
"""
_TOML_FILE = """
import tomllib
settings = {}
for path in ("/etc/papermerge/papermerge.toml", "/etc/papermerge.toml", "papermerge.toml"):
    if os.path.exists(path):
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        break
def setting(section, name, default=""):
    variable = f"PAPERMERGE__{section}__{name}".upper()
    return os.environ.get(variable, settings.get(section, {}).get(name, default))
"""
_URL_SETTINGS = """
import os
from urllib.parse import unquote, urlsplit
INSTALLED_APPS = ["papermerge.core"]
MEDIA_ROOT = os.environ.get("PAPERMERGE__MAIN__MEDIA_ROOT", "/core_app/media")
url = urlsplit(os.environ.get("PAPERMERGE__DATABASE__URL", "sqlite:////db/db.sqlite3"))
ENGINES = {"sqlite": "sqlite3", "postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql"}
DATABASES = {"default": {
    "ENGINE": "django.db.backends." + ENGINES[url.scheme],
    "NAME": unquote(url.path[1:]),
    "USER": unquote(url.username or ""),
    "PASSWORD": unquote(url.password or ""),
    "HOST": url.hostname or "",
    "PORT": url.port or "",
}}
"""


@dataclasses.dataclass(frozen=True)
class WrittenProject:
    """`directory` as the host sees it; `environment` is what the unit gives to the service."""

    directory: str
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Request:
    root: Path
    version: str
    database_url: str
    media_root: str
    directory: str
    python: str

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the project, or one with an absolute path of the host."""
        target = Path(self.directory, path)
        if not target.is_relative_to(self.root):
            target = self.root / str(target).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def seen(self, path: str) -> str:
        """Return how the service names an absolute path of the host."""
        is_local = Path(self.directory).is_relative_to(self.root)
        return str(self.root / path.lstrip("/")) if is_local else path


def write_project(
    root: Path,
    version: str,
    *,
    database_url: str,
    media_root: str,
    directory: str | None = None,
    settings_in: str = "unit",
    python: str = "/usr/bin/python3",
) -> WrittenProject:
    """Write what a host with that release has: project, virtual environment, settings, a systemd unit.

    `root` stands for the host's "/" and is made; `directory`, `media_root` and `database_url` (as Papermerge 3 writes
    it; a SQLite file is named db.sqlite3) are as the host sees them. `directory` defaults to /opt/papermerge, from 3.0
    on /core_app. One that lies below `root` is taken as it is: so wants it who looks at `root` from this machine.

    The virtual environment's Python is `python` with a django that knows settings and nothing else.

    Settings of 1.x and 2.0 are in papermerge.conf.py, of 2.1 in papermerge.toml, later ones in the unit, or with
    `settings_in` "file" in an EnvironmentFile (0600) that the unit names. Everything written has the secret key
    SECRET_KEY where the release keeps one.
    """
    line = tuple(int(number) for number in version.split(".")[:2])
    if directory is None:
        directory = "/core_app" if line >= (3, 0) else "/opt/papermerge"
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)  # whoever copies it to a host's "/" takes its mode along
    request = _Request(root, version, database_url, media_root, directory, python)
    if line < (2, 1):
        environment = _write_early(request, line)
    elif line == (2, 1):
        environment = _write_toml(request)
    else:
        environment = _write_later(request, line)
    _write_environment(request, _distribution(version, line))
    program = "manage.py runworker" if line < (3, 3) else "-m uvicorn papermerge.app:app"
    _write_unit(request, environment, settings_in, f"{directory}/.venv/bin/python {program}")
    return WrittenProject(directory, environment)


def _write_early(request: _Request, line: tuple[int, ...]) -> dict[str, str]:
    """1.x and 2.0: papermerge.conf.py, and the version where the application or its library has it."""
    numbers = ", ".join(request.version.split("."))
    text = f'"""Papermerge"""\nfrom x import y\n\nFINAL = "final"\nVERSION = ({numbers}, FINAL, 0)\n'
    if line < (2, 0):
        request.write("papermerge/__init__.py", text)
        request.write("papermerge/core/__init__.py", "default_app_config = 'papermerge.core.apps.CoreConfig'\n")
        request.write("changelog.md", f"# Changelog\n\n## [{request.version}]\n")
    else:
        # A stale one beside it, as in the field.
        request.write("setup.py", "from setuptools import setup\nsetup(name='papermerge', version='1.5.1')\n")
        request.write(f"{PACKAGES}/papermerge/core/__init__.py", text)
    parts = _url_parts(request.database_url)
    values = {"MEDIA_DIR": request.media_root, "OCR_DEFAULT_LANGUAGE": "deu"}
    if parts["type"] == "sqlite":
        values["DBDIR"] = parts["dir"]
    else:
        values |= {"DBTYPE": {"postgresql": "pg"}.get(parts["type"], parts["type"])}
        values |= {f"DB{ours}": parts[theirs] for ours, theirs in _NAMES.items() if parts[theirs]}
    lines = [f"{name} = {value!r}\n" for name, value in values.items()]
    request.write("papermerge.conf.py", "# settings of this Papermerge\n" + "".join(lines))
    lookups = {key: f"str(settings.get('DB{ours}', ''))" for ours, key in _NAMES.items()}
    settings = _DJANGO_SETTINGS.format(
        depth=2,
        load=_CONF_FILE,
        media="settings.get('MEDIA_DIR', str(PROJECT / 'media'))",
        type="settings.get('DBTYPE', '')",
        dir="settings.get('DBDIR', str(PROJECT))",
        **lookups,
    )
    request.write("manage.py", MANAGE.replace("config.settings.dev", "config.settings.production"))
    request.write("config/__init__.py", "")
    request.write("config/settings/__init__.py", "")
    request.write("config/settings/base.py", settings + f"SECRET_KEY = {SECRET_KEY!r}\n")
    request.write("config/settings/production.py", "from .base import *\nDEBUG = False\n")
    return {"DJANGO_SETTINGS_MODULE": "config.settings.production"}


def _write_toml(request: _Request) -> dict[str, str]:
    """2.1: papermerge.toml; its version file tells the truth, papermerge/core/__init__.py does not."""
    parts = _url_parts(request.database_url)
    names = ("type", "dir") if parts["type"] == "sqlite" else ("type", "name", "user", "password", "host", "port")
    lines = [
        "[main]",
        f"media_root = {_toml(request.media_root)}",
        f"secret_key = {_toml(SECRET_KEY)}",
        "",
        "[database]",
    ]
    lines += [f"{name} = {_toml(parts[name])}" for name in names if parts[name]]
    request.write("papermerge.toml", "\n".join(lines) + "\n")
    request.write("papermerge/core/version.py", f'__version__ = "{request.version}"\n')
    request.write("papermerge/core/__init__.py", "VERSION = (2, 1, 0, 'alpha', 0)\n")
    settings = _DJANGO_SETTINGS.format(
        depth=1,
        load=_TOML_FILE,
        media="setting('main', 'media_root', str(PROJECT / 'media'))",
        type="setting('database', 'type')",
        dir="setting('database', 'dir', str(PROJECT))",
        **{key: f"setting('database', '{key}')" for key in ("name", "user", "password", "host", "port")},
    )
    request.write("manage.py", MANAGE.replace("config.settings.dev", "config.settings"))
    request.write("config/__init__.py", "")
    request.write("config/settings.py", settings + "SECRET_KEY = setting('main', 'secret_key')\n")
    return {"DJANGO_SETTINGS_MODULE": "config.settings"}


def _write_later(request: _Request, line: tuple[int, ...]) -> dict[str, str]:
    """3.x: pyproject.toml, a dist-info, and everything else in the environment."""
    name = "papermerge" if line >= (3, 4) else "papermerge-core"
    kind = "project" if line >= (3, 6) else "tool.poetry"
    request.write("pyproject.toml", f'[{kind}]\nname = "{name}"\nversion = "{request.version}"\ndescription = "x"\n')
    metadata = f'import importlib.metadata\n__version__ = importlib.metadata.version("{name}")\n'
    request.write("papermerge/core/version.py", metadata)
    if line >= (3, 6):
        return {
            "PM_DB_URL": request.database_url,
            "PM_MEDIA_ROOT": request.media_root,
            "PM_SECRET_KEY": SECRET_KEY,
        }
    if line < (3, 3):
        request.write("papermerge/core/__init__.py", "VERSION = (2, 1, 0, 'alpha', 0)\n")
        request.write("manage.py", MANAGE.replace("config.settings.dev", "config.settings"))
        request.write("config/__init__.py", "")
        request.write("config/settings.py", _URL_SETTINGS)
    else:
        request.write("papermerge/core/__init__.py", "")
        request.write("alembic.ini", "[alembic]\nscript_location = papermerge/core/alembic\n")
    return {
        "PAPERMERGE__DATABASE__URL": request.database_url,
        "PAPERMERGE__MAIN__MEDIA_ROOT": request.media_root,
        "PAPERMERGE__SECURITY__SECRET_KEY": SECRET_KEY,
    }


def _distribution(version: str, line: tuple[int, ...]) -> str | None:
    """1.x was never installed with pip, nor is 2.1 in its image."""
    if line < (2, 0) or line == (2, 1):
        return None
    return f"papermerge-{version}" if line >= (3, 4) else f"papermerge_core-{version}"


def _write_environment(request: _Request, distribution: str | None) -> None:
    if distribution is not None:
        name, _dash, version = distribution.partition("-")
        request.write(
            f"{PACKAGES}/{distribution}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n",
        )
    request.write(f"{PACKAGES}/django/__init__.py", "")
    request.write(f"{PACKAGES}/django/conf.py", DJANGO_CONF)
    program = f'#!/bin/sh\nPYTHONPATH="{request.directory}/{PACKAGES}" exec {request.python} "$@"\n'
    request.write(".venv/bin/python", program, 0o755)


def _write_unit(request: _Request, environment: dict[str, str], settings_in: str, command: str) -> None:
    if settings_in == "file":
        lines = [f"{name}={_quoted(value)}\n" for name, value in environment.items()]
        request.write(ENVIRONMENT_FILE, "".join(lines), 0o600)
        settings = f"EnvironmentFile={request.seen(ENVIRONMENT_FILE)}\n"
    else:
        # Here a percent sign begins a specifier, in an EnvironmentFile it does not.
        lines = [f"{name}={value}".replace("%", "%%") for name, value in environment.items()]
        settings = "".join(f"Environment={_quoted(line)}\n" for line in lines)
    request.write(
        UNIT,
        "[Unit]\nDescription=Papermerge\n\n[Service]\nUser=papermerge\n"
        f"WorkingDirectory={request.directory}\n{settings}ExecStart={command}\n\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )


_NAMES = {"USER": "user", "NAME": "name", "PASS": "password", "HOST": "host", "PORT": "port"}


def _url_parts(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    path = unquote(parts.path)[1:]
    return {
        "type": parts.scheme.partition("+")[0],
        "name": path,
        "dir": os.path.dirname(path),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": parts.hostname or query.get("host", query.get("unix_socket", [""]))[0],
        "port": str(parts.port or query.get("port", [""])[0]),
    }


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
