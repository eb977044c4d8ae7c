# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a directory of the controller is lost with the container that the controller runs in.

An execution environment is a container that is removed after the run: what was written into its own layer, such as its
home directory, is gone, although the run has succeeded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.errors import RepositoryError

#: Files that engines put into containers. A virtual machine that was made of an image may have them as well, so they
#: count only where the root is not a file system of its own.
MARKER_FILES = ("/run/.containerenv", "/.dockerenv")
#: What PID 1 is told by managers of containers that hold a whole system and stay.
SYSTEM_CONTAINERS = ("systemd-nspawn", "lxc", "lxc-libvirt", "wsl", "proot", "pouch")
#: Parts of the paths where engines keep the layers of containers, and of the names of their control groups.
ENGINES = re.compile(
    r"/(docker|containerd|containers/storage|crio|kubelet|buildkit|podman)\b|\b(kubepods|libpod-|crio-|docker-)"
)
MEMORY = ("tmpfs", "ramfs")
EMPTY_DIR = "kubernetes.io~empty-dir"
#: A volume without a name of its own is removed with its container (docker run --rm).
ANONYMOUS_VOLUME = re.compile(r"/volumes/[0-9a-f]{64}/_data(/|\Z)")


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo, see proc(5)."""

    root: str
    """The directory of the file system that is mounted."""
    point: str
    kind: str
    source: str
    options: str


@dataclass(frozen=True)
class Surroundings:
    """What a process can see of where it runs."""

    mounts: list[Mount]
    markers: list[str] = field(default_factory=list)
    """Those of MARKER_FILES that exist."""
    manager: str = ""
    """The container's manager, as systemd, PID 1 or the image names it."""
    control_groups: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def found(cls) -> Surroundings:
        """Look around. What cannot be read says nothing."""
        return cls(
            mounts=read_mounts(_text("/proc/self/mountinfo").splitlines()),
            markers=[path for path in MARKER_FILES if os.path.exists(path)],
            manager=_text("/run/systemd/container").strip()
            or _variable("container", _text("/proc/1/environ"))
            or dict(os.environ).get("container", ""),
            control_groups=_text("/proc/1/cgroup"),
            environment=os.environ,
        )

    def container(self) -> str:
        """Return by what sign this is a container that does not outlive its run; empty when it is none."""
        if self.manager in SYSTEM_CONTAINERS:
            return ""
        root = self.mount_of("/")
        # A disk, or a file system on one, and all of it: whatever else is found here, this system was booted.
        if root is None or (root.source.startswith("/dev/") and root.root == "/"):
            return ""
        if self.markers:
            return self.markers[0]
        if self.manager:
            return f"container={self.manager}"
        if "KUBERNETES_SERVICE_HOST" in self.environment:
            return "KUBERNETES_SERVICE_HOST"
        if ENGINES.search(f"{root.root} {root.options}"):
            return f"its root is {root.kind} of a container engine"
        return "its control group" if ENGINES.search(self.control_groups) else ""

    def mount_of(self, path: str) -> Mount | None:
        """Return what is mounted where a resolved path lies."""
        found: Mount | None = None
        for mount in self.mounts:
            within = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
            # Of two mounts on one point the later one hides the other.
            if within and (found is None or len(mount.point) >= len(found.point)):
                found = mount
        return found

    def loss(self, path: str) -> str:
        """Return why what is written to a directory is lost with this container; empty when it stays.

        The directory need not exist yet.
        """
        sign = self.container()
        if not sign:
            return ""
        mount = self.mount_of(os.path.realpath(path))
        reason = ""
        if mount is None or mount.point == "/":
            reason = "it lies in the container's own layer"
        elif mount.kind in MEMORY:
            reason = f"{mount.point} is in memory ({mount.kind})"
        elif EMPTY_DIR in mount.root:
            reason = f"{mount.point} is an emptyDir, which goes with its pod"
        elif ANONYMOUS_VOLUME.search(mount.root):
            reason = f"{mount.point} is a volume without a name, which goes with its container"
        elif "AWX_PRIVATE_DATA_DIR" in self.environment and mount.point.startswith("/runner"):
            reason = f"{mount.point} is the directory of one job of AWX"
        return f"{reason} (a container by {sign})" if reason else ""


def require_lasting(path: Path, surroundings: Surroundings | None = None) -> None:
    """Raise RepositoryError if a repository is lost with the container that this process runs in."""
    loss = (surroundings or Surroundings.found()).loss(str(path))
    if loss:
        raise RepositoryError(
            f"repository {path} would be lost when this container ends: {loss}; mount a directory of the machine into "
            "the container and set papermerge_backup_repository to it, or set papermerge_backup_accept_ephemeral if "
            "what is written there is kept by other means"
        )


def read_mounts(lines: Iterable[str]) -> list[Mount]:
    """Read the lines of mountinfo."""
    found = []
    for line in lines:
        left, dash, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if dash and len(fields) >= 6 and len(rest) >= 3:
            found.append(Mount(_plain(fields[3]), _plain(fields[4]), rest[0], _plain(rest[1]), rest[2]))
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _variable(name: str, environment: str) -> str:
    prefix = f"{name}="
    return next((entry[len(prefix) :] for entry in environment.split("\0") if entry.startswith(prefix)), "")
