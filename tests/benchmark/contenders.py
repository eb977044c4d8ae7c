# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared: this collection, and the plain programs that do a part of its work."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from abc import ABC
from pathlib import Path
from typing import Any

from tests.benchmark.measure import Command, Run, run
from tests.benchmark.ours import INSTANCE
from tests.benchmark.sites import OverSsh, Site
from tests.support.playbooks import Playbooks

OUTSIDE = "papermerge_backup_"
FULL, UNCHANGED, PLUS_ONE, RESUMED = "full", "unchanged", "plus-one", "resumed"
RESTORE, VERIFY, EXTRACT, PLAYBOOK = "restore", "verify", "extract", "playbook"
#: In the order in which they are measured.
PARTS = (FULL, RESTORE, VERIFY, EXTRACT, UNCHANGED, PLUS_ONE, RESUMED, PLAYBOOK)

#: What is done with what is stored, for which it does not matter where it came from.
ON_CONTROLLER = (VERIFY, EXTRACT)


class Contender(ABC):
    """One way to do it. ``place`` is an empty directory for what it stores.

    ``key``: its name in options. ``parts``: what it can do. ``slow``: runs alone and less often. ``reference``: the
    parts in which the others of its site are set in relation to it.
    """

    name: str
    key: str
    parts: frozenset[str]
    slow = False
    reference: frozenset[str] = frozenset()

    def __init__(self, site: Site, place: Path) -> None:
        self.site = site
        self.place = place

    def takes_part(self, part: str) -> bool:
        """Tell whether it does a part on its site."""
        return part in self.parts and not (part in ON_CONTROLLER and isinstance(self.site, OverSsh))

    def prepare(self) -> None:
        """Do what is not measured, in the empty place."""
        return

    def create(self) -> Command:
        """Return the command that backs up for the first time."""
        raise NotImplementedError

    def again(self) -> Command:
        """Return the command that backs up once more, beside what it has stored before."""
        return self.create()

    def cut(self, size: int) -> Command | None:
        """Return a first backup that breaks off when about so many bytes have passed; ``again`` goes on after it.

        None for what cannot go on, and begins again.
        """
        del size
        return None

    def restore(self) -> Command:
        """Return the command that brings back to the site's target what the last create has stored."""
        raise NotImplementedError

    def verify(self) -> Command:
        """Return the command that checks what is stored."""
        raise NotImplementedError

    def extract(self, path: str) -> Command:
        """Return the command that brings one document (a path below the media directory) into ``extracted``."""
        raise NotImplementedError

    @property
    def extracted(self) -> Path:
        """Where an extracted document goes, beside the place, so that it does not count as stored."""
        return self.place.with_name("extracted")

    def stored_bytes(self) -> int:
        """Return the size of what is stored."""
        return sum(
            os.lstat(os.path.join(directory, name)).st_size
            for directory, _below, names in os.walk(self.place)
            for name in names
        )

    def run(self, command: Command) -> Run:
        """Run one of its commands, with what that costs on the site."""
        return run(command, self.site)


def shell(command: str) -> Command:
    """Return a pipeline that fails when any of its programs fails."""
    return Command(["bash", "-c", f"set -o pipefail; {command}"])


class Tar(Contender):
    """The host's tar, this machine's zstd."""

    name = "tar | zstd -1 -T0"
    key = "tar"
    parts = reference = frozenset({FULL, RESTORE, EXTRACT, RESUMED})
    pack = "tar -C {source} -cf - ."

    @property
    def file(self) -> str:
        return shlex.quote(str(self.place / "archive.tar.zst"))

    def _pack(self) -> str:
        return self.pack.format(source=shlex.quote(self.site.source))

    def create(self) -> Command:
        return shell(f"{self.site.at(self._pack())} | zstd -1 -T0 -q -o {self.file}")

    def restore(self) -> Command:
        target = shlex.quote(self.site.target)
        return shell(f"zstd -dcq {self.file} | {self.site.at(f'mkdir {target} && tar -C {target} -xf -')}")

    def extract(self, path: str) -> Command:
        member, place = shlex.quote(f"./media/{path}"), shlex.quote(str(self.extracted))
        return shell(f"zstd -dcq {self.file} | tar -C {place} -xf - {member}")


class TarOnly(Tar):
    """What reading and carrying costs."""

    name = "tar to nothing"
    key = "tar-only"
    parts = frozenset({FULL})
    reference = frozenset()

    def create(self) -> Command:
        # GNU tar reads no file when it sees that its output is /dev/null.
        return shell(f"{self.site.at(self._pack())} | cat >/dev/null")


class TarSynced(TarOnly):
    """As a backup should be: on disk when it says that it is done."""

    name = "tar | zstd -1 -T0, synced"
    key = "tar-synced"

    def create(self) -> Command:
        return shell(f"{self.site.at(self._pack())} | zstd -1 -T0 -q -o {self.file} && sync {self.file}")


