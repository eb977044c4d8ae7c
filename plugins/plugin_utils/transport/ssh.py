# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of an ssh client of our own, built from the options of Ansible's ssh connection.

A connection of our own, because Ansible's defaults compress (zstd data does not shrink again), share a control socket,
and do not notice a dead peer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: For -o the first value wins, so these stand before the user's own arguments.
OWN_OPTIONS = (
    "ControlMaster=no",
    "ControlPath=none",
    "Compression=no",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "RequestTTY=no",
)
#: Compression, a shared socket, a terminal (which would change the bytes that pass through it).
_OVERRULING = str.maketrans("", "", "CMt")
#: What ssh offers first by itself, and what is quicker where a processor knows AES.
USUAL_CIPHER, QUICK_CIPHER = "chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com"
#: Asking ssh for its settings asks nobody else, unless a user's configuration does.
ASK_SECONDS = 10.0
#: Flags of ssh without an argument; only among these may -C hide in a cluster such as -Cq.
PLAIN_FLAGS = frozenset("46AaCfGgKkMNnqsTtVvXxYy")


@dataclass(frozen=True)
class SshOptions:
    """What the user has told Ansible's ssh connection; the arguments are shell words as there."""

    host: str
    port: int | None = None
    user: str | None = None
    private_key_file: str | None = None
    executable: str = "ssh"
    ssh_args: str = ""
    common_args: str = ""
    extra_args: str = ""
    host_key_checking: bool = True
    timeout: int = 10
    password: str | None = None


def user_arguments(text: str) -> list[str]:
    """Split a user's ssh arguments and take out what wins over OWN_OPTIONS wherever it stands: -C, -M, -t and -S."""
    kept = []
    words = iter(shlex.split(text))
    for word in words:
        if word.startswith("-S"):
            if word == "-S":
                next(words, None)
        elif not word.startswith("-") or not set(word[1:]) <= PLAIN_FLAGS:
            kept.append(word)
            if word.startswith("-") and len(word) == 2:
                kept += list(itertools.islice(words, 1))
        elif word.translate(_OVERRULING) != "-":
            kept.append(word.translate(_OVERRULING))
    return kept


def ssh_command(options: SshOptions, remote_command: str) -> list[str]:
    """Return the argument list of an ssh client that runs a command. Passwords are never in it."""
    argv = [options.executable]
    for setting in OWN_OPTIONS:
        argv += ["-o", setting]
    argv += ["-o", f"ConnectTimeout={options.timeout}"]
    if options.password is None:
        argv += ["-o", "BatchMode=yes"]
    else:
        argv += ["-o", "NumberOfPasswordPrompts=1"]
    if not options.host_key_checking:
        argv += ["-o", "StrictHostKeyChecking=no"]
    if options.port is not None:
        argv += ["-o", f"Port={options.port}"]
    if options.private_key_file:
        argv += ["-o", f'IdentityFile="{os.path.expanduser(options.private_key_file)}"']
    if options.user:
        argv += ["-o", f'User="{options.user}"']
    for arguments in (options.ssh_args, options.common_args, options.extra_args):
        argv += user_arguments(arguments)
    # The login shell may be anything; what it is given is one word that a POSIX shell gets to read.
    return [*argv, "--", options.host, f"/bin/sh -c {shlex.quote(remote_command)}"]


def prefer_quick_cipher(argv: list[str]) -> list[str]:
    """Return the command of :func:`ssh_command` with the ciphers that it would offer, the quickest one first.

    A processor with instructions for AES needs two thirds of the time for it that ssh's first choice takes. Which
    ciphers are offered, and what somebody has put first, stays as it is.
    """
    end = argv.index("--")
    try:
        if b" aes " not in Path("/proc/cpuinfo").read_bytes():
            return argv
        words = [argv[0], "-G", *argv[1:]]
        said = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return argv
    lines = said.stdout.decode("utf-8", "replace").splitlines()
    offered = next((line.split()[1].split(",") for line in lines if line.startswith("ciphers ")), [""])
    if said.returncode != 0 or offered[0] != USUAL_CIPHER or QUICK_CIPHER not in offered:
        return argv
    offered.remove(QUICK_CIPHER)
    return [*argv[:end], "-o", "Ciphers=" + ",".join([QUICK_CIPHER, *offered]), *argv[end:]]


@contextlib.contextmanager
def askpass_environment(password: str | None) -> Iterator[dict[str, str] | None]:
    """Yield the environment of an ssh client that asks a program of ours for the password.

    The password goes through a FIFO in a private directory, never through an argument, the environment or a file.
    """
    if password is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="papermerge-backup-") as directory:
        fifo, program = os.path.join(directory, "password"), os.path.join(directory, "askpass")
        os.mkfifo(fifo, 0o600)
        with open(program, "w", encoding="utf-8", opener=_executable) as stream:
            stream.write(f"#!/bin/sh\nexec cat {shlex.quote(fifo)}\n")
        text = password
        threading.Thread(target=lambda: _feed(fifo, text), daemon=True).start()
        try:
            yield {**os.environ, "SSH_ASKPASS": program, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":"}
        finally:
            # Lets a feeder go that nobody has read from.
            with contextlib.suppress(OSError):
                os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))


def _executable(path: str, flags: int) -> int:
    return os.open(path, flags, stat.S_IRWXU)


def _feed(fifo: str, password: str) -> None:
    with contextlib.suppress(OSError), open(fifo, "w", encoding="utf-8") as stream:
        stream.write(password + "\n")


def options_from(get_option: Callable[[str], object]) -> SshOptions:
    """Read the options of an ssh connection plugin."""

    def text(name: str) -> str | None:
        value = get_option(name)
        return None if value is None else str(value)

    port = get_option("port")
    return SshOptions(
        host=text("host") or "",
        port=int(str(port)) if port else None,
        user=text("remote_user"),
        private_key_file=text("private_key_file"),
        executable=text("ssh_executable") or "ssh",
        ssh_args=text("ssh_args") or "",
        common_args=text("ssh_common_args") or "",
        extra_args=text("ssh_extra_args") or "",
        host_key_checking=bool(get_option("host_key_checking")),
        timeout=int(str(get_option("timeout") or 10)),
        password=text("password"),
    )
