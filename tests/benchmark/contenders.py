# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared: each can back up the instance of a site, and most can bring it back."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.benchmark.community_general import CommunityGeneral
from tests.benchmark.measure import Command, run
from tests.benchmark.ours import INSTANCE
from tests.benchmark.sites import Site
from tests.support.playbooks import Playbooks

OUTSIDE = "papermerge_backup_"


class Contender(ABC):
    """One way to do it. ``place`` is an empty directory for what it stores.

    ``slow`` ones run once. ``reference``: the one of a site to which the others are set in relation.
    """

    name: str
    slow = False
    reference = False

    def __init__(self, site: Site, place: Path) -> None:
        self.site = site
        self.place = place

    def prepare(self) -> None:
        """Do what is not measured, in the empty place."""
        return

    @abstractmethod
    def create(self) -> Command:
        """Return the command that backs up."""

    def restore(self) -> Command | None:
        """Return the command that brings back to the site's target what the last create has stored."""
        return None

    def stored_bytes(self) -> int:
        """Return the size of what is stored."""
        return sum(
            os.path.getsize(os.path.join(directory, name))
            for directory, _below, names in os.walk(self.place)
            for name in names
        )


def _shell(command: str) -> Command:
    """A pipeline that fails when any of its programs fails."""
    return Command(["bash", "-c", f"set -o pipefail; {command}"])


class Tar(Contender):
    """The pipeline that everything is compared with: the host's tar, this machine's zstd."""

    name = "tar | zstd -1 -T0"
    reference = True
    pack = "tar -C {source} -cf - ."

    @property
    def file(self) -> str:
        return shlex.quote(str(self.place / "archive.tar.zst"))

    def _pack(self) -> str:
        return self.pack.format(source=shlex.quote(self.site.source))

    def create(self) -> Command:
        return _shell(f"{self.site.at(self._pack())} | zstd -1 -T0 -q -o {self.file}")

    def restore(self) -> Command | None:
        target = shlex.quote(self.site.target)
        return _shell(f"zstd -dcq {self.file} | {self.site.at(f'mkdir {target} && tar -C {target} -xf -')}")


class TarOnly(Tar):
    """What reading and carrying costs."""

    name = "tar to nothing"
    reference = False

    def create(self) -> Command:
        # GNU tar reads no file when it sees that its output is /dev/null.
        return _shell(f"{self.site.at(self._pack())} | cat >/dev/null")

    def restore(self) -> Command | None:
        return None


class TarSynced(Tar):
    """As a backup should be: on disk when it says that it is done."""

    name = "tar | zstd -1 -T0, synced"
    reference = False

    def create(self) -> Command:
        return _shell(f"{self.site.at(self._pack())} | zstd -1 -T0 -q -o {self.file} && sync {self.file}")

    def restore(self) -> Command | None:
        return None


class TarPackedThere(Tar):
    """Compressed before it is sent."""

    name = "tar | zstd on the host"
    reference = False

    def create(self) -> Command:
        return _shell(f"{self.site.at(f'{self._pack()} | zstd -1 -T0 -q -c')} >{self.file}")

    def restore(self) -> Command | None:
        return None


class Ours(Contender):
    """This collection's create and restore, without Ansible around them."""

    name = "papermerge.backup"

    def create(self) -> Command:
        return self._job("create", self.site.source_settings())

    def restore(self) -> Command | None:
        return self._job("restore", self.site.target_settings())

    def _job(self, what: str, settings: dict[str, str]) -> Command:
        job: dict[str, Any] = {
            "do": what,
            "agent": self.site.agent(),
            "repository": str(self.place),
            "settings": settings,
        }
        job["is_here"] = self.site.is_here
        return Command([sys.executable, "-m", "tests.benchmark.ours", json.dumps(job)], answers=True)


class OurPlaybooks(Contender):
    """What a user types."""

    name = "papermerge.backup, playbooks"

    def prepare(self) -> None:
        self._playbooks = Playbooks(self.place / "home")

    def create(self) -> Command:
        return self._playbook("create", self.site.source_settings())

    def restore(self) -> Command | None:
        return self._playbook("restore", self.site.target_settings())

    def _playbook(self, name: str, settings: dict[str, str]) -> Command:
        variables: dict[str, Any] = {OUTSIDE + key: value for key, value in settings.items()}
        inventory = {INSTANCE: {**self.site.inventory(), **variables}}
        words = self._playbooks.command(name, inventory)
        return Command(words, self._playbooks.environment(), self._playbooks.home)


class Restic(Contender):
    """Encrypts, and finds equal content; no cache, since a first backup has no use for it."""

    name = "restic"
    slow = True

    def prepare(self) -> None:
        password = self.place / "password"
        password.write_text("not a secret\n", encoding="ascii")
        self._base = ["restic", "-q", "--no-cache", "-r", str(self.place / "restic"), "-p", str(password)]
        run(Command([*self._base, "init"]))

    def create(self) -> Command:
        return Command([*self._base, "backup", self.site.source])

    def restore(self) -> Command | None:
        return Command([*self._base, "restore", "latest", "--target", self.site.target])


class ArchiveModule(Contender):
    """community.general.archive, whose result stays where the files are."""

    name = "community.general.archive, gz"
    slow = True

    def __init__(self, site: Site, place: Path, collection: CommunityGeneral) -> None:
        super().__init__(site, place)
        self._collection = collection

    def prepare(self) -> None:
        self._playbooks = Playbooks(self.place / "home")

    def create(self) -> Command:
        archive = {"path": self.site.source, "dest": str(self.place / "archive.tar.gz"), "format": "gz"}
        program = str(Path(sys.executable).with_name("ansible"))
        words = [program, "bench", "-i", "bench,", "-c", "local", "-m", "community.general.archive"]
        # Ansible's own search may find a name without a Python behind it.
        words += ["-e", f"ansible_python_interpreter={sys.executable}", "-a", json.dumps(archive)]
        path = {"ANSIBLE_COLLECTIONS_PATH": str(self._collection.path)}
        return Command(words, self._playbooks.environment(path), self._playbooks.home)


def emptied(place: Path) -> Path:
    """Return a directory that exists and is empty."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    return place
