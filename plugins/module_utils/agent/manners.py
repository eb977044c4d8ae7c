# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the agent steps back for what else runs on its host."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

from ..errors import SettingError, describe_os_error
from ..programs import find_program

NICEST = 19
NO_CLASS, BEST_EFFORT, IDLE = "none", "best-effort", "idle"
#: As the kernel numbers them (ioprio_set).
_CLASSES = {BEST_EFFORT: 2, IDLE: 3}
LOWEST_LEVEL = 7


class Manners(NamedTuple):
    """``nice``: 0 to 19. ``io_class``: NO_CLASS leaves it as it is. ``io_level`` of BEST_EFFORT: 0 to 7 (last)."""

    nice: int = 0
    io_class: str = NO_CLASS
    io_level: int = LOWEST_LEVEL


def adopt(manners: Manners) -> None:
    """Let this process and all that it starts from now on behave so. To be called before there is a second thread:
    Linux keeps both for each thread, and threads and processes inherit them from the one that starts them.

    Raises SettingError when the host refuses.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) < manners.nice:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, manners.nice)
        except OSError as error:
            raise SettingError(
                "the host refuses niceness {0} (papermerge_backup_nice): {1}".format(
                    manners.nice, describe_os_error(error)
                )
            ) from None
    if manners.io_class != NO_CLASS:
        _set_io_class(manners)


def _set_io_class(manners: Manners) -> None:
    wanted = "I/O class {0} (papermerge_backup_io_class)".format(manners.io_class)
    program = find_program("ionice")
    if program is None:
        raise SettingError(
            "{0} needs the ionice program on the host, and there is none; install util-linux there, or set none".format(
                wanted
            )
        )
    level = ["-n", str(manners.io_level)] if manners.io_class == BEST_EFFORT else []
    argv = [program, "-c", str(_CLASSES[manners.io_class])] + level + ["-p", str(os.getpid())]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"LC_ALL": "C"},
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise SettingError("the host refuses {0}: {1}; set none to do without".format(wanted, said[:500]))