class TarPackedThere(Tar):
    """Compressed before it is sent: what everything over ssh is compared with."""

    name = "ssh … 'tar | zstd -1 -T0'"
    key = "tar"

    def create(self) -> Command:
        return shell(f"{self.site.at(f'{self._pack()} | zstd -1 -T0 -q -c')} >{self.file}")

    def restore(self) -> Command:
        target = shlex.quote(self.site.target)
        return shell(f"{self.site.at(f'mkdir {target} && zstd -dcq | tar -C {target} -xf -')} <{self.file}")


class TarPackedHere(TarOnly):
    """Compressed after it was sent."""

    name = "ssh … tar | zstd -1 -T0"
    key = "tar-here"

    def create(self) -> Command:
        return shell(f"{self.site.at(self._pack())} | zstd -1 -T0 -q -o {self.file}")


class Rsync(Contender):
    """A copy, which knows by itself what has changed. It keeps one state, and checks none."""

    name = "rsync -a"
    key = "rsync"
    parts = frozenset({FULL, RESTORE, UNCHANGED, PLUS_ONE})
    reference = frozenset({UNCHANGED, PLUS_ONE})

    def _words(self) -> tuple[list[str], str]:
        if not isinstance(self.site, OverSsh):
            return ["rsync", "-a"], ""
        login, where = self.site.login()
        return ["rsync", "-a", "-e", shlex.join(login), "--rsync-path=sudo -n rsync"], f"{where}:"

    def create(self) -> Command:
        words, where = self._words()
        return Command([*words, f"{where}{self.site.source}/", f"{self.place}/copy/"])

    def restore(self) -> Command:
        words, where = self._words()
        return Command([*words, f"{self.place}/copy/", f"{where}{self.site.target}/"])


class Digests(Contender):
    """What it costs to hash the files themselves."""

    name = "openssl dgst -sha256"
    key = "openssl"
    parts = reference = frozenset({VERIFY})

    def verify(self) -> Command:
        files = shlex.quote(f"{self.site.source}/media")
        digests = shlex.quote(str(self.place / "digests"))
        return shell(f"find {files} -type f -print0 | xargs -0 openssl dgst -sha256 >{digests}")


class Ours(Contender):
    """This collection, without Ansible around it."""

    name = "papermerge.backup"
    key = "ours"
    parts = frozenset({FULL, RESTORE, VERIFY, EXTRACT, UNCHANGED, PLUS_ONE, RESUMED})

    def create(self) -> Command:
        return self._job("create", settings=self.site.source_settings())

    def cut(self, size: int) -> Command | None:
        # What is to be cut has to come through the streams.
        return self._job("create", settings=self.site.source_settings(), cut=size, is_here=False)

    def restore(self) -> Command:
        return self._job("restore", settings=self.site.target_settings())

    def verify(self) -> Command:
        return self._job("verify")

    def extract(self, path: str) -> Command:
        return self._job("extract", path=path, dest=str(self.extracted / "out"))

    def _job(self, what: str, **more: Any) -> Command:
        here = {"agent": self.site.agent(), "is_here": self.site.is_here, "repository": str(self.place)}
        job = {"do": what, **here, **more}
        return Command([sys.executable, "-m", "tests.benchmark.ours", json.dumps(job)], answers=True)


class OurPlaybooks(Contender):
    """What a user types."""

    name = "papermerge.backup, playbooks"
    key = "playbooks"
    parts = frozenset({FULL, RESTORE, PLAYBOOK})

    def prepare(self) -> None:
        self._playbooks = Playbooks(self.place / "home")

    def create(self) -> Command:
        return self._playbook("create", self.site.source_settings())

    def restore(self) -> Command:
        return self._playbook("restore", self.site.target_settings())

    def _playbook(self, name: str | Path, settings: dict[str, str], **more: str) -> Command:
        variables: dict[str, Any] = {OUTSIDE + key: value for key, value in settings.items()}
        inventory = {INSTANCE: {**self.site.inventory(), **variables, **more}}
        words = self._playbooks.command(name, inventory)
        return Command(words, self._playbooks.environment(), self._playbooks.home)

    def empty_play(self, tasks: int) -> Command:
        """Return a playbook of so many tasks that do nothing, one of them on the host, as ours has one there."""
        here: dict[str, Any] = {"ansible.builtin.debug": {"verbosity": 1}}
        there: dict[str, Any] = {"ansible.builtin.ping": {}}
        play = {"hosts": "papermerge", "gather_facts": False, "tasks": [*[here] * (tasks - 1), there]}
        path = self._playbooks.home / "empty.yml"
        path.write_text(json.dumps([play]), encoding="utf-8")
        # Looking for one would be more work than an empty task is.
        python = sys.executable if not isinstance(self.site, OverSsh) else "/usr/bin/python3"
        return self._playbook(path, {}, ansible_python_interpreter=python)


def emptied(place: Path) -> Path:
    """Return a directory that exists and is empty."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    return place
