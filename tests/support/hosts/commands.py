# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the programs that the test hosts are made with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

Completed = subprocess.CompletedProcess[str]


class BenchError(RuntimeError):
    """The test hosts cannot do what was asked; the message says what was found and what to do."""


def require(*programs: str) -> None:
    """Raise BenchError unless this is root and every program is installed."""
    if os.geteuid() != 0:
        raise BenchError(f"test hosts need root (this is uid {os.geteuid()}): run the integration tests as root")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise BenchError(
            f"not installed: {', '.join(missing)}; run apt-get install --no-install-recommends "
            "mmdebstrap debian-archive-keyring systemd-container iproute2 openssh-client e2fsprogs"
        )


def execute(
    command: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    input: str | bytes | None = None,
    timeout: float = 60,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a program to its end and return its exit status and decoded output (surrogateescape for other bytes).

    The program gets a session of its own, and when the time is up the whole of it is killed, children included.
    Raises BenchError for an exit status other than 0 (unless check is false) and when the time is up.
    """
    arguments = [os.fspath(argument) for argument in command]
    data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=pass_fds,
    )
    try:
        output, errors = process.communicate(data, timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise BenchError(f"not finished after {timeout:g} s: {_shown(arguments)}") from None
        raise
    completed = Completed(
        arguments,
        process.returncode,
        output.decode("utf-8", "surrogateescape"),
        errors.decode("utf-8", "surrogateescape"),
    )
    if check and completed.returncode != 0:
        said = (completed.stderr.strip() or completed.stdout.strip())[-2000:]
        raise BenchError(f"exit status {completed.returncode} of {_shown(arguments)}: {said}")
    return completed


def _shown(arguments: Sequence[str]) -> str:
    line = " ".join(arguments)
    return line if len(line) <= 400 else line[:400] + " …"
