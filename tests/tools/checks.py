# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks behind ./dev lint and tests/lint: what each one runs, and what counts as its failure.

They look at a copy of the checkout, build/lint/ansible_collections/papermerge/backup: ansible-test refuses a link,
and a copy of what git knows keeps .venv and build/ out of every tool's sight.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / "build"
COPY_PARENT = BUILD / "lint"
COPY = COPY_PARENT / "ansible_collections" / "papermerge" / "backup"
VENV = CHECKOUT / ".venv"

WORKERS = 2
LIMIT_SECONDS = 540  # within the limit that pyproject.toml sets for a test

# Written by tools into the copy; refreshing the copy leaves them alone, they make the next run fast.
KEPT_IN_COPY = {".git", ".ansible", ".mypy_cache", ".ruff_cache", "tests/output"}


@dataclass(frozen=True)
class Step:
    """One command of a check."""

    command: Sequence[str]
    directory: Path = COPY
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    name: str
    passed: bool
    seconds: float
    output: str

    def line(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name:<12} {self.seconds:6.1f} s"


@dataclass(frozen=True)
class Check:
    """`complaints` finds in the output what the tool itself does not treat as a failure."""

    name: str
    steps: Callable[[], Sequence[Step]]
    complaints: Callable[[str], Sequence[str]] = lambda output: ()

    def run(self) -> Outcome:
        started = time.monotonic()
        output: list[str] = []
        passed = True
        try:
            for step in self.steps():
                output.append("$ " + " ".join(step.command) + "\n")
                status, text = _run(step)
                output.append(text)
                if status != 0:
                    output.append(
                        f"not done after {LIMIT_SECONDS} s\n" if status is None else f"exit status {status}\n"
                    )
                    passed = False
            for complaint in self.complaints("".join(output)):
                output.append(f"{complaint}\n")
                passed = False
        except (OSError, subprocess.SubprocessError, CheckError) as error:
            output.append(f"{error}\n")
            passed = False
        return Outcome(self.name, passed, time.monotonic() - started, "".join(output))


class CheckError(Exception):
    """A check could not be done; that is a failure of it."""


