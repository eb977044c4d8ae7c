# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Podman in a file system and namespaces of its own: no registry, no network but its own loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.containers import COLLECTION, FIND, MissingEngine
from tests.support.hosts.base import SUITE, apt_options, debian_sources
from tests.support.hosts.commands import BenchError, execute, require
from tests.support.servers.process import cached_template

#: What plain `podman` needs to know where there are no control groups to be had and no overlay on an overlay.
CONFIGURATION = {
    "etc/containers/containers.conf": '[containers]\ncgroups = "disabled"\n'
    '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n',
    "etc/containers/storage.conf": '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\n'
    'graphroot = "/var/lib/containers/storage"\n',
}
#: Everything that is mounted goes with the namespace.
INSIDE = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t sysfs sys "$1/sys"
mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
for place in run tmp var/tmp var/lib/cni var/lib/containers etc/cni/net.d; do
    mkdir -p "$1/$place"
    mount -t tmpfs tmpfs "$1/$place"
done
mkdir -p "$1/tmp/collection/ansible_collections/papermerge/backup/plugins/module_utils"
mount --bind -o ro "$2" "$1/tmp/collection/ansible_collections/papermerge/backup/plugins/module_utils"
ip link set lo up
exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root /bin/bash -s
"""
#: An image that can do nothing but wait, under the names of others.
IMAGES = """
set -e
mkdir -p /tmp/image/bin
cp /bin/sleep /tmp/image/bin
for library in $(ldd /bin/sleep | grep -o '/lib[^ ]*'); do
    mkdir -p "/tmp/image$(dirname "$library")"
    cp -L "$library" "/tmp/image$library"
done
tar -C /tmp/image -c . | podman import --quiet - docker.io/papermerge/papermerge:3.5.3 >/dev/null
podman tag docker.io/papermerge/papermerge:3.5.3 docker.io/library/postgres:15
"""


def in_podman(script: str) -> list[dict[str, Any]]:
    """Run a script of bash with `podman` and those images; returns what each `find` in it found.

    `find` looks for a Papermerge in containers and writes a line. Raises BenchError with what the script said, and
    MissingEngine where this machine cannot have the engine.
    """
    try:
        require("mmdebstrap", "unshare", "chroot", "ip")
        root = cached_template(f"podman-{SUITE}-1", _build) / "root"
    except BenchError as error:
        raise MissingEngine(str(error)) from error
    look = FIND.format(place="/tmp/collection", request={})
    tool = f"find() {{ python3 - <<'END'\n{look}\nEND\n}}\n"
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--cgroup", "bash", "-c", INSIDE, "bash"]
    completed = execute([*words, root, COLLECTION / "plugins/module_utils"], input=IMAGES + tool + script, timeout=120)
    return [json.loads(line) for line in completed.stdout.splitlines() if line.startswith("{")]


def _build(directory: Path) -> None:
    options = [f"--aptopt={line}" for line in apt_options()]
    packages = "--include=podman,crun,conmon,containernetworking-plugins,python3"
    words = ["mmdebstrap", "--mode=auto", "--variant=minbase", packages, "--dpkgopt=force-unsafe-io", *options]
    execute([*words, SUITE, directory / "root", *debian_sources()], timeout=900)
    for path, text in CONFIGURATION.items():
        (directory / "root" / path).write_text(text, encoding="ascii")
