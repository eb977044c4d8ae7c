# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated histories of one instance: create, prune, crash, clock jump, damage, pin; and a model of what must remain.

A history is a function of its seed. It runs in one process on a file system in memory: a crash is an exception before a
call that changes the file system, after which no further call does anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, LossError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import SNAPSHOT_ID
from ansible_collections.papermerge.backup.plugins.plugin_utils import repository, settling, times
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.pins import set_pin
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune import prune_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune_plan import PruneRequest
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.retention import Duration, Policy
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import (
    Verification,
    check_sizes,
    media_of,
    scratch_directory,
)
from tests.support.in_process import InProcessAgent
from tests.support.snapshots import place_in, quiet

PACKAGE = "ansible_collections.papermerge.backup.plugins"
MEMORY = Path("/dev/shm")
EVER = Duration(years=900)
NEVER = Duration()


class Crash(BaseException):
    """The process ends here."""


class Crashing:
    """Counts calls that change the file system; before the one with the number ``at`` the process crashes."""

    NAMES = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "fsync")

    def __init__(self, at: int | None) -> None:
        self._at = at
        self.calls = 0

    def _step(self) -> None:
        self.calls += 1
        if self._at is not None and self.calls >= self._at:
            raise Crash

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count and crash inside the block; a crash ends it."""
        real = {name: getattr(os, name) for name in (*self.NAMES, "open")}

        def stepping(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **more: Any) -> Any:
                self._step()
                # What is in memory has no disk to reach.
                return None if name == "fsync" else real[name](*arguments, **more)

            return call

        def opening(path: Any, flags: int, *arguments: Any, **more: Any) -> Any:
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                self._step()
            return real["open"](path, flags, *arguments, **more)

        for name in self.NAMES:
            setattr(os, name, stepping(name))
        os.open = opening
        try:
            with contextlib.suppress(Crash):
                yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)


@contextlib.contextmanager
def clock(read: Callable[[], datetime]) -> Iterator[None]:
    """Let the controller's code ask this clock."""
    real = times.utc_now
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(PACKAGE)]
    holders: list[Any] = [module for module in modules if getattr(module, "utc_now", None) is real]
    for module in holders:
        module.utc_now = read
    try:
        yield
    finally:
        for module in holders:
            module.utc_now = real


@dataclass
class Snapshot:
    """What the model knows of a committed snapshot: its files' SHA-256, and what has happened to it since."""

    files: dict[bytes, str]
    complete: bool
    moment: datetime
    parts: set[str]
    #: Its own files were damaged or removed by the history.
    broken: bool = False
    gone: bool = False


