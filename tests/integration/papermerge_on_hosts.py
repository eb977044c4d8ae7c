# SPDX-License-Identifier: GPL-3.0-or-later
"""One populated Papermerge, put on test hosts and brought back from them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.support.hosts.host import Host
from tests.support.papermerge.instance import OpenReport, PapermergeInstance

PROJECT = "/opt/papermerge"
"""Where Papermerge is on the hosts: a place that is looked at when nobody says where it is."""
DATABASE_FILES = ("db.sqlite3", "db.sqlite3-journal", "db.sqlite3-wal", "db.sqlite3-shm")
PLACES = ("/tmp", "/var/tmp", "/var/lib/papermerge", "/opt", "/srv", "/home", "/root", "/etc", "/run/user", "/dev/shm")
"""Where something could be left on a host."""


class Source:
    """A populated Papermerge of this machine, with what it contains and what it looks like when it is whole.

    The virtual environment is too large for the hosts and cannot run there: they get what tells its version.
    """

    def __init__(self, instance: PapermergeInstance, scratch: Path, version: str) -> None:
        self.instance = instance
        self.version = version
        self.contents: dict[str, Any] = instance.contents()
        self.report: OpenReport = instance.open_every_document()
        self.files: dict[str, dict[str, Any]] = self.contents["files"]
        self._project = scratch / "project"
        shutil.copytree(instance.directory, self._project, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
        packages = self._project / ".venv/lib/python3.11/site-packages"
        (packages / f"papermerge_core-{version}.dist-info").mkdir(parents=True)

    @property
    def project(self) -> Path:
        """The project as hosts get it."""
        return self._project

    def install(self, host: Host, place: str = PROJECT, owner: str = "papermerge") -> None:
        """Put the project with its media and its database on a host."""
        host.run(["rm", "-rf", place])
        host.put_tree(self._project, place, owner)

    def install_empty(self, host: Host, place: str = PROJECT, owner: str = "papermerge") -> None:
        """Put the project on a host as it is before the first document: without database, with an empty media."""
        self.install(host, place, owner)
        host.run(f"cd {place} && rm -rf media db.sqlite3 && mkdir media && chown {owner}: media")

    def bring_back(self, media: Path, database: Path, directory: Path) -> PapermergeInstance:
        """Make an instance of this machine from a media directory and a database, and return it."""
        ignored = shutil.ignore_patterns("media", ".venv", "__pycache__", *DATABASE_FILES)
        shutil.copytree(self.instance.directory, directory, ignore=ignored)
        (directory / ".venv").symlink_to((self.instance.directory / ".venv").resolve())
        shutil.copytree(media, directory / "media")
        shutil.copyfile(database, directory / "db.sqlite3")
        return PapermergeInstance(directory)

    def bring_back_from(self, host: Host, directory: Path, place: str = PROJECT) -> PapermergeInstance:
        """Make an instance of this machine from the project in a place of the host, and return it."""
        below = host.root / place.lstrip("/")
        return self.bring_back(below / "media", below / "db.sqlite3", directory)


def belongings(host: Host) -> set[str]:
    """Every file of a host where something could be left."""
    # Debian's sudo leaves a note at the first use.
    return {name for name in host.files_under(*PLACES) if not name.endswith("/.sudo_as_admin_successful")}


def agents(host: Host) -> list[str]:
    """The command lines of everything that is still at work for us on a host."""
    words = ("python", "papermerge", "zstd", "sudo", "doas")
    return [command for _pid, command in host.processes() if any(word in command for word in words)]
