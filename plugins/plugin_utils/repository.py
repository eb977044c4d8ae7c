# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of snapshots: a directory on the controller, laid out as docs/snapshot-format.md says."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.durable import (
    make_private_directory,
    sync_directory,
    write_private,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    BusyError,
    DamageError,
    RepositoryError,
    describe_os_error,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import PART_ID
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import (
    COMPLETE,
    MAX_MANIFEST_BYTES,
    SNAPSHOT_ID,
    Manifest,
    checksum_line,
    decode_manifest,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.history import History, repository_errors
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import id_time, iso, parse_iso, utc_now

INSTANCE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@:-]{0,199}\Z")
#: Seconds for which a run waits for another that may just be ending.
LOCK_PATIENCE = 5.0
PART_SUFFIX, RECORD_SUFFIX = ".tar.zst", ".json.zst"
#: A note beside a directory of incoming: which machine works there.
OWNER_SUFFIX = ".owner"
#: Seconds between a claim and the note of who made it, at the very most.
CLAIM_SECONDS = 60.0
#: Seconds without a new file after which the unfinished work of another machine counts as abandoned.
FOREIGN_SECONDS = 24 * 3600.0
SNAPSHOTS, HISTORY = "snapshots", "history.jsonl"
MANIFEST, CHECKSUM = "manifest.json", "manifest.json.sha256"


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot of an instance: its directory, and its manifest or the reason why there is none to be had."""

    directory: Path
    sequence: int
    manifest: Manifest | None
    problem: BackupError | None
    manifest_sha256: str = ""

    @property
    def id(self) -> str:
        return self.directory.name

    def require_manifest(self) -> Manifest:
        """Return the manifest, or raise why there is none."""
        if self.manifest is None:
            raise self.problem or DamageError(f"{self.directory} has no manifest")
        return self.manifest


class Repository:
    """The directory that the user names. Nothing is made before something has to be written."""

    def __init__(self, path: str) -> None:
        self.path = Path(os.path.abspath(os.path.expanduser(path)))

    def require(self) -> None:
        """Raise RepositoryError unless the repository exists."""
        if not self.path.is_dir():
            raise RepositoryError(
                f"repository {self.path} does not exist on the controller; set papermerge_backup_repository "
                "(papermerge.backup.create makes it)"
            )

    def instances(self) -> list[str]:
        """Return the names of the instances that have a directory here."""
        self.require()
        with repository_errors(self.path):
            return sorted(
                entry.name
                for entry in os.scandir(self.path)
                if entry.is_dir() and INSTANCE_NAME.match(entry.name) and _has_begun(Path(entry.path))
            )

    def instance(self, name: str) -> InstanceDirectory:
        """Return the directory of an instance, which need not exist. Raises RepositoryError for an unusable name."""
        if not INSTANCE_NAME.match(name):
            raise RepositoryError(
                f"{name!r} cannot name an instance in a repository: use letters, digits and ._@:- ; set "
                "papermerge_backup_instance"
            )
        return InstanceDirectory(self.path / name)

    def require_writable(self) -> None:
        """Raise RepositoryError unless snapshots can be written here; makes nothing."""
        place = self.path
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise RepositoryError(
                f"repository {self.path}: {place} is not a directory; set papermerge_backup_repository"
            )
        if not os.access(place, os.W_OK | os.X_OK):
            raise RepositoryError(
                f"repository {self.path} cannot be written: no permission in {place}; set "
                "papermerge_backup_repository or run as another user"
            )


class InstanceDirectory:
    """One instance's snapshots, parts and history."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.snapshots_path = path / SNAPSHOTS
        self.parts_path = path / "parts"
        self.incoming_path = path / "incoming"
        self.history = History(path / HISTORY)

    def make(self) -> None:
        """Make what is missing, private and synced. Raises RepositoryError."""
        with repository_errors(self.path):
            missing = []
            place = self.path.parent
            while not place.exists():
                missing.append(place)
                place = place.parent
            for path in [*reversed(missing), self.path, self.snapshots_path, self.parts_path, self.incoming_path]:
                with contextlib.suppress(FileExistsError):
                    make_private_directory(path)
                    sync_directory(path.parent)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the instance's lock. Raises BusyError when another run holds it for longer than LOCK_PATIENCE."""
        with repository_errors(self.path):
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + LOCK_PATIENCE
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
                        raise BusyError(
                            "another run works on instance {} in {} ({}); wait for it".format(
                                self.name, self.path.parent, holder or "it does not say who"
                            )
                        ) from None
                    time.sleep(0.1)
                except OSError as error:
                    # A courtesy, which some network file systems refuse. The claim keeps numbers apart without it.
                    if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                        raise
                    break
            # For whoever is refused; a full disk has no room for it.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} since {iso(utc_now())}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    # -- reading ------------------------------------------------------------------------------------------------------

    def snapshot_names(self) -> list[str]:
        """Return the ids of the committed snapshots, oldest first. The sequence number orders, not the clock."""
        try:
            with os.scandir(self.snapshots_path) as entries:
                names = [entry.name for entry in entries if SNAPSHOT_ID.match(entry.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RepositoryError(f"repository: {describe_os_error(error)}") from None
        return sorted(names, key=lambda name: int(name.split("-")[0]))

    def snapshots(self) -> Iterator[StoredSnapshot]:
        """Yield the committed snapshots, oldest first, each with its manifest or its problem."""
        recorded = self.history.committed()
        for name in self._names(recorded):
            yield self._load(name, recorded)

    def _names(self, recorded: dict[str, str]) -> list[str]:
        """Return the ids of what is there and of what should be, oldest first: a snapshot that vanished is damage."""
        vanished = set(recorded) - set(self.history.pruned()) - set(self.snapshot_names())
        return sorted([*self.snapshot_names(), *vanished], key=lambda name: int(name.split("-")[0]))

    def _load(self, name: str, recorded: dict[str, str]) -> StoredSnapshot:
        directory = self.snapshots_path / name
        sequence = int(name.split("-")[0])
        try:
            if not directory.exists():
                raise DamageError(f"{directory} is gone, though {self.history.path} says that it was committed")
            text = _small_file(directory / MANIFEST)
            line = _small_file(directory / CHECKSUM)
            expected = checksum_line(text)
            if line != expected:
                raise DamageError(
                    f"{directory / MANIFEST} does not match {CHECKSUM}: one of them was changed after the commit"
                )
            sha256 = expected.split()[0].decode("ascii")
            if recorded.get(name, sha256) != sha256:
                raise DamageError(
                    f"{directory / MANIFEST} is not the manifest that was committed: "
                    "the instance's history has another SHA-256"
                )
            manifest = decode_manifest(text)
            if manifest.id != name:
                raise DamageError(f"{directory / MANIFEST} is the manifest of snapshot {manifest.id}")
            if manifest.instance != self.name:
                raise DamageError(
                    f"{directory / MANIFEST} is the manifest of a snapshot of instance {manifest.instance}"
                )
        except BackupError as error:
            problem = type(error)(f"snapshot {name}: {error.message}")
            return StoredSnapshot(directory, sequence, None, problem)
        return StoredSnapshot(directory, sequence, manifest, None, sha256)

    def readable(self) -> Iterator[StoredSnapshot]:
        """Yield the snapshots whose manifests can be read, newest first."""
        recorded = self.history.committed()
        for name in reversed(self.snapshot_names()):
            found = self._load(name, recorded)
            if found.manifest is not None:
                yield found

    def complete(self) -> Iterator[StoredSnapshot]:
        """Yield the complete snapshots whose manifests can be read, newest first."""
        return (found for found in self.readable() if found.require_manifest().state == COMPLETE)

    @staticmethod
    def manifest_sha256(manifest: Manifest) -> str:
        """Return the SHA-256 in hex of a manifest as it is written."""
        return checksum_line(manifest.encode()).split()[0].decode("ascii")

    def select(self, wanted: str) -> StoredSnapshot:
        """Return the snapshot that a user names: ``latest``, a sequence number, an id, or a time.

        ``latest`` is the newest complete one; a damaged one that is newer is an error, not passed over in silence. A
        time selects the newest complete snapshot that was started not after it. Raises RepositoryError when there is
        none.
        """
        recorded = self.history.committed()
        names = self._names(recorded)
        if not names:
            raise RepositoryError(self.without_snapshots())
        listed = "there are {}".format(", ".join(names[-5:]))
        if wanted.isdecimal() or SNAPSHOT_ID.match(wanted):
            for name in names:
                if wanted == name or (wanted.isdecimal() and int(wanted) == int(name.split("-")[0])):
                    return self._load(name, recorded)
            raise RepositoryError(f"instance {self.name} has no snapshot {wanted}; {listed}")
        moment: datetime | None = None
        if wanted != "latest":
            try:
                moment = parse_iso(wanted)
            except ValueError:
                raise RepositoryError(
                    f"{wanted!r} names no snapshot: use latest, a sequence number, an id such as {names[-1]}, or a "
                    "time such as 2026-11-22T13:42:15"
                ) from None
        for name in reversed(names):
            snapshot = self._load(name, recorded)
            if snapshot.manifest is None:
                if moment is None or id_time(snapshot.id) <= moment:
                    return snapshot
            elif snapshot.manifest.state == COMPLETE and (
                moment is None or parse_iso(snapshot.manifest.started) <= moment
            ):
                return snapshot
        raise RepositoryError(
            "instance {} has no complete snapshot{}; {}".format(
                self.name, "" if moment is None else f" started by {iso(moment)}", listed
            )
        )

    def without_snapshots(self) -> str:
        """Return what to tell of an instance that has no snapshots: also who has some."""
        others = Repository(str(self.path.parent)).instances() if self.path.parent.is_dir() else []
        text = f"instance {self.name} has no snapshots in {self.path.parent}"
        if not others:
            return f"{text}; papermerge.backup.create takes the first"
        return f"{text}; there are those of {', '.join(others[:20])}: set papermerge_backup_source or _instance"

    def part_path(self, part: str) -> Path:
        return self.parts_path / (part + PART_SUFFIX)

    def record_path(self, part: str) -> Path:
        return self.parts_path / (part + RECORD_SUFFIX)

    # -- writing ------------------------------------------------------------------------------------------------------

    def remove_abandoned(self) -> None:
        """Remove what runs that were killed have left unfinished. The caller holds the lock.

        On some network file systems the lock means little, so the work of another machine is left alone for a day.
        """
        with repository_errors(self.incoming_path):
            names = sorted(os.listdir(self.incoming_path))
            for name in names:
                if name.isdigit() and self._is_abandoned(name):
                    shutil.rmtree(self.incoming_path / name)
            for name in names:
                if name.endswith(OWNER_SUFFIX) and not (self.incoming_path / name.split(".")[0]).exists():
                    (self.incoming_path / name).unlink(missing_ok=True)

    def _is_abandoned(self, name: str) -> bool:
        """Tell whether a directory of incoming is nobody's: of this machine, whose lock we hold, or a day old."""
        age = time.time() - (self.incoming_path / name).stat().st_mtime
        try:
            machine = (self.incoming_path / (name + OWNER_SUFFIX)).read_text("utf-8").strip()
        except FileNotFoundError:
            machine = ""
        if not machine:
            # Claimed a moment ago, or by a run that was killed in that moment.
            return age > CLAIM_SECONDS
        return machine == socket.gethostname() or age > FOREIGN_SECONDS

    def keep_part(self, directory: Path, part: str) -> None:
        """Move a finished part and its record from a directory of incoming to their place, for good.

        From now on it outlives the run that made it: whoever finds it unnamed may name it.
        """
        with repository_errors(self.parts_path):
            # The record last: where it is, its part is.
            for path in (self.part_path(part), self.record_path(part)):
                os.rename(directory / path.name, path)
            sync_directory(self.parts_path)
            sync_directory(directory)

    def kept_parts(self) -> list[str]:
        """Return the ids of all parts that have a record, sorted; snapshots may name them or not."""
        with repository_errors(self.parts_path):
            names = os.listdir(self.parts_path)
        found = (name[: -len(RECORD_SUFFIX)] for name in names if name.endswith(RECORD_SUFFIX))
        return sorted(part for part in found if PART_ID.match(part))

    def discard(self, incoming: Path) -> None:
        """Remove a directory of incoming. The parts that were finished stay.

        What cannot be removed, on a disk that has failed, is left to the next run: why it failed is what is told.
        """
        with contextlib.suppress(OSError):
            shutil.rmtree(incoming, ignore_errors=True)
            self._forget(incoming.name)

    def _forget(self, name: str) -> None:
        (self.incoming_path / (name + OWNER_SUFFIX)).unlink(missing_ok=True)

    def repair_history(self) -> None:
        """Record commits that a killed run had no time to record. The caller holds the lock."""
        recorded = self.history.committed()
        for name in self.snapshot_names():
            if name not in recorded:
                found = self._load(name, recorded)
                if found.manifest is not None:
                    self.history.append("committed", name, found.manifest_sha256)

    def claim(self) -> tuple[int, Path]:
        """Claim the next sequence number. Returns it and the directory for everything unfinished."""
        with repository_errors(self.incoming_path):
            while True:
                number = self._last_number() + 1
                path = self.incoming_path / f"{number:06}"
                try:
                    make_private_directory(path)
                except FileExistsError:
                    continue
                # Another run may have committed this very number between the look and the claim.
                if self._last_number(without=path.name) < number:
                    try:
                        write_private(
                            self.incoming_path / (path.name + OWNER_SUFFIX),
                            (socket.gethostname() + "\n").encode("utf-8"),
                        )
                    except OSError:
                        self.discard(path)
                        raise
                    sync_directory(self.incoming_path)
                    return number, path
                path.rmdir()

    def _last_number(self, without: str = "") -> int:
        numbers = [int(name.split("-")[0]) for name in self.snapshot_names()]
        numbers += [int(name) for name in os.listdir(self.incoming_path) if name.isdigit() and name != without]
        numbers += [int(name.split("-")[0]) for name in self.history.committed()]
        return max(numbers, default=0)

    def publish(self, incoming: Path, name: str) -> None:
        """Commit a synced directory of incoming by one rename. Its parts are in place already."""
        with repository_errors(self.snapshots_path):
            sync_directory(incoming)
            os.rename(incoming, self.snapshots_path / name)
            sync_directory(self.snapshots_path)
            self._forget(incoming.name)
            sync_directory(self.incoming_path)


def _has_begun(path: Path) -> bool:
    """Tell whether a directory is an instance's: it has snapshots, or a history of them."""
    return (path / SNAPSHOTS).is_dir() or (path / HISTORY).is_file()


def _small_file(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            text = stream.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise DamageError(f"{path} is missing") from None
    except OSError as error:
        raise RepositoryError(f"{describe_os_error(error)}") from None
    if len(text) > MAX_MANIFEST_BYTES:
        raise DamageError(f"{path} is larger than any manifest")
    return text
