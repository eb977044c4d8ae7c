# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge of each release line as it lies on a host: the files that tell what it is, with the names and the stale
version texts that these releases have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.projects import MANAGE, make_environment

DJANGO_MANAGE = MANAGE.replace("config.settings.dev", "config.settings")
#: papermerge/core/__init__.py of 2.1 to 3.2, which nobody changed after 2.1's first alpha.
STALE_INIT = "__title__ = 'Papermerge'\nALPHA = 'alpha'\nVERSION = (2, 1, 0, ALPHA, 0)\n"
#: papermerge/core/version.py since 3.0.
ASKING_VERSION = "from importlib.metadata import version\n\n__version__ = version('papermerge-core')\n"


def pyproject(name: str, version: str, table: str = "tool.poetry") -> str:
    """Return a pyproject.toml with what surrounds name and version in Papermerge's own."""
    return f"""[build-system]
requires = ["poetry-core>=1.0.0"]
build-backend = "poetry.core.masonry.api"

[{table}]
name = "{name}"
version = "{version}"
description = "Open source document management system for digital archives"
authors = [
    "Somebody <somebody@example.com>",  # a comment, with ] and "quotes"
]
classifiers = [
    'Environment :: Web Environment',
]

[tool.poetry.dependencies]
python = ">=3.10,<3.12"
uvicorn = {{ extras = ["standard"], version = "^0.18" }}
ratio = 1.5

[[tool.poetry.source]]
name = "somewhere"
version = "0.0.0"
"""


@dataclass(frozen=True)
class Release:
    """``version``: what is right. ``found_in``: the end of the path where it stands."""

    version: str
    found_in: str
    distribution: str = ""
    is_django: bool = False


#: One of each release line, and of those whose files look different within a line.
RELEASES = {
    "1.5": Release("1.5.5", "papermerge/__init__.py", is_django=True),
    "2.0": Release("2.0.2", "papermerge_core-2.0.2.dist-info", "papermerge_core-2.0.2", True),
    "2.1": Release("2.1.9", "pyproject.toml", is_django=True),
    "2.1 without pyproject.toml": Release("2.1.9", "papermerge/core/version.py", is_django=True),
    "3.0": Release("3.0.3", "papermerge_core-3.0.3.dist-info", "papermerge_core-3.0.3", True),
    "3.2": Release("3.2", "pyproject.toml", is_django=True),
    "3.3": Release("3.3.1", "papermerge_core-3.3.1.dist-info", "papermerge_core-3.3.1"),
    "3.4": Release("3.4.1", "papermerge-3.4.1.dist-info", "papermerge-3.4.1"),
    "3.5": Release("3.5.3", "pyproject.toml"),
    "3.6": Release("3.6.0", "papermerge-3.6.0.dist-info", "papermerge-3.6.0"),
}


def make_installation(directory: Path, line: str) -> Path:
    """Make the files of an installation. Its virtual environment, where there is one, is ``.venv`` and runs."""
    release = RELEASES[line]
    core = directory / "papermerge" / "core"
    directory.mkdir(parents=True)
    if release.distribution:
        make_environment(directory / ".venv", release.distribution)
    if release.is_django:
        (directory / "manage.py").write_text(DJANGO_MANAGE)
        (directory / "config").mkdir()
        (directory / "config" / "__init__.py").write_text("")
        (directory / "config" / "settings.py").write_text("from papermerge.conf.settings import *\n")
    if line == "1.5":
        core.mkdir(parents=True)
        (core / "__init__.py").write_text("")
        (directory / "papermerge" / "__init__.py").write_text(
            "FINAL = 'final'\n# major, minor, patch\nVERSION = (1, 5, 5, FINAL, 0)\n"
        )
    elif line == "2.0":
        # The application's tree is a namespace package without a version of its own.
        (directory / "papermerge" / "contrib").mkdir(parents=True)
        (directory / "setup.py").write_text("from setuptools import setup\nsetup(name='papermerge', version='1.5.1')\n")
    else:
        core.mkdir(parents=True)
        if release.is_django:
            (core / "__init__.py").write_text(STALE_INIT)
        else:
            (core / "__init__.py").write_text("")
            (directory / "alembic.ini").write_text("[alembic]\nscript_location = papermerge/core/alembic\n")
        is_two = line.startswith("2.1")
        (core / "version.py").write_text('__version__ = "2.1.9"\n' if is_two else ASKING_VERSION)
        if line != "2.1 without pyproject.toml":
            newer = release.version >= "3.4"
            # 3.3.1 was released with the number of 3.3; an installed distribution is asked first.
            number = "3.3" if line == "3.3" else release.version
            name, table = ("papermerge", "project") if newer else ("papermerge-core", "tool.poetry")
            (directory / "pyproject.toml").write_text(pyproject(name, number, table))
    return directory
