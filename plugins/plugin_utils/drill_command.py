# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command of an instance's own that a drill runs: its status, and the end of what it said."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping

from ansible_collections.papermerge.backup.plugins.plugin_utils.scratch_server import dies_with_us

#: Seconds after which a command is ended, as it would not by itself.
COMMAND_SECONDS = 3600.0
WORDS = 2000
#: The status of a command that was ended for its time, as of the program timeout.
TIMED_OUT = 124


def run_command(
    command: str, environment: Mapping[str, str], watch_group: Callable[[int | None], object]
) -> tuple[int, str]:
    """Run a command by the shell. Returns its status, negative for a signal, and the end of its output.

    ``watch_group`` is told its group of processes, and None when that has ended.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], env=dict(environment), preexec_fn=dies_with_us(), stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        watch_group(process.pid)
        try:
            status = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            status = TIMED_OUT
        finally:
            # Also what it has started and left behind: it would hold on to what is removed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            watch_group(None)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - WORDS))
        return status, output.read().decode("utf-8", "replace").strip()
