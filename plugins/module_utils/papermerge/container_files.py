# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the host has the files of a container: media, a SQLite database, compose files and settings."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from dataclasses import replace
from typing import List, Optional, Sequence, Tuple, Type

from ..database.place import DatabasePlace
from ..errors import BackupError, DatabaseError, MediaError
from .configula import SettingsText
from .container import CONFIGURATION_LABELS, WORKING_DIRECTORY_LABEL, Container, Mount, on_the_host
from .container_engine import Engine

LINKS = 16
FIRST_MEMBER_BYTES = 1 << 20
COMPOSE_FILE_BYTES = 1 << 20


def media_on_the_host(engine: Engine, container: Container, path: str, found_in: str) -> Tuple[str, str]:
    """Return the host's path of a container's media directory and where it was found, mount included.

    Raises MediaError for a directory that is in the container's own layer or in memory, where it is lost with the
    container, for other mounts below it, and for a mount that this host does not have.
    """
    what = "media directory"
    path, mount = _mounted(engine, container, path, found_in, what, MediaError)
    below = container.mounts_below(path)
    if below:
        raise MediaError(
            "below the media directory {0} of container {1} ({2}) there are other mounts: {3}; a backup of one "
            "directory would leave them out: bring all media into one volume or directory".format(
                path,
                container.name,
                found_in,
                ", ".join("{0} at {1}".format(other.describe(), other.destination) for other in below),
            )
        )
    place = on_the_host(mount, path)
    try:
        is_directory = stat.S_ISDIR(os.stat(place).st_mode)
    except PermissionError:
        raise MediaError(
            "media directory {0} of container {1} ({2}) is {3}, but this user may not read {4}: set become".format(
                path, container.name, found_in, mount.describe(), place
            )
        ) from None
    except OSError:
        is_directory = False
    if not is_directory:
        raise MediaError(
            "media directory {0} of container {1} ({2}) is {3}, but {4} is no directory of this host; does the engine "
            "run on another machine, or in a virtual one? Set papermerge_backup_media_root".format(
                path, container.name, found_in, mount.describe(), place
            )
        )
    return place, "{0}: {1}, {2}".format(found_in, path, mount.describe())


def sqlite_on_the_host(
    engine: Engine, container: Container, place: DatabasePlace, found_in: str
) -> Tuple[DatabasePlace, str]:
    """Return a SQLite database of a container as a place on the host. Raises DatabaseError as for media, and for a
    database that is mounted without its directory, where its journal stays in the container."""
    path, mount = _mounted(engine, container, place.path, found_in, "SQLite database", DatabaseError)
    if mount.destination == path:
        raise DatabaseError(
            "the SQLite database {0} of container {1} ({2}) is mounted as a single file ({3}): its journal stays "
            "in the container, and without it the file may not be whole; mount its directory".format(
                path, container.name, found_in, mount.describe()
            )
        )
    return replace(place, path=on_the_host(mount, path)), "{0}: {1}, {2}".format(found_in, path, mount.describe())


def _mounted(
    engine: Engine, container: Container, path: str, found_in: str, what: str, failure: Type[BackupError]
) -> Tuple[str, Mount]:
    """Follow a path's symbolic links as the container does, to what is mounted there from the host."""
    path = wanted = posixpath.normpath(path)
    for _link in range(LINKS):
        mount = container.mount_of(path)
        target: Optional[str] = None
        exists = True
        if mount is None:
            entry = engine.member(container.identity, path, lambda member: True, FIRST_MEMBER_BYTES)
            exists = entry is not None
            target = entry.linkname if entry is not None and entry.issym() else None
        elif mount.source:
            mount = _with_source(engine, container, mount, what, failure)
            outside = on_the_host(mount, path)
            target = os.readlink(outside) if os.path.islink(outside) else None
        if target is not None:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            continue
        if mount is not None and mount.source:
            return path, mount
        raise failure(
            "container {0} keeps its {1} {2} ({3}) {4}, in no volume and no directory of the host: it is lost as soon "
            "as the container is {5}. {6}mount a volume at {7}{8}".format(
                container.name,
                what,
                wanted,
                found_in,
                "in memory" if mount is not None else "in its own layer",
                "stopped" if mount is not None else "removed or updated",
                "Copy it out now ({0} cp {1}:{2} DIRECTORY), then ".format(container.engine, container.name, path)
                if exists
                else "Nothing is there yet: ",
                path if what == "media directory" else posixpath.dirname(path),
                " and copy it in" if exists else "",
            )
        )
    raise failure(
        "{0} {1} of container {2} ({3}) is a loop of symbolic links".format(what, wanted, container.name, found_in)
    )


