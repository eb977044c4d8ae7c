# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Papermerge 2.0.2 from PyPI in a virtual environment that is made once and then reused."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PAPERMERGE_VERSION = "2.0.2"
PYTHON_VERSION = "3.11"

_HERE = Path(__file__).resolve().parent
_BUILD_REQUIREMENTS = _HERE / "build-requirements.txt"
_REQUIREMENTS = _HERE / "requirements.txt"

# What Papermerge itself runs, and the Debian package that holds it.
_PROGRAMS = {"pdftoppm": "poppler-utils", "pdfinfo": "poppler-utils", "file": "file"}


class InstallError(Exception):
    """Papermerge could not be installed; the message names the command that failed or the program that is missing."""


@dataclasses.dataclass(frozen=True)
class Installation:
    """One virtual environment with Papermerge in it.

    ``environment`` is the directory of the virtual environment, ``version`` the release of Papermerge, and
    ``cache`` a directory beside the environment for what can be made from it and used again.
    """

    environment: Path
    version: str
    cache: Path

    @property
    def python(self) -> Path:
        """The interpreter that can import ``papermerge``."""
        return self.environment / "bin" / "python"


def installed_papermerge() -> Installation:
    """Return Papermerge, installing it first if this machine does not have it yet.

    It lives in ``${XDG_CACHE_HOME:-~/.cache}/papermerge-backup``. A second process that asks at the same time waits for
    the first. An environment appears under its final name only when it is complete.

    Raises InstallError when a program or a fitting Python is missing, or when a pip command fails.
    """
    _require_programs()
    python = _base_python()
    cache = _cache_root() / f"papermerge-{PAPERMERGE_VERSION}-{_recipe_hash(python)}"
    environment = cache / "venv"
    if not environment.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive(cache / "lock"):
            if not environment.is_dir():
                _build(environment, python)
    return Installation(environment, PAPERMERGE_VERSION, cache)


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the file ``lock``, waiting for any other process that holds it."""
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "papermerge-backup"


def _recipe_hash(python: str) -> str:
    recipe = hashlib.sha256(f"{PYTHON_VERSION} {python}".encode())
    for path in (_BUILD_REQUIREMENTS, _REQUIREMENTS):
        recipe.update(path.read_bytes())
    return recipe.hexdigest()[:16]


def _require_programs() -> None:
    missing = sorted(
        {f"{program} (Debian: {package})" for program, package in _PROGRAMS.items() if not shutil.which(program)}
    )
    if missing:
        raise InstallError(f"Papermerge needs programs that are not on PATH: {', '.join(missing)}")


def _build(environment: Path, python: str) -> None:
    """Build in a directory of its own and rename it; a failed or killed build never has the final name."""
    started = time.monotonic()
    _say(f"installing Papermerge {PAPERMERGE_VERSION} into {environment} (once, some 20 seconds)")
    for leftover in environment.parent.glob("building-*"):
        shutil.rmtree(leftover)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=environment.parent))
    try:
        unfinished = building / "venv"
        _run([python, "-m", "venv", str(unfinished)], "is the Debian package python3-venv installed?")
        pip = [str(unfinished / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
        pip += ["--disable-pip-version-check", "--progress-bar", "off"]
        _say("the packages that build packages")
        _run([*pip, "--requirement", str(_BUILD_REQUIREMENTS)])
        _say("Papermerge and what it needs")
        _run([*pip, "--no-build-isolation", "--requirement", str(_REQUIREMENTS)])
        _run([str(unfinished / "bin" / "python"), "-c", "import magic"], "libmagic is missing (Debian: libmagic1)")
        _move_scripts(unfinished / "bin", str(unfinished), str(environment))
        unfinished.rename(environment)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _say(f"Papermerge {PAPERMERGE_VERSION} is installed ({time.monotonic() - started:.0f} s)")


def _base_python() -> str:
    """The path of a Python 3.11 that is not itself a virtual environment.

    Raises InstallError when there is none.
    """
    question = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys._base_executable)"
    for candidate in (sys.executable, f"python{PYTHON_VERSION}", "python3"):
        try:
            answer = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        version, executable = answer.stdout.splitlines()
        if version == PYTHON_VERSION:
            return executable
    raise InstallError(
        f"Papermerge {PAPERMERGE_VERSION} needs Python {PYTHON_VERSION}; python{PYTHON_VERSION} is not on PATH"
    )


def _move_scripts(scripts: Path, old: str, new: str) -> None:
    """Let the scripts of a virtual environment that is about to be renamed name their new interpreter."""
    for script in scripts.iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        if old.encode() in content:
            script.write_bytes(content.replace(old.encode(), new.encode()))


def _run(command: list[str], hint: str = "") -> None:
    finished = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        output = "\n".join(finished.stdout.strip().splitlines()[-20:])
        raise InstallError(f"exit code {finished.returncode} from: {' '.join(command)}\n{output}\n{hint}".strip())


def _say(message: str) -> None:
    print(f"papermerge: {message}", file=sys.stderr, flush=True)
