# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Papermerge a container holds: its image's tag, else files of it, read without running anything in it."""

from __future__ import annotations

import ast
import posixpath
import re
import tarfile
from typing import Dict, List, Optional, Tuple

from .container import Container, ImageName
from .container_engine import Engine

#: What the application's images are called, whoever built them.
APPLICATION_IMAGES = ("papermerge", "papermerge-core", "papermerge-worker")
#: Whose tags are versions of Papermerge and not of somebody's own image.
PUBLISHED = tuple(
    "{0}/{1}".format(publisher, name)
    for publisher in ("papermerge", "eugenci", "linuxserver")
    for name in APPLICATION_IMAGES
)
#: 3.5.3, 3.6.0a16, v1.5.5-ls22, version-v1.5.5; no date and no single number.
TAG = re.compile(r"(?:version-)?v?([0-9]{1,2}\.[0-9]{1,2}(?:\.[0-9]{1,3})?(?:(?:a|b|rc)[0-9]+)?)(?:-.+)?\Z")
DISTRIBUTION = re.compile(r"(?:.*/)?papermerge(?:_core)?-([0-9][^-/]*)\.dist-info(?:/METADATA)?\Z")
PROJECT_DIRECTORIES = ("/core_app", "/app", "/opt/app", "/app/papermerge")
PACKAGE_DIRECTORIES = (
    "/core_app/.venv/lib",
    "/opt/app/.venv/lib",
    "/usr/local/lib/python3.8",
    "/usr/lib/python3/dist-packages",
)
#: A virtual environment of 3.x takes some 300 MB; only its file names are looked at.
PACKAGE_BYTES = 1 << 30


def find_version_of(engine: Engine, container: Container) -> Optional[Tuple[str, str]]:
    """Return (version, where it was found), None where neither the image's tag nor a file tells. Raises ToolError."""
    tagged = _tagged(container.image)
    if tagged is not None and is_published(container.image):
        return tagged
    return _in_files(engine, container) or tagged


def is_published(image: ImageName) -> bool:
    """Tell whether an image is one of those that Papermerge's releases come in, from whichever registry."""
    return "/".join(image.repository.split("/")[-2:]) in PUBLISHED


def _tagged(image: ImageName) -> Optional[Tuple[str, str]]:
    match = TAG.match(image.tag)
    if match is None or image.name not in APPLICATION_IMAGES:
        return None
    return match.group(1), "tag of image {0}:{1}".format(image.repository, image.tag)


def _in_files(engine: Engine, container: Container) -> Optional[Tuple[str, str]]:
    """The order is that of reliability; later releases left the constants of older ones behind."""
    directories = list(dict.fromkeys((container.working_directory,) + PROJECT_DIRECTORIES))
    if container.working_directory == "/":
        directories.remove("/")

    def look(paths: List[Tuple[str, str]]) -> Optional[Tuple[str, str]]:
        for path, constant in paths:
            content = engine.file(container.identity, path)
            text = (content or b"").decode("utf-8", "replace")
            version = constant_of(text, constant) if constant else project_version(text)
            if version:
                return version, "{0} in container {1}".format(path, container.name)
        return None

    newer = []
    older = []
    for directory in directories:
        newer.append((posixpath.join(directory, "papermerge/core/version.py"), "__version__"))
        newer.append((posixpath.join(directory, "pyproject.toml"), ""))
        older.append((posixpath.join(directory, "papermerge/core/__init__.py"), "VERSION"))
        older.append((posixpath.join(directory, "papermerge/__init__.py"), "VERSION"))
    return look(newer) or _installed(engine, container) or look(older)


def _installed(engine: Engine, container: Container) -> Optional[Tuple[str, str]]:
    def is_wanted(member: tarfile.TarInfo) -> bool:
        return DISTRIBUTION.match(member.name) is not None

    places = [posixpath.join(container.working_directory, ".venv/lib")] + list(PACKAGE_DIRECTORIES)
    for place in dict.fromkeys(places):
        member = engine.member(container.identity, place, is_wanted, PACKAGE_BYTES)
        match = DISTRIBUTION.match(member.name) if member else None
        if member and match:
            path = posixpath.join(posixpath.dirname(place), member.name)
            return match.group(1), "{0} in container {1}".format(path, container.name)
    return None


def project_version(text: str) -> Optional[str]:
    """Return the version in a pyproject.toml of Papermerge; another project's gives None."""
    values: Dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        header = re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?\Z", line)
        if header:
            section = header.group(1).strip()
        setting = re.match(r"\s*(name|version)\s*=\s*[\"']([^\"']+)[\"']", line)
        if setting and section in ("project", "tool.poetry"):
            values.setdefault(setting.group(1), setting.group(2))
    return values.get("version") if values.get("name") in ("papermerge", "papermerge-core") else None


def constant_of(text: str, name: str) -> Optional[str]:
    """Return the version that Python source assigns to a name: a text, or a tuple such as (2, 0, 2, FINAL, 0)."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not any(getattr(target, "id", "") == name for target in node.targets):
            continue
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return node.value.value
        if isinstance(node.value, ast.Tuple):
            numbers = [element.value for element in node.value.elts[:3] if isinstance(element, ast.Constant)]
            if len(numbers) == 3 and all(isinstance(number, int) for number in numbers):
                return ".".join(str(number) for number in numbers)
    return None
