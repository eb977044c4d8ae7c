# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge projects as discovery finds them on hosts: files, units and processes below a made system root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

MANAGE = """#!/usr/bin/env python
import os, sys
if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.dev")
"""
#: As in 2.0's papermerge/core/__init__.py.
VERSION_TUPLE = "from django.utils import x\n__title__ = 'Papermerge'\nVERSION = (2, 0, 1, FINAL, 0)\n"
#: A django that has settings and nothing else.
DJANGO_CONF = """
import importlib, os
settings = importlib.import_module(os.environ["DJANGO_SETTINGS_MODULE"])
"""


def make_project(directory: Path, configuration: str | None = None) -> Path:
    """Make a project of 2.0, with a papermerge.conf.py where its text is given."""
    (directory / "config" / "settings").mkdir(parents=True)
    (directory / "manage.py").write_text(MANAGE)
    (directory / "config" / "settings" / "base.py").write_text("INSTALLED_APPS = ['papermerge.core']\n")
    if configuration is not None:
        (directory / "papermerge.conf.py").write_text(configuration)
    return directory


def make_environment(directory: Path, distribution: str = "papermerge_core-2.0.2") -> Path:
    """Make a virtual environment that runs, with a distribution's metadata and nothing else."""
    packages = directory / "lib" / "python3.8" / "site-packages"
    (packages / f"{distribution}.dist-info").mkdir(parents=True)
    (directory / "bin").mkdir()
    program = directory / "bin" / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    (packages / "django").mkdir()
    (packages / "django" / "__init__.py").write_text("")
    (packages / "django" / "conf.py").write_text(DJANGO_CONF)
    return directory


def make_unit(system_root: Path, name: str, text: str) -> Path:
    path = system_root / "etc" / "systemd" / "system" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_process(
    system_root: Path, pid: int, directory: Path, command: list[str], environment: str = "", namespace: str = "mnt:[1]"
) -> None:
    """Make a process as /proc shows it."""
    own = system_root / "proc" / "self" / "ns"
    if not own.exists():
        own.mkdir(parents=True)
        os.symlink("mnt:[1]", own / "mnt")
    home = system_root / "proc" / str(pid)
    (home / "ns").mkdir(parents=True)
    os.symlink(namespace, home / "ns" / "mnt")
    os.symlink(directory, home / "cwd")
    (home / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in command))
    (home / "environ").write_text(environment.replace("\n", "\0"))
