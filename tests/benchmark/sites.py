# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the instance lies that is backed up: on this machine, or on a host that is reached over ssh."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import (
    MEMORY_FILE_SYSTEMS,
    file_system_type,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.ssh import (
    SshOptions,
    prefer_quick_cipher,
    ssh_command,
)
from tests.benchmark.measure import Elsewhere
from tests.support.hosts.host import Host
from tests.support.instances import VERSION

#: A copy of the database must not lie in memory.
COPY_DIRECTORY = "/var/tmp"


class Site(Elsewhere, ABC):
    """``source`` holds ``media`` and ``db``; ``target`` is where a restore goes, absent before and after."""

    name: str
    key: str
    is_here = False
    source: str
    target: str

    @abstractmethod
    def outside(self, path: str) -> Path:
        """Return the name that a path of the site has on this machine."""

    @abstractmethod
    def own(self) -> None:
        """Give what is below the source to Papermerge's user."""

    @abstractmethod
    def at(self, command: str) -> str:
        """Return a shell command of this machine that runs a shell command there, as root."""

    @abstractmethod
    def agent(self) -> list[str]:
        """Return the arguments of the process at whose other end an agent starts."""

    @abstractmethod
    def inventory(self) -> dict[str, Any]:
        """Return the variables with which Ansible gets there."""

    @abstractmethod
    def file_system(self) -> str:
        """Return the type of the file system that holds source and target."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what a restore has left."""

    def source_settings(self) -> dict[str, str]:
        """Return what a create has to be told of the instance."""
        settings = _settings(self.source)
        if self.file_system() in MEMORY_FILE_SYSTEMS:
            settings["copy_dir"] = COPY_DIRECTORY
        return settings

    def target_settings(self) -> dict[str, str]:
        """Return what a restore has to be told of its target."""
        return _settings(self.target)


def _settings(root: str) -> dict[str, str]:
    return {
        "media_root": f"{root}/media",
        "database_url": f"sqlite:///{root}/db/db.sqlite3",
        "app_version": VERSION,
    }


class Local(Site):
    name = key = "local"
    is_here = True

    def __init__(self, work: Path) -> None:
        self.source = str(work / "instance")
        self.target = str(work / "restored")

    def outside(self, path: str) -> Path:
        return Path(path)

    def own(self) -> None:
        return

    def at(self, command: str) -> str:
        return f"{{ {command}; }}"

    def agent(self) -> list[str]:
        return ["/bin/sh", "-c", agent_command(None)]

    def inventory(self) -> dict[str, Any]:
        return {"ansible_connection": "local"}

    def file_system(self) -> str:
        return file_system_type(self.source)

    def clear(self) -> None:
        if Path(self.target).exists():
            shutil.rmtree(self.target)
        # What one run has written must not be brought to disk in the time of the next.
        subprocess.run(["sync", "--file-system", Path(self.target).parent], check=True)


class OverSsh(Site):
    """A test host: user admin, who becomes root with sudo. ``directory`` (here: ``place``) holds everything."""

    name = "over ssh"
    key = "ssh"

    def __init__(self, host: Host, directory: str, place: Path) -> None:
        self._host = host
        self._place = place
        self._directory = directory
        self.source = f"{directory}/instance"
        self.target = f"{directory}/restored"

    def outside(self, path: str) -> Path:
        return self._place / Path(path).relative_to(self._directory)

    def own(self) -> None:
        # What it owns already must not change: a new ctime would make every file look touched.
        self._host.run(["chown", "-R", "--from=root", "papermerge:", self.source], timeout=600)

    def cpu_seconds(self) -> float:
        lines = (self._host.group.path / "cpu.stat").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("usage_usec")) / 1e6

    def moved_bytes(self) -> int | None:
        return self._host.moved_bytes()

    def login(self) -> tuple[list[str], str]:
        """Return the ssh command line up to its options, and whom and where to log in."""
        *words, where = self._host.ssh_command("admin")
        return words, where

    def at(self, command: str) -> str:
        become = f"sudo -H -n /bin/sh -c {shlex.quote(command)}"
        return shlex.join([*self._host.ssh_command("admin"), become])

    def agent(self) -> list[str]:
        given = self._host.inventory("admin")
        options = SshOptions(
            host=self._host.address,
            user="admin",
            private_key_file=str(self._host.private_key),
            common_args=given["ansible_ssh_common_args"],
        )
        become = f"sudo -H -n /bin/sh -c {shlex.quote(agent_command(None))}"
        return prefer_quick_cipher(ssh_command(options, become))

    def inventory(self) -> dict[str, Any]:
        return self._host.inventory("admin", ansible_become=True)

    def file_system(self) -> str:
        found = self._host.run(["findmnt", "--noheadings", "--output", "FSTYPE", "--target", self._directory])
        return found.stdout.split()[-1]

    def clear(self) -> None:
        self._host.run(["rm", "-rf", "--", self.target], timeout=600)
        self._host.run(["sync", "--file-system", self._directory], timeout=600)
