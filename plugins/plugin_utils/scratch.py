# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory for what a drill restores: private, beside all that lives, gone with the drill whatever ends it.

A small process watches the drill by a pipe and removes the directory when the drill was killed; what a power cut has
left is removed by the next drill.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import (
    PREFIX,
    OwnDirectory,
    abandoned,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import (
    DatabasePlace,
    parse_database_url,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, SettingError, TargetError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest

PURPOSE, SERVER_PURPOSE = "drill", "drilldb"
#: Is told which group of processes runs for the drill. When its input ends without "done", the drill was killed: it
#: ends that group and removes the directories named. What processes that are just ending still write takes another go.
_WATCHER = """
group=
while read -r word number; do
  case $word in
    done) exit 0 ;;
    group) group=$number ;;
  esac
done
[ -z "$group" ] || kill -s KILL -- "-$group"
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  rm -rf --one-file-system -- "$@" && exit 0
  sleep 0.5
done
"""


class ScratchDirectory:
    """The place of one drill. A context manager: at its end nothing is left.

    ``path`` is for what is restored, ``server_path`` beside it for a database server, whose account may be another.
    """

    def __init__(self, parent: str = "") -> None:
        self.parent = os.path.realpath(os.path.expanduser(parent or os.environ.get("TMPDIR", "/var/tmp")))
        if not os.path.isdir(self.parent):
            raise SettingError(f"{self.parent} is not a directory; set papermerge_backup_drill_dir")

    def __enter__(self) -> ScratchDirectory:
        for left in abandoned(self.parent, PURPOSE):
            _remove_tree(_server_path(left.path))
            left.remove()
        self._directory = OwnDirectory(self.parent, PURPOSE)
        self.path = Path(self._directory.path)
        self.server_path = _server_path(self._directory.path)
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHER, "sh", str(self.server_path), str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def watch_group(self, group: int | None) -> None:
        """Let a group of processes be ended if the drill is killed; None: there is none any more."""
        with contextlib.suppress(BrokenPipeError):
            words = cast(IO[bytes], self._watcher.stdin)
            words.write(f"group {'' if group is None else group}\n".encode("ascii"))
            words.flush()

    def remove(self) -> None:
        """Remove everything. Raises BackupError when something is left; fine when called twice."""
        _remove_tree(self.server_path)
        self._directory.remove()
        left = [str(path) for path in (self.server_path, self.path) if path.exists()]
        if left:
            # The watcher goes on trying after us.
            raise BackupError(f"the drill's scratch directory could not be removed: {', '.join(left)}; remove it")
        if self._watcher.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._watcher.communicate(b"done\n")


def _server_path(path: str) -> Path:
    head, name = os.path.split(path)
    return Path(head, PREFIX + SERVER_PURPOSE + name.removeprefix(PREFIX + PURPOSE))


def _remove_tree(path: Path) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=False, stderr=subprocess.DEVNULL)


def require_apart(manifest: Manifest, media_root: str, url: str) -> None:
    """Raise TargetError when a drill would restore to where the source lives: same server and database, same files."""
    source = os.path.realpath(str(manifest.media["root"]))
    target = os.path.realpath(media_root)
    if target == source or target.startswith(source + "/") or source.startswith(target + "/"):
        raise TargetError(
            f"the drill's scratch directory {media_root} and the media directory {source} of the instance lie one in "
            "the other; set papermerge_backup_drill_dir to another place"
        )
    place = parse_database_url(url, "the scratch target")
    database = manifest.database
    if place.engine == "sqlite":
        same = os.path.realpath(place.path) == os.path.realpath(str(database["path"]))
    else:
        same = bool(database.get("url")) and _server_of(
            parse_database_url(str(database["url"]), "the snapshot")
        ) == _server_of(place)
    if same:
        raise TargetError(f"the drill's scratch database is the instance's own, {place.url}; nothing was touched")


def _server_of(place: DatabasePlace) -> tuple[str, str, int, str]:
    host = os.path.realpath(place.host) if place.host.startswith("/") else place.host
    return place.engine, host, place.port, place.name
