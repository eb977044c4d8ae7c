# SPDX-License-Identifier: GPL-3.0-or-later
"""A bench of test hosts on one network, which leaves nothing behind."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.hosts.base import base_image
from tests.support.hosts.commands import BenchError, execute, require
from tests.support.hosts.control_group import ControlGroup
from tests.support.hosts.host import Host, ssh_control_exit
from tests.support.hosts.network import Network, free_network, remove_leftovers
from tests.support.hosts.storage import claim_directory, provide_layers, remove_tree, unmount_under

# One place for all users of the machine, because the names of links, namespaces and groups are shared by all of it.
BENCHES = Path("/var/lib/papermerge-backup-benches")
MOST_BENCHES = 100
INOTIFY_INSTANCES = 8192
PROGRAMS = ("systemd-nspawn", "unshare", "nsenter", "ip", "tc", "ssh", "ssh-keygen", "mount", "mkfs.ext4", "losetup")


class HostBench:
    """A context manager whose hosts are gone at its end, whatever happened.

    Benches of several processes stand side by side: each has a number, whose directory is locked while the process
    lives. What a killed process left is removed when the next bench is made.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._claiming = threading.Lock()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Make the network. Raises BenchError when this is not root, a program is missing or a step fails."""
        require(*PROGRAMS)
        with self._cleanup:
            self._base = base_image()
            self._directory, number = self._claim()
            self._cleanup.callback(clear, self._directory, number)
            self._network = free_network(number)
            self._prepare()
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the hosts, the network and all files. Raises BenchError when something cannot be removed."""
        self._hosts.clear()
        self._cleanup.close()

    @property
    def network(self) -> Network:
        """The bench's network."""
        return self._network

    @property
    def directory(self) -> Path:
        """The bench's own directory, gone at its end."""
        return self._directory

    def start(self, name: str, *, containers: bool = False, binds: Mapping[Path, str] | None = None) -> Host:
        """Start a host and return it when its sshd answers.

        The name is also its host name: small letters, digits and hyphens. With containers it may run a container
        engine (not started). ``binds``: directories of this machine, and where the host finds them. Raises BenchError;
        then nothing of the host is left.
        """
        host = self._add(name, containers, binds or {})
        try:
            host.install(self._base)
            host.boot()
        except BaseException:
            self.remove(host)
            raise
        return host

    def start_many(self, names: Iterable[str]) -> list[Host]:
        """Start hosts at the same time and return them in the order of their names.

        Raises the first BenchError after all have started or failed; those that have started stay.
        """
        wanted = list(names)
        with ThreadPoolExecutor(max_workers=min(8, len(wanted) or 1)) as pool:
            started = [pool.submit(self.start, name) for name in wanted]
        return [host.result() for host in started]

    def remove(self, host: Host) -> None:
        """End the host and remove all of it. Raises BenchError when something cannot be removed."""
        host.destroy()
        with self._claiming:
            self._hosts.pop(host.name, None)

    def _claim(self) -> tuple[Path, int]:
        mine: tuple[Path, int] | None = None
        for number in range(MOST_BENCHES):
            directory = BENCHES / str(number)
            if mine is not None and not directory.exists():
                continue
            descriptor = claim_directory(directory)
            if descriptor is None:
                continue
            clear(directory, number)
            if mine is None:
                # Cleared directories are gone, and with them their lock.
                os.close(descriptor)
                descriptor = claim_directory(directory)
                if descriptor is None:
                    continue
                self._cleanup.callback(os.close, descriptor)
                mine = directory, number
            else:
                os.close(descriptor)
        if mine is None:
            raise BenchError(f"all {MOST_BENCHES} benches in {BENCHES} are in use")
        return mine

    def _prepare(self) -> None:
        _raise_inotify_limit()
        group = self._directory / "groups"
        group.mkdir()
        execute(["mount", "-t", "cgroup2", "cgroup2", group])
        (self._directory / "hosts").mkdir()
        (self._directory / "sockets").mkdir()
        provide_layers(self._directory / "layers", self._base)
        execute(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", self._directory / "key"])
        self._network.create()

    def _add(self, name: str, containers: bool, binds: Mapping[Path, str]) -> Host:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise BenchError(f"{name!r} is no host name: a small letter, then small letters, digits and hyphens")
        with self._claiming:
            if name in self._hosts:
                raise BenchError(f"there is a host {name} already")
            used = {host.index for host in self._hosts.values()}
            index = next(number for number in range(1, 255) if number not in used)
            if index > 253:
                raise BenchError("a bench has room for 253 hosts")
            layers = self._directory / "layers" / name
            host = Host(
                name=name,
                index=index,
                network=self._network,
                directory=self._directory / "hosts" / name,
                layers=layers,
                group=ControlGroup(_groups(self._directory, self._network.number) / name),
                private_key=self._directory / "key",
                control_sockets=self._directory / "sockets",
                rights=[
                    *(container_rights(layers / "containers") if containers else ()),
                    *(f"--bind={place}:{path}" for place, path in binds.items()),
                ],
            )
            self._hosts[name] = host
        return host


def clear(directory: Path, number: int) -> None:
    """Remove everything that belongs to the bench of that number, the directory last.

    Only for who holds the directory's lock. Raises BenchError when something cannot be removed.
    """
    ssh_control_exit(directory / "sockets")
    groups = ControlGroup(_groups(directory, number))
    if groups.path.is_dir():
        for group in groups.path.iterdir():
            if group.is_dir():
                ControlGroup(group).kill()
        groups.remove()
    remove_leftovers(number)
    unmount_under(directory)
    remove_tree(directory)


def container_rights(storage: Path) -> list[str]:
    """Return the arguments of systemd-nspawn that let a host run containers whose files lie in a storage directory.

    What an engine needs beyond a usual host: networks of its own, the bpf call (it is how control groups of version 2
    restrict devices), and a place for overlays, which do not stack on the host's own overlay.
    """
    storage.mkdir(parents=True, exist_ok=True)
    return [
        "--capability=CAP_NET_ADMIN",
        "--system-call-filter=bpf keyctl add_key",
        f"--bind={storage}:/var/lib/docker",
    ]


def _groups(directory: Path, number: int) -> Path:
    return directory / "groups" / f"pmbench{number}"


def _raise_inotify_limit() -> None:
    """With Linux's default of 128 the 24th host does not come up; a higher limit stays, and harms nobody."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text(encoding="ascii")) < INOTIFY_INSTANCES:
        try:
            limit.write_text(str(INOTIFY_INSTANCES), encoding="ascii")
        except OSError as error:
            print(f"[test hosts] {limit} not raised, more than 20 hosts may not boot: {error}", file=sys.stderr)
