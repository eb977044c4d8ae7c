# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reader has to know of the machine and the programs before comparing two results."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.hosts.host import Host

CHECKOUT = Path(__file__).resolve().parents[2]


def machine_facts() -> dict[str, Any]:
    """Return what the machine is, and how busy."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }


def available_memory() -> int:
    """Return how many bytes can be had without swapping."""
    line = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


def versions(more: Sequence[str]) -> dict[str, str]:
    """Return the versions of what runs on this machine, and of the tools (restic, borg) in ``more``."""
    programs = {name: [name, "--version"] for name in ("tar", "zstd", "rsync")}
    programs.update(ssh=["ssh", "-V"], openssl=["openssl", "version"])
    tools = {"restic": ["restic", "version"], "borg": ["borg", "--version"]}
    programs.update({name: tools[name] for name in more})
    found = {
        name: _number(subprocess.run(words, capture_output=True, text=True, check=False))
        for name, words in programs.items()
    }
    found["python"] = platform.python_version()
    found["ansible-core"] = version("ansible-core")
    found["zstandard"] = version("zstandard")
    return found


def host_versions(host: Host) -> dict[str, str]:
    """Return the versions of what runs on a test host."""
    programs = {name: [name, "--version"] for name in ("tar", "zstd", "rsync", "python3")}
    return {f"{name} of the host": _number(host.run(words)) for name, words in programs.items()}


def _number(answer: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"\d+\.[\w.]+", answer.stdout + answer.stderr)
    return found[0] if found else "?"


def commit() -> str:
    """Return the commit that is measured, with -dirty when files differ from it."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