def _with_source(engine: Engine, container: Container, mount: Mount, what: str, failure: Type[BackupError]) -> Mount:
    """Return a mount with the directory that holds a volume's files now, whether a container uses it or not."""
    volume = engine.volume(mount.volume) if mount.volume else None
    if volume is None:
        return mount
    options = volume.get("Options") or {}
    device, kind = str(options.get("device") or ""), str(options.get("type") or "")
    if mount.driver in ("", "local") and not device:
        return mount
    if os.path.ismount(str(volume.get("Mountpoint") or mount.source)):
        return mount
    if os.path.isabs(device) and "bind" in str(options.get("o") or "").split(","):
        return replace(mount, source=posixpath.normpath(device + mount.subpath))
    raise failure(
        "the {0} of container {1} is in volume {2} ({3}), which is mounted only while a container uses it; start the "
        "container, with: {4} start {1}".format(
            what, container.name, mount.volume, kind or mount.driver or device, container.engine
        )
    )


def settings_text(engine: Engine, container: Container) -> Optional[SettingsText]:
    """Return the papermerge.toml that the Papermerge of 2.1 to 3.2 in a container loads, None where it has none."""
    places = ["/etc/papermerge/papermerge.toml", "/etc/papermerge.toml"]
    places.append(posixpath.join(container.working_directory, "papermerge.toml"))
    named = container.environment.get("PAPERMERGE__CONFIG")
    if named:
        places.append(posixpath.join(container.working_directory, named))
    for path in places:
        content = engine.file(container.identity, path)
        if content is not None:
            where = "{0} in container {1}".format(path, container.name)
            return SettingsText(where, content.decode("utf-8", "replace"))
    return None


def configuration_files(containers: Sequence[Container]) -> Tuple[str, ...]:
    """Return the files of the host that configure containers, as far as they exist: those of their compose project, the
    environment files that these name, and single files that are mounted."""
    found: List[str] = []
    for container in containers:
        directory = container.labels.get(WORKING_DIRECTORY_LABEL, "")
        for label in CONFIGURATION_LABELS:
            named = [name for name in container.labels.get(label, "").split(",") if name]
            found += [posixpath.join(directory, name) for name in named]
        if directory:
            found.append(posixpath.join(directory, ".env"))
        found += [mount.source for mount in container.mounts if mount.kind == "bind"]
    for path in list(found):
        if path.endswith((".yml", ".yaml")) and os.path.isfile(path):
            found += [posixpath.join(posixpath.dirname(path), name) for name in _environment_files(path)]
    return tuple(path for path in dict.fromkeys(map(posixpath.normpath, found)) if os.path.isfile(path))


def _environment_files(path: str) -> List[str]:
    """Return what the ``env_file`` settings of a compose file name; of YAML as much as they are written in."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read(COMPOSE_FILE_BYTES).splitlines()
    except OSError:
        return []
    found: List[str] = []
    depth: Optional[int] = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        setting = re.match(r"\s*env_file\s*:\s*(\[.*\]|[^#\s].*?)?\s*(?:#.*)?\Z", line)
        if setting:
            depth = indent
            found += [word.strip(" \"'") for word in (setting.group(1) or "").strip("[]").split(",")]
            continue
        item = re.match(r"\s*-\s*(?:path\s*:\s*)?([^#]+)", line)
        if depth is not None and item and indent >= depth:
            found.append(item.group(1).strip(" \"'"))
        elif line.strip() and indent <= (depth or 0):
            depth = None
    return [name for name in found if name]