@dataclass
class Statistics:
    """How often something happened, over histories: a generator that never gets there proves nothing."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, *words: str) -> None:
        for word in words:
            self.counts[word] = self.counts.get(word, 0) + 1

    def merge(self, other: Statistics) -> None:
        for word, count in other.counts.items():
            self.counts[word] = self.counts.get(word, 0) + count


class History:
    """One generated history. :meth:`run` raises AssertionError, with the seed and the steps, for what must not be."""

    def __init__(self, seed: int, statistics: Statistics) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.statistics = statistics
        self.steps: list[str] = []
        self.root = Path(tempfile.mkdtemp(prefix="history-", dir=MEMORY if MEMORY.is_dir() else None))
        self.place = place_in(self.root / "repository")
        self.agent = InProcessAgent(self.root / "media")
        self.agent.media.mkdir()
        self.agent.documents = 20
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)
        #: When the files of the parts came, by the history's clock.
        self.came: dict[str, datetime] = {}
        self.model: dict[str, Snapshot] = {}
        #: Parts that the history has damaged, and those of them whose size tells.
        self.damaged: set[str] = set()
        self.visibly: set[str] = set()
        self.pins: set[str] = set()

    # -- the steps ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        rng = self.rng
        steps: list[tuple[int, Callable[[], None]]] = [
            (8, self.create),
            (7, self.prune),
            (2, self.jump),
            (2, self.damage_part),
            (1, self.damage_snapshot),
            (1, self.pin),
        ]
        try:
            with self._world():
                self._create(Crashing(None))
                for _number in range(rng.randint(3, 8)):
                    rng.choices([step for _weight, step in steps], [weight for weight, _step in steps])[0]()
                    self.now += timedelta(hours=rng.choice((1, 5, 26, 24 * 8, 24 * 40)))
                self.finish()
        except BaseException as error:
            error.add_note("history of seed {}:\n  {}".format(self.seed, "\n  ".join(self.steps)))
            raise
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    @contextlib.contextmanager
    def _world(self) -> Iterator[None]:
        """Give every module this history's clock, and nobody patience."""
        before = settling.SETTLE_SECONDS, repository.CLAIM_SECONDS, os.environ.get("TMPDIR")
        settling.SETTLE_SECONDS, repository.CLAIM_SECONDS = 0.0, -1.0
        os.environ["TMPDIR"] = str(self.root)
        try:
            with clock(lambda: self.now):
                yield
        finally:
            settling.SETTLE_SECONDS, repository.CLAIM_SECONDS = before[:2]
            if before[2] is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before[2]

    def _crashing(self, most: int) -> Crashing:
        return Crashing(self.rng.randint(1, most) if self.rng.random() < 0.4 else None)

    def create(self) -> None:
        self._create(self._crashing(60))

    def _create(self, crashing: Crashing) -> None:
        self._change_media()
        files = {
            os.fsencode(path.relative_to(self.agent.media)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.agent.media.rglob("*")
            if path.is_file()
        }
        known = set(self.place.snapshot_names())
        request = CreateRequest(host="here", instance="one")
        result = "crashed"
        with crashing.watching():
            try:
                create_snapshot(self.agent, self.place, request, quiet())
                result = "complete"
            except LossError:
                result = "incomplete"
        self._date_parts()
        self._say(f"create: {result} after {crashing.calls} calls, {len(files)} files")
        new = set(self.place.snapshot_names()) - known
        assert len(new) <= 1
        assert result == "crashed" or len(new) == 1
        for name in new:
            number = int(name.split("-")[0])
            assert all(number > int(other.split("-")[0]) for other in self.model), "a number was used twice"
            manifest = self.place.select(name).require_manifest()
            if result == "crashed":
                self.statistics.add("create crashed after its commit")
            parts = {part.id for part in manifest.parts}
            self.model[name] = Snapshot(files, manifest.state == "complete", self.now.replace(microsecond=0), parts)
        self.statistics.add(f"create {result}")
        self.require_nothing_lost()

    def _date_parts(self) -> None:
        """Give files of parts that are new, or were given a new time, the time of the history's clock."""
        if self.place.parts_path.is_dir():
            for path in self.place.parts_path.iterdir():
                came = self.came.get(path.name)
                if came is None or path.stat().st_mtime != came.timestamp():
                    self.came[path.name] = self.now
                    os.utime(path, (self.now.timestamp(),) * 2)

    def _change_media(self) -> None:
        rng, media = self.rng, self.agent.media
        lost: list[Path] = []
        for path in sorted(path for path in media.rglob("*") if path.is_file()):
            if rng.random() < 0.15:
                path.unlink()
                lost.append(path)
            elif rng.random() < 0.1:
                path.write_bytes(rng.randbytes(rng.randint(1, 40)))
        for _number in range(rng.randint(1, 3)):
            path = media / f"docs/user_1/document_{rng.randint(1, 30)}/scan.pdf"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.randbytes(rng.randint(1, 60)))
        # Rows of the database name what is there, and sometimes what is not there any more.
        there = [*media.rglob("*.pdf"), *(path for path in lost if rng.random() < 0.2)]
        self.agent.expected = sorted({str(path.relative_to(media)) for path in there})
        if rng.random() < 0.1:
            self.agent.documents = rng.choice((9, 15, 19, 20, 25))

    def _policy(self) -> Policy:
        rng = self.rng
        counts = {kind: rng.randint(1, 3) for kind in ("last", "daily", "weekly", "monthly", "yearly", "hourly")}
        chosen = rng.sample(sorted(counts), rng.randint(1, 2))
        chosen_counts: dict[str, Any] = {kind: counts[kind] for kind in chosen}
        policy = Policy(**chosen_counts)
        return replace(policy, within=Duration(days=rng.randint(1, 60))) if rng.random() < 0.15 else policy

    def prune(self) -> None:
        rng = self.rng
        newest = self.place.snapshot_names()[-1:]
        request = PruneRequest(
            policy=self._policy(),
            verified_within=NEVER if rng.random() < 0.6 else EVER,
            part_grace=rng.choice((Duration(), Duration(hours=24))),
            shrink_threshold=20,
            accept_shrink=newest if rng.random() < 0.5 else [],
        )
        crashing = self._crashing(30)
        self._prune(request, crashing)

    def _prune(self, request: PruneRequest, crashing: Crashing) -> dict[str, Any] | None:
        before = self.present()
        sound = [name for name in before if self._is_sound(name, self.damaged)]
        readable = [name for name in before if self._is_sound(name, self.visibly)]
        found = None
        with crashing.watching():
            (found,) = prune_snapshots([self.place], request, quiet(), check=False)
        removed = sorted(set(before) - set(self.present()))
        what = "crashed" if found is None else "refused" if found["result"] == "failed" else "done"
        self._say(f"prune: {what} after {crashing.calls} calls, removed {removed}; {request.policy}")
        self.statistics.add(f"prune {what}", *(["prune removed"] if removed else []))
        for name in removed:
            self.model[name].gone = True
        if found is not None:
            assert {row["id"] for row in found["snapshots"] if row["action"] == "remove"} >= set(removed)
            assert all(row["reasons"] for row in found["snapshots"] if found["result"] == "ok")
        if removed:
            self._require_rightly_removed(request, before, removed, sound, readable)
        if what == "refused":
            assert not removed
        self.require_nothing_lost()
        return found

    def _require_rightly_removed(
        self, request: PruneRequest, before: list[str], removed: list[str], sound: list[str], readable: list[str]
    ) -> None:
        newest = before[-1]
        assert not self.pins & set(removed), "a pinned snapshot was removed"
        assert self.model[newest].complete, "something was removed while the newest snapshot was incomplete"
        assert self.model[newest].moment <= self.now + timedelta(minutes=5), "the newest one is dated in the future"
        assert newest not in removed, "the newest snapshot was removed"
        assert newest in readable, "something was removed while the newest snapshot was damaged for all to see"
        if request.verified_within == NEVER:
            assert newest in sound, "something was removed while the newest snapshot did not verify"
            assert set(sound) - set(removed), "the last snapshot that verifies was removed"

    def jump(self) -> None:
        """Set the clock, backwards or into the future; sometimes right again."""
        days = self.rng.choice((-400, -3, -1, 2, 100, 500))
        self.now += timedelta(days=days)
        self._say(f"clock: {days:+} days")
        self.statistics.add("clock jump")

    def damage_part(self) -> None:
        # By age: their names are random.
        here = list(self.place.parts_path.glob("*.zst"))
        files = sorted(here, key=lambda path: (self.came[path.name], path.stat().st_size, path.name[32:]))
        if not files:
            return
        path = self.rng.choice(files)
        part = path.name[:32]
        kind = self.rng.choice(("flip", "flip", "truncate", "remove"))
        if kind == "remove":
            path.unlink()
        else:
            content = bytearray(path.read_bytes())
            content[self.rng.randrange(len(content))] ^= 0x10
            path.write_bytes(content if kind == "flip" else content[:-1])
            os.utime(path, (self.came[path.name].timestamp(),) * 2)
        self.damaged.add(part)
        if kind != "flip":
            self.visibly.add(part)
        self._say(f"damage: {kind} {path.name}")
        self.statistics.add(f"damage {kind}")

    def damage_snapshot(self) -> None:
        names = self.present()
        if not names:
            return
        name = self.rng.choice(names)
        directory = self.place.snapshots_path / name
        kind = self.rng.choice(("manifest", "directory"))
        self.model[name].broken = True
        if kind == "manifest":
            (directory / "manifest.json").write_bytes(b"{}")
        else:
            shutil.rmtree(directory)
            self.model[name].gone = True
        self._say(f"damage: {kind} of {name}")
        self.statistics.add(f"damage {kind}")

    def pin(self) -> None:
        names = self.present()
        if not names:
            return
        name = self.rng.choice(names)
        crashing = Crashing(None)
        with crashing.watching():
            set_pin(self.place, name, "because" if name not in self.pins else None, check=False)
            self.pins ^= {name}
        self._say(f"pin: {sorted(self.pins)}")
        self.statistics.add("pin")

    # -- what must be -------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self.steps.append(f"{self.now:%Y-%m-%d %H:%M} {text}")

    def present(self) -> list[str]:
        return self.place.snapshot_names()

    def _loaded(self, name: str) -> StoredSnapshot:
        return self.place.select(name)

    def _is_sound(self, name: str, damaged: set[str]) -> bool:
        """Tell whether a snapshot verifies, given which parts do not."""
        known = self.model[name]
        if known.broken or not known.complete:
            return False
        return not known.parts & damaged

    def require_nothing_lost(self) -> None:
        """Check that every snapshot that was not pruned has all its files, by size; and that pruned ones are known."""
        pruned = set(self.place.history.pruned())
        recorded = set(self.place.history.committed())
        present = set(self.present())
        for name, known in self.model.items():
            if known.gone:
                assert known.broken or name in pruned, f"{name} is gone, and the history does not know why"
            else:
                assert name in present, f"{name} is gone"
            if known.broken and name in recorded - pruned:
                # Nobody can read which parts it needs, so that every part may be one of them.
                left = {part for part in known.parts if self.place.part_path(part).exists()}
                assert left >= known.parts - self.visibly, f"parts of {name}, which cannot be read, are gone"
            if known.gone or known.broken:
                continue
            snapshot = self._loaded(name)
            manifest = snapshot.require_manifest()
            if not known.parts & self.visibly:
                check_sizes(self.place, snapshot.directory, manifest)

    def finish(self) -> None:
        """Prune once more without a crash, and check every byte of what remains, and that nothing else does."""
        newest = self.present()[-1:]
        # Nothing may be too young to go.
        self.now = max(self.now, *self.came.values()) + timedelta(minutes=1)
        request = PruneRequest(self._policy(), NEVER, Duration(), 20, newest)
        crashing = Crashing(None)
        found = self._prune(request, crashing)
        assert found is not None
        for name, known in self.model.items():
            if not known.gone and not known.broken:
                self._require_content(name, known)
        if found["state"] == "pruned" and found["result"] == "ok" and not found["msg"]:
            self.statistics.add("finished clean")
            named = {part.id for name in self.present() for part in self._loaded(name).require_manifest().parts}
            assert {path.name[:32] for path in self.place.parts_path.iterdir()} <= named, "unreferenced parts remain"
            assert all(SNAPSHOT_ID.match(path.name) for path in self.place.snapshots_path.iterdir())
            with Crashing(None).watching():
                (again,) = prune_snapshots([self.place], request, quiet(), check=False)
            assert not again["changed"], "a second prune found more to do"

    def _require_content(self, name: str, known: Snapshot) -> None:
        snapshot = self._loaded(name)
        if known.parts & self.damaged:
            return
        with Crashing(None).watching(), scratch_directory() as scratch:
            Verification(self.place, snapshot, quiet(), scratch).verify("full")
        media = media_of(self.place, snapshot)
        media.unpack_all(quiet())
        assert {entry.path: entry.sha256 for entry in media.entries()} == known.files
        self.statistics.add("snapshot read")


def run_histories(seeds: range, statistics: Statistics) -> None:
    """Run one history for each seed; the first that fails raises."""
    for seed in seeds:
        try:
            History(seed, statistics).run()
        except BackupError as error:
            raise AssertionError(f"seed {seed}: {error.message}") from error


def statistics_of(seeds: range) -> Statistics:
    """Run histories, and return what happened in them."""
    statistics = Statistics()
    run_histories(seeds, statistics)
    return statistics
