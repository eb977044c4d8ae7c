# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Papermerge a project is, read from its files: the release lines differ in where it stands."""

from __future__ import annotations

import ast
import glob
import os
from typing import List, Optional, Tuple

from ..errors import SettingError
from .configuration import parse_python
from .projects import Project, distributions_in, project_table

SYSTEM_PACKAGES = (
    "/usr/lib/python3/dist-packages",
    "/usr/local/lib/python3*/dist-packages",
    "/usr/local/lib/python3*/site-packages",
    "/usr/lib/python3*/site-packages",
)


def find_version(project: Project) -> Optional[Tuple[str, str]]:
    """Return (version, where it was found), or None where no file tells.

    The order is that of reliability: installed distribution; pyproject.toml; papermerge/core/version.py; VERSION of
    papermerge/core (only where there is no version.py: 2.1 to 3.2 left it stale); VERSION of papermerge (1.x). setup.py
    is not asked: that of 2.0 says 1.5.1. Raises SettingError when distributions of different versions are installed.
    """
    packages = project.site_packages()
    found = _distributions(packages)
    if not found and not packages:
        found = _distributions([path for pattern in SYSTEM_PACKAGES for path in glob.glob(pattern)])
    if len({version for version, _path in found}) > 1:
        raise SettingError(
            "found several versions of Papermerge: {0}; set papermerge_backup_app_version".format(
                ", ".join("{0} ({1})".format(version, path) for version, path in found)
            )
        )
    if found:
        return found[0]
    version = project_table(project.directory).get("version")
    if isinstance(version, str) and version:
        return version, os.path.join(project.directory, "pyproject.toml")
    for place in [project.directory] + packages:
        core = os.path.join(place, "papermerge", "core")
        newer = os.path.join(core, "version.py")
        if os.path.exists(newer):
            version = _constant(newer, "__version__")
            if version:
                return version, newer
            continue
        for path in (os.path.join(core, "__init__.py"), os.path.join(place, "papermerge", "__init__.py")):
            version = _constant(path, "VERSION")
            if version:
                return version, path
    return None


def _distributions(packages: List[str]) -> List[Tuple[str, str]]:
    return [found for place in packages for found in distributions_in(place)]


def _constant(path: str, name: str) -> Optional[str]:
    """Return a version that a Python file assigns: a text, or a tuple such as (2, 0, 2, FINAL, 0)."""
    try:
        tree = parse_python(path)
    except SettingError:
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            if isinstance(node.value, ast.Tuple):
                numbers = [
                    element.value
                    for element in node.value.elts[:3]
                    if isinstance(element, ast.Constant) and isinstance(element.value, int)
                ]
                return ".".join(str(number) for number in numbers) if len(numbers) == 3 else None
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                return node.value.value
    return None