def _run(step: Step) -> tuple[int | None, str]:
    """Exit status, or None if it had to be ended, and output."""
    environment = {
        **os.environ,
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_COLLECTIONS_PATH": str(COPY_PARENT),
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        **step.environment,
    }
    environment.pop("PYTHONPATH", None)
    # Into a file: a pipe would be waited for as long as a grandchild of a killed tool holds it.
    with tempfile.TemporaryFile() as output:
        try:
            status: int | None = subprocess.run(
                step.command,
                cwd=step.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=LIMIT_SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            status = None
        output.seek(0)
        return status, output.read().decode("utf-8", "replace")


# The copy


def tracked_files() -> list[str]:
    """What a commit of everything in the checkout would hold."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        check=True,
    )
    names = {os.fsdecode(name) for name in listing.stdout.split(b"\0") if name}
    return sorted(name for name in names if os.path.lexists(CHECKOUT / name))


def refresh_copy() -> None:
    wanted = tracked_files()
    # The copy lies in a directory that the checkout's git ignores: taken for a part of the checkout, it has no files.
    subprocess.run(["git", "init", "--quiet", str(COPY)], check=True, stderr=subprocess.DEVNULL)
    _remove_all_but(set(wanted))
    for name in wanted:
        _copy_if_changed(CHECKOUT / name, COPY / name)


def _remove_all_but(wanted: set[str]) -> None:
    for directory, subdirectories, files in os.walk(COPY, topdown=False):
        here = Path(directory).relative_to(COPY)
        if any(part.as_posix() in KEPT_IN_COPY for part in [here, *here.parents]):
            continue
        for name in [*files, *subdirectories]:
            path = COPY / here / name
            relative = (here / name).as_posix()
            if path.is_symlink() or not path.is_dir():
                if relative not in wanted:
                    path.unlink()
            elif relative not in KEPT_IN_COPY and not any(path.iterdir()):
                path.rmdir()


def _copy_if_changed(source: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        new, old = source.lstat(), target.lstat()
        if (new.st_mode, new.st_size, new.st_mtime_ns) == (old.st_mode, old.st_size, old.st_mtime_ns):
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ansible-test


def _cache() -> Path:
    given = os.environ.get("PAPERMERGE_BACKUP_CACHE")
    return Path(given) if given else BUILD / "cache"


def _sanity_home() -> Path:
    """A home directory for ansible-test, in which it keeps an environment for each of its tests.

    ansible-test fills these environments with a pip that it downloads from a host of its own. The script put in the
    place of that download takes the pip that comes with Python, so that nothing but the package index is needed.
    """
    home = _cache() / "sanity"
    version = _ask_python(
        "import sys; from ansible_test import _internal; from ansible_test._internal import python_requirements; "
        "from ansible_test._internal.host_configs import NativePythonConfig; "
        "python = NativePythonConfig(version='%d.%d' % sys.version_info[:2], path=''); "
        "print(python_requirements.get_venv_packages(python)['pip'])"
    )
    script = home / ".ansible" / "test" / "cache" / f"get_pip_{version.strip().replace('.', '_')}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(GET_PIP, encoding="utf-8")
    # ansible-test hands on neither PIP_* nor the other variables that say where pip's configuration is.
    configuration = home / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.touch(mode=0o600)  # an index may have a password in its address
    configuration.write_text(_pip_configuration(_ask_python("-m", "pip", "config", "list")), encoding="utf-8")
    return home


GET_PIP = """\
# Stands in for get-pip.py: the pip that comes with this Python installs what is asked for.
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
options = [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install"] + options))
"""


def _ask_python(*arguments: str) -> str:
    """The output of this environment's Python for one statement, or for the arguments."""
    options = ["-c", *arguments] if len(arguments) == 1 else list(arguments)
    done = subprocess.run(
        [str(VENV / "bin" / "python"), *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CheckError(f"{' '.join(options)}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


def _pip_configuration(listing: str) -> str:
    """Write what `pip config list` shows as one configuration file; variables of the environment win, as in pip."""
    lines = [re.fullmatch(r"(\S+?)\.([\w-]+)=(.+)", line) for line in listing.splitlines()]
    settings = [(line[1], line[2], str(ast.literal_eval(line[3]))) for line in lines if line]
    sections: dict[str, dict[str, str]] = {"global": {"quiet": "1"}}
    for section, key, value in sorted(settings, key=lambda setting: setting[0] == ":env:"):
        sections.setdefault("global" if section == ":env:" else section, {})[key] = value
    text = ""
    for section, values in sections.items():
        text += f"[{section}]\n"
        text += "".join(f"{key} = {' '.join(value.split())}\n" for key, value in values.items())
    return text


def _sanity() -> list[Step]:
    if shutil.which("shellcheck") is None:
        # ansible-test would leave its shell test out without a word.
        raise CheckError("shellcheck is not installed")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["ansible-test", "sanity", "--color", "no", "--python", python]
    return [Step(command, environment={"HOME": str(_sanity_home())})]


def _skipped_tests(output: str) -> list[str]:
    """What ansible-test leaves out is only a warning to it."""
    return [f"not run: {line}" for line in re.findall(r"^WARNING: .*[Ss]kipp.*$", output, re.MULTILINE)]


# Types and style


def _with_python(*names: str) -> list[str]:
    return [name for name in names if any((COPY / name).rglob("*.py"))]


def _types() -> list[Step]:
    """Each module under the one name that it is imported by: plugins through ansible_collections, tests as tests.*."""
    config = ["mypy", "--config-file", str(COPY / "pyproject.toml"), "--cache-dir"]
    prefix = COPY.relative_to(COPY_PARENT)
    collection = [str(prefix / name) for name in _with_python("plugins")]
    tests = _with_python("tests/support", "tests/tools", "tests/benchmark")
    environment = {"MYPYPATH": str(COPY_PARENT)}
    steps = [Step([*config, str(BUILD / "mypy_cache" / "tests"), *tests], COPY, environment)]
    if collection:
        steps.append(Step([*config, str(BUILD / "mypy_cache" / "plugins"), *collection], COPY_PARENT, environment))
    return steps


def _style() -> list[Step]:
    return [Step(["ruff", "check", "--quiet", "."]), Step(["ruff", "format", "--check", "--quiet", "--diff", "."])]


def _host_python() -> list[Step]:
    """What runs on hosts must not use a language feature or a library that came after Python 3.8."""
    paths = _with_python("plugins/module_utils", "plugins/modules")
    if not paths:
        return []
    return [Step(["vermin", "--target=3.8-", "--no-tips", "--violations", *paths])]


def _shell() -> list[Step]:
    scripts = [name for name in tracked_files() if name.endswith(".sh") or _has_shell_shebang(COPY / name)]
    return [Step(["shellcheck", "--external-sources", *scripts])]


def _has_shell_shebang(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return re.match(rb"#!\S*(/|\s)(ba|da|)sh\b|#!/usr/bin/env (ba|da|)sh\b", file.readline(200)) is not None


# The collection as a whole


def _ansible_lint() -> list[Step]:
    return [Step(["ansible-lint", "--profile", "production", "--offline", "--strict", "--nocolor"])]


def _docs() -> list[Step]:
    # It writes a log into the home directory.
    home = _cache() / "docs"
    home.mkdir(parents=True, exist_ok=True)
    return [Step(["antsibull-docs", "lint-collection-docs", "--plugin-docs", "."], environment={"HOME": str(home)})]


def _changelog() -> list[Step]:
    return [Step(["antsibull-changelog", "lint"])]


def _galaxy_build() -> list[Step]:
    """Built from the checkout itself, where there is something to leave out."""
    target = BUILD / "galaxy"
    shutil.rmtree(target, ignore_errors=True)
    return [Step(["ansible-galaxy", "collection", "build", "--output-path", str(target)], CHECKOUT)]


def _foreign_members(output: str) -> list[str]:
    archives = list((BUILD / "galaxy").glob("*.tar.gz"))
    if len(archives) != 1:
        return [f"one archive was expected in {BUILD / 'galaxy'}, found {len(archives)}"]
    known = {"MANIFEST.json", "FILES.json", *tracked_files()}
    with tarfile.open(archives[0]) as archive:
        members = [member.name for member in archive if not member.isdir()]
    foreign = [f"in the archive, but not in git: {name}" for name in members if name not in known]
    missing = [
        f"not in the archive: {name}" for name in ("LICENSE", "README.md", "meta/runtime.yml") if name not in members
    ]
    return foreign + missing


# The longest first: two run at a time.
CHECKS = {
    check.name: check
    for check in [
        Check("sanity", _sanity, _skipped_tests),
        Check("ansible-lint", _ansible_lint),
        Check("docs", _docs),
        Check("types", _types),
        Check("changelog", _changelog),
        Check("build", _galaxy_build, _foreign_members),
        Check("host-python", _host_python),
        Check("shell", _shell),
        Check("style", _style),
    ]
}


class Runner:
    """Runs checks two at a time, in one copy of the checkout that nobody else changes meanwhile."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Mapping[str, concurrent.futures.Future[Outcome]]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_locked(BUILD / "lint.lock"))
            if "sanity" in self._names:
                # Its environments are shared between checkouts.
                stack.enter_context(_locked(_cache() / "sanity.lock"))
            refresh_copy()
            pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
            stack.callback(pool.shutdown, cancel_futures=True)
            futures = {name: pool.submit(CHECKS[name].run) for name in self._names}
            self._stack = stack.pop_all()
        return futures

    def __exit__(self, *_unused: object) -> None:
        self._stack.close()


def fix_style() -> int:
    ruff = str(VENV / "bin" / "ruff")
    subprocess.run([ruff, "check", "--quiet", "--fix", "."], cwd=CHECKOUT, check=False)
    return subprocess.run([ruff, "format", "."], cwd=CHECKOUT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev lint", description="Run the checks, all of them or those named.")
    parser.add_argument("names", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--list", action="store_true", help="name the checks and stop")
    parser.add_argument("--verbose", action="store_true", help="show the output of the checks that pass, too")
    parser.add_argument("--fix", action="store_true", help="let ruff repair and format the checkout first")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in CHECKS]
    if unknown:
        parser.error(f"no check is called {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    if options.list:
        print("\n".join(CHECKS))
        return 0
    if options.fix:
        fix_style()
    failed = 0
    with Runner(options.names or list(CHECKS)) as futures:
        for future in concurrent.futures.as_completed(futures.values()):
            outcome = future.result()
            print(outcome.line(), flush=True)
            if not outcome.passed:
                failed += 1
            if options.verbose or not outcome.passed:
                print(outcome.output, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
