# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories, locks and mounts of the test hosts, and how they are removed without harm to anything else."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from tests.support.hosts.commands import BenchError, execute


def claim_directory(directory: Path) -> int | None:
    """Make the directory (0700) if need be and lock it; return the descriptor that holds the lock, None if it is taken.

    The lock ends with the descriptor or with the process, so a directory that can be claimed belongs to nobody alive.
    """
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        # Its owner removed it between the open and the lock.
        os.close(descriptor)


def mounts_under(directory: Path) -> list[Path]:
    """Return the mount points at and below the directory, the last mounted first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        escaped = line.split(" ")[4]
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        if point.is_relative_to(directory):
            found.append(point)
    return found[::-1]


def unmount_under(directory: Path) -> None:
    """Unmount everything at and below the directory; what is in use goes out of sight now and for good after its use.

    Raises BenchError.
    """
    for point in mounts_under(directory):
        if execute(["umount", point], check=False).returncode != 0:
            execute(["umount", "--lazy", point])


def remove_tree(directory: Path) -> None:
    """Remove the directory and all in it, never what is mounted there.

    Raises BenchError when something is still mounted at or below it.
    """
    mounted = mounts_under(directory)
    if mounted:
        raise BenchError(f"{directory} is not removed: {mounted[0]} is still mounted; unmount it first")
    execute(["rm", "-rf", "--one-file-system", "--", directory], timeout=600)


def mount_overlay(lower: Path, layers: Path, root: Path) -> None:
    """Mount at root an overlay of lower whose changes go to layers/upper. Raises BenchError when that fails."""
    upper, work = layers / "upper", layers / "work"
    upper.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    upper.chmod(0o755)  # becomes the mode of the host's own "/"
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    execute(["mount", "-t", "overlay", "overlay", "-o", options, root])


def provide_layers(directory: Path, lower: Path) -> None:
    """Make a directory that can hold the changes of overlays; where its file system cannot, mount a tmpfs there.

    Raises BenchError when not even a tmpfs can.
    """
    directory.mkdir()
    try:
        _try_overlay(lower, directory)
    except BenchError:
        execute(["mount", "-t", "tmpfs", "-o", "mode=0700,size=75%", "tmpfs", directory])
        _try_overlay(lower, directory)


def _try_overlay(lower: Path, directory: Path) -> None:
    trial = directory / ".trial"
    root = trial / "root"
    root.mkdir(parents=True)
    try:
        mount_overlay(lower, trial, root)
        execute(["umount", root])
    finally:
        remove_tree(trial)
