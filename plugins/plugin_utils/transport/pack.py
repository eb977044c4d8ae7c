# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent as one text: sources of module_utils, a loader for them, and the command line that starts it."""

from __future__ import annotations

import shlex
import zlib
from functools import cache
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.agent.manners import Manners

PACKAGE = "ansible_collections.papermerge.backup.plugins.module_utils"
#: The agent's first line on standard output. What comes before it is a login shell's chatter.
GREETING = b"papermerge.backup agent 1\n"
NO_PYTHON = "papermerge.backup: no Python 3.8 or later on this host"
#: Where Python may be called what. A name that exists but does not run, such as a version manager's shim, is skipped.
INTERPRETERS = (
    "python3",
    "/usr/bin/python3",
    "/usr/libexec/platform-python",
    "/usr/local/bin/python3",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python3.9",
    "python3.8",
)

_BOOTSTRAP = (
    "import os,sys,zlib;"
    f"sys.version_info<(3,8) and sys.exit({NO_PYTHON!r});"
    f"os.write(1,{GREETING!r});"
    "i=sys.stdin.buffer;"
    "exec(zlib.decompress(i.read(int(i.readline()))))"
)

_LOADER = """
import importlib.abc, importlib.util, sys

class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in _PACKAGES or name in _MODULES:
            return importlib.util.spec_from_loader(name, self, is_package=name in _PACKAGES)
        return None

    def exec_module(self, module):
        name = module.__name__
        exec(compile(_MODULES.get(name, ""), "<papermerge.backup agent>/" + name, "exec"), module.__dict__)

sys.meta_path.insert(0, _Loader())
"""


def _sources() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2] / "module_utils"
    found = {}
    for path in sorted(root.rglob("*.py")):
        names = path.relative_to(root).with_suffix("").parts
        if names[-1] != "__init__":
            found[".".join((PACKAGE, *names))] = path.read_text(encoding="utf-8")
    return found


@cache
def agent_pack(batch: bool, manners: Manners) -> bytes:
    """Return what the bootstrap reads first: the length of a compressed program in a line, and the program.

    ``batch``: the agent answers the requests in its input and ends with it (staging). It has its ``manners`` from the
    beginning.
    """
    modules = _sources()
    packages = {".".join(name.split(".")[:depth]) for name in modules for depth in range(1, name.count(".") + 1)}
    start = (
        f"from {PACKAGE}.agent.main import run\nfrom {PACKAGE}.agent.manners import Manners\n"
        f"run(i, {batch!r}, {manners!r})\n"
    )
    program = f"_MODULES = {modules!r}\n_PACKAGES = {packages!r}\n{_LOADER}\n{start}"
    packed = zlib.compress(program.encode("utf-8"), 9)
    return b"%d\n%b" % (len(packed), packed)


def agent_command(interpreter: str | None) -> str:
    """Return the command that starts the agent, for a POSIX shell.

    ``interpreter``: the user's ansible_python_interpreter; None searches the usual names.
    """
    arguments = f"-I -B -c {shlex.quote(_BOOTSTRAP)}"
    if interpreter is not None:
        return f"exec {interpreter} {arguments}"
    probe = shlex.quote("import sys;sys.exit(sys.version_info<(3,8))")
    return (
        'for p in {names}; do "$p" -c {probe} </dev/null >/dev/null 2>&1 && exec "$p" {arguments}; done; '
        "echo {complaint} >&2; exit 127"
    ).format(names=" ".join(INTERPRETERS), probe=probe, arguments=arguments, complaint=shlex.quote(NO_PYTHON))
