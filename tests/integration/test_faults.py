# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever ends early: no half snapshot, no harm to earlier ones, no mixture on a target, and the next run succeeds."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    ConnectionLost,
    DamageError,
    RepositoryError,
    SpaceError,
    TargetError,
    ToolError,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils import archiving
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import StreamedSession
from tests.support import faults
from tests.support.faults import ON_HOST, require_nothing_unfinished, require_sound, seeded, soaking, stored_state
from tests.support.hosts.bench import HostBench
from tests.support.hosts.commands import execute
from tests.support.hosts.host import Host
from tests.support.instances import MadeInstance, files_below
from tests.support.playbooks import PlaybookRun, Playbooks
from tests.support.snapshots import local_agent, place_in, put_back, take

pytestmark = [pytest.mark.soak] if soaking() else []

#: The name of an instance in its repository.
NAME = "one"


@pytest.fixture(scope="module")
def small_instance(tmp_path_factory: pytest.TempPathFactory) -> MadeInstance:
    return faults.make_instance(tmp_path_factory.mktemp("small") / "source", documents=4)


@pytest.fixture
def repository(small_instance: MadeInstance, tmp_path: Path) -> InstanceDirectory:
    """A repository that holds one snapshot of the small instance."""
    place = place_in(tmp_path / "repository", NAME)
    take(small_instance, place)
    return place


def copy_of(place: InstanceDirectory, directory: Path) -> InstanceDirectory:
    """Copy a whole repository; the copy can be spoilt."""
    shutil.copytree(place.path.parent, directory)
    return place_in(directory, place.name)


def some(steps: list[int], sure: list[int], count: int, name: str) -> list[int]:
    """Choose steps: all in the soak, else the sure ones and so many others."""
    if soaking():
        return steps
    others = [step for step in steps if step not in sure]
    return sorted([*sure, *seeded(name).sample(others, min(count, len(others)))])


# -- a controller that is killed at a step of a create -----------------------------------------------------------------


def test_a_create_killed_before_any_step_in_the_repository_leaves_no_half_snapshot(
    small_instance: MadeInstance, repository: InstanceDirectory, tmp_path: Path
) -> None:
    source = small_instance
    # So that there is a part to be made.
    source.write(b"results/new", tmp_path.name.encode())
    log = tmp_path / "steps"
    arguments = (NAME, str(source.media), str(source.database))
    undisturbed = copy_of(repository, tmp_path / "undisturbed")
    watched = undisturbed.path.parent
    run = faults.controller("take", 0, watched, log, str(watched), *arguments)
    assert run.returncode == 0, run.stderr
    steps = faults.logged_steps(log)
    renames = [number for number, step in enumerate(steps, 1) if "os.rename" in step]
    assert len(renames) == 3, steps
    before = stored_state(repository)

    for number in some(list(range(1, len(steps) + 1)), renames, 4, "create steps"):
        place = copy_of(repository, tmp_path / f"step-{number}")
        parent = place.path.parent
        run = faults.controller("take", number, parent, None, str(parent), *arguments)
        assert run.returncode == -signal.SIGKILL, (number, steps[number - 1], run.stderr)
        found = require_sound(place, before)
        assert len(found) == (1 if number <= renames[-1] else 2), (number, steps[number - 1])
        # The killed run's agent may still be about to end.
        faults.waited(lambda: not faults.own_leftovers(source.root), 5.0)

        made = take(source, place)

        assert require_sound(place, before) == [*found, made["id"]]
        claimed = [path for path in place.incoming_path.iterdir() if path.is_dir()]
        if claimed:
            # Killed before it could say by whom it was claimed: for a minute this might be another machine's.
            assert [list(path.iterdir()) for path in claimed] == [[]], (number, steps[number - 1])
            os.utime(claimed[0], (0, 0))
            found.append(made["id"])
            made = take(source, place)
        assert os.listdir(place.incoming_path) == [], (number, steps[number - 1])
        assert faults.own_leftovers(source.root) == []
        assert len(place.history.committed()) == len(found) + 1
        shutil.rmtree(parent)


def test_an_agent_killed_at_a_step_of_a_create_leaves_nothing_that_the_next_does_not_remove(
    small_instance: MadeInstance, repository: InstanceDirectory, tmp_path: Path
) -> None:
    log = tmp_path / "steps"
    source = small_instance
    with local_agent(faults.agent_that_stops_at(tmp_path, 0, source.root, log)) as session:
        take(source, repository, session)
    steps = faults.logged_steps(log)
    before = stored_state(repository)
    assert any(".papermerge-backup.copy-" in step for step in steps), steps

    for number in some(list(range(1, len(steps) + 1)), [len(steps) - 1], 2, "agent steps"):
        with pytest.raises(ConnectionLost) as lost:  # noqa: SIM117
            with local_agent(faults.agent_that_stops_at(tmp_path, number, source.root)) as session:
                take(source, repository, session)
        assert "here" in lost.value.message
        assert stored_state(repository) == before
        require_nothing_unfinished(repository)

        take(source, repository)

        assert faults.own_leftovers(source.root) == []
        before = stored_state(repository)
    require_sound(repository)


# -- a restore that is killed at a step --------------------------------------------------------------------------------


@dataclass
class Target:
    """A place to restore to. ``kind``: absent, an empty directory, or a mount point."""

    root: Path
    source: MadeInstance
    kind: str = "absent"

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.media = self.root / "media"
        # Beside the media directory, or elsewhere.
        self.database = self.root / "db.sqlite3" if self.kind == "empty" else self.root / "db" / "db.sqlite3"
        if self.kind != "absent":
            self.database.parent.mkdir(exist_ok=True)
            self.media.mkdir(mode=0o750)
        if self.kind == "mounted":
            execute(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0750", "tmpfs", self.media])

    def remove(self) -> None:
        if self.kind == "mounted" and os.path.ismount(self.media):
            execute(["umount", "--lazy", self.media])
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def state(self) -> str:
        """untouched, complete, or journalled; whatever else there may be is a mixture."""
        media = files_below(self.media) if self.media.is_dir() else {}
        visible = {path: found for path, found in media.items() if not path.startswith(b".papermerge-backup.")}
        journals = [path for path in faults.own_leftovers(self.root) if (Path(path) / "journal.json").is_file()]
        if self.database.exists() and visible == files_below(self.source.media):
            return "complete" if self.rows() else "mixture"
        if not self.database.exists() and not visible:
            return "untouched"
        return "journalled" if journals and not self.database.exists() else "mixture"

    def rows(self) -> bool:
        """Tell whether the database's content is the source's."""
        dumps = [
            execute(["sqlite3", "-readonly", str(path), ".dump"]).stdout
            for path in (self.database, self.source.database)
        ]
        return dumps[0] == dumps[1]

    def require_complete(self) -> None:
        assert self.state == "complete"
        assert faults.own_leftovers(self.root) == []


TargetMaker = Callable[..., Target]


@pytest.fixture
def target_at(small_instance: MadeInstance, tmp_path: Path) -> Iterator[TargetMaker]:
    """Makes targets of a name and a kind for the small instance."""
    with ExitStack() as made:

        def make(name: str, kind: str = "absent") -> Target:
            target = Target(tmp_path / name, small_instance, kind)
            made.callback(target.remove)
            return target

        yield make


def restore_until_complete(repository: InstanceDirectory, target: Target) -> None:
    """Run the next restore: it succeeds, or refuses a target that is complete already; either way nothing is left."""
    if target.state == "complete":
        with pytest.raises(TargetError, match="not empty"):
            put_back(repository, target.media, target.database)
    else:
        put_back(repository, target.media, target.database)
    target.require_complete()


@pytest.mark.parametrize("kind", ["absent", "empty", "mounted"])
def test_an_agent_killed_at_a_step_of_a_restore_leaves_no_mixture_and_the_next_restore_succeeds(
    repository: InstanceDirectory, target_at: TargetMaker, tmp_path: Path, kind: str
) -> None:
    log = tmp_path / "steps"
    undisturbed = target_at("undisturbed", kind)
    with local_agent(faults.agent_that_stops_at(tmp_path, 0, undisturbed.root, log)) as session:
        put_back(repository, undisturbed.media, undisturbed.database, session)
    undisturbed.require_complete()
    undisturbed.remove()
    steps = faults.logged_steps(log)
    journal = next(number for number, step in enumerate(steps, 1) if "journal.json" in step)
    renames = [number for number, step in enumerate(steps, 1) if "os.rename" in step]
    assert renames[-1] > renames[0] > journal
    # Before the journal, before and after each rename, and somewhere else.
    sure = sorted({journal, journal + 1, *renames, *(number + 1 for number in renames)})
    seen = set()

    for number in some(list(range(1, len(steps) + 1)), sure, 1, f"restore steps {kind}"):
        target = target_at(f"step-{number}", kind)
        with pytest.raises(ConnectionLost):  # noqa: SIM117
            with local_agent(faults.agent_that_stops_at(tmp_path, number, target.root)) as session:
                put_back(repository, target.media, target.database, session)
        state = target.state
        seen.add(state)
        assert state != "mixture", (number, steps[number - 1])

        restore_until_complete(repository, target)

        target.remove()
    assert seen == {"untouched", "journalled", "complete"}


@pytest.mark.parametrize("kind", ["empty", "mounted"])
def test_an_undo_that_is_killed_as_well_is_undone_by_the_restore_after_it(
    repository: InstanceDirectory, target_at: TargetMaker, tmp_path: Path, kind: str
) -> None:
    log = tmp_path / "steps"
    trial = target_at("trial", kind)
    with local_agent(faults.agent_that_stops_at(tmp_path, 0, trial.root, log)) as session:
        put_back(repository, trial.media, trial.database, session)
    trial.remove()
    steps = faults.logged_steps(log)
    last = max(number for number, step in enumerate(steps, 1) if "os.rename" in step)

    def killed_at(target: Target, stop: int) -> None:
        with pytest.raises(ConnectionLost):  # noqa: SIM117
            with local_agent(faults.agent_that_stops_at(tmp_path, stop, target.root)) as session:
                put_back(repository, target.media, target.database, session)
        assert target.state in ("untouched", "journalled"), stop

    trial = target_at("second trial", kind)
    killed_at(trial, last)
    log.unlink()
    with local_agent(faults.agent_that_stops_at(tmp_path, 0, trial.root, log)) as session:
        put_back(repository, trial.media, trial.database, session)
    steps = faults.logged_steps(log)
    # Up to where the next restore begins.
    undone = next(number for number, step in enumerate(steps, 1) if "mkdir" in step and ".restore-" in step)
    removals = [number for number, step in enumerate(steps[:undone], 1) if "os.rmdir" in step]
    sure = sorted({*removals, *(number + 1 for number in removals)})

    for number in some(list(range(1, undone + 1)), sure, 2, f"undo {kind}"):
        target = target_at(f"step-{number}", kind)
        killed_at(target, last)
        killed_at(target, number)

        restore_until_complete(repository, target)

        target.remove()


def test_a_controller_killed_during_a_restore_leaves_an_agent_that_undoes_or_finishes(
    small_instance: MadeInstance, repository: InstanceDirectory, target_at: TargetMaker, tmp_path: Path
) -> None:
    chooser = seeded("restore moments")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def start(target: Target) -> Any:
        arguments = (str(repository.path.parent), NAME, str(target.media), str(target.database))
        return faults.start_controller("put_back", *arguments, environment={"TMPDIR": str(scratch)})

    begun = time.monotonic()
    undisturbed = start(target_at("undisturbed"))
    assert undisturbed.wait(60) == 0, undisturbed.communicate()
    usual = time.monotonic() - begun
    count = 40 if soaking() else 4
    for number in range(count):
        target = target_at(f"moment-{number}")
        process = start(target)
        time.sleep(usual * (0.4 + 0.6 * (number + chooser.random()) / count))
        process.kill()
        process.communicate()
        # The agent hears the end of its input, and undoes or, where it has begun to rename, finishes.
        faults.waited(lambda: not faults.own_leftovers(target.root), 5.0)  # noqa: B023
        assert target.state in ("untouched", "complete")

        restore_until_complete(repository, target)

    last = start(target_at("last"))
    assert last.wait(60) == 0, last.communicate()
    assert list(scratch.iterdir()) == []


# -- a repository without room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressing", ["host", "controller"])
def test_a_repository_that_fills_up_fails_the_create_and_the_next_succeeds_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressing: str
) -> None:
    monkeypatch.setattr(archiving, "PART_CONTENT_BYTES", 200_000)
    source = faults.make_instance(tmp_path / "source", documents=150, document_bytes=4000, database_bytes=1 << 20)
    disk = tmp_path / "disk"
    python = sys.executable if compressing == "host" else faults.interpreter_without_zstd(tmp_path)

    def attempt(place: InstanceDirectory) -> dict[str, Any]:
        with local_agent(python) as session:
            return take(source, place, session)

    with faults.small_disk(disk, 12_000):
        place = place_in(disk / "repository", NAME)
        attempt(place)
        needed = sum(path.stat().st_size for path in place.path.rglob("*") if path.is_file())
        for number in range(150):
            source.write(b"docs/user_1/document_%d/scan.pdf" % (10 + number), os.urandom(4000))
        before = stored_state(place)
        kept = shutil.copytree(place.path, tmp_path / "kept")
        chooser = seeded(f"full {compressing}")
        failed = set()
        count = 40 if soaking() else 5
        sizes = [0, 4096, *(int(needed * 1.25 * (n + chooser.random()) / count) for n in range(count))]
        for free in sizes:
            ballast = faults.leave_free(disk, free)
            names = place.snapshot_names()
            try:
                attempt(place)
            except BackupError as error:
                assert isinstance(error, (SpaceError, RepositoryError)), error
                assert re.search("No space left on device|disk is full", error.message), error.message
                assert str(disk) in error.message, error.message
                failed.add(
                    re.sub(
                        r".*(database\.sqlite3|\.tar|\.json|index|manifest|scratch|lock|incoming).*",
                        r"\1",
                        error.message.replace(str(tmp_path), ""),
                    )
                )
                assert place.snapshot_names() == names
                require_nothing_unfinished(place)
                ballast.unlink()
                attempt(place)
            ballast.unlink(missing_ok=True)
            require_sound(place, before)
            # Only the first stays, so that the disk is large enough for all attempts.
            faults.reset(place, kept)
        print(failed)
        assert len(failed) >= 2, failed


def test_a_repository_whose_disk_fails_in_the_middle_fails_the_create(tmp_path: Path) -> None:
    source = faults.make_instance(tmp_path / "source", documents=4, large_files=6)
    disk = tmp_path / "disk"
    moments: list[Callable[[InstanceDirectory], bool]] = [
        lambda place: any(place.incoming_path.glob("*/*.sqlite3.zst")),
        lambda place: any(path.stat().st_size > 10_000_000 for path in place.incoming_path.glob("*/*.tar.zst")),
    ]
    for moment in moments:
        with faults.small_disk(disk, 200_000, "ext4"):
            place = place_in(disk / "repository", NAME)
            take(source, place)
            for number in range(6):
                source.write(b"results/large_%d" % number, os.urandom(8_000_000))
            before = stored_state(place)
            thread = threading.Thread(target=_break_disk, args=(disk, place, moment))
            thread.start()
            with pytest.raises(RepositoryError, match=r"Read-only file system|Input/output error") as failure:
                take(source, place)
            thread.join()
            assert str(disk) in failure.value.message
            assert len(require_sound(place, before)) == 1


def _break_disk(disk: Path, place: InstanceDirectory, moment: Callable[[InstanceDirectory], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        try:
            if moment(place):
                faults.disk_error(disk)
                return
        except OSError:
            continue


# -- a compressor that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", faults.COMPRESSORS)
def test_a_compressor_that_fails_on_the_host_fails_the_create(
    small_instance: MadeInstance, repository: InstanceDirectory, tmp_path: Path, fault: str
) -> None:
    before = stored_state(repository)
    # So that there is a part to be made.
    small_instance.write(b"results/new", os.urandom(20_000))
    environment = faults.compressor_that(tmp_path / "bin", fault)
    command = ["/bin/sh", "-c", agent_command(sys.executable)]

    with pytest.raises((ToolError, DamageError)) as failure:  # noqa: SIM117
        with StreamedSession(command, "here", environment=environment) as session:
            take(small_instance, repository, session)

    assert "zstd" in failure.value.message
    assert stored_state(repository) == before
    require_nothing_unfinished(repository)
    assert faults.own_leftovers(small_instance.root) == []
    take(small_instance, repository)
    require_sound(repository, before)


# -- SIGKILL during a create over ssh and sudo -------------------------------------------------------------------------

#: What stands in the repository from some step of a create on.
POINTS = {
    "claimed": "incoming/*",
    "database begun": "incoming/*/database.sqlite3.zst",
    "part begun": "incoming/*/*.tar.zst",
    "record written": "incoming/*/*.json.zst",
    "index written": "incoming/*/index.jsonl.zst",
    "manifest written": "incoming/*/manifest.json",
    "part in its place": "parts/*.tar.zst",
    "published": "snapshots/*",
}


@dataclass
class Killing:
    """A host with an instance, and a repository with its first snapshot, for runs that are killed."""

    host: Host
    playbooks: Playbooks
    scratch: Path

    def __post_init__(self) -> None:
        self.inventory = {NAME: {**self.host.inventory(), "ansible_become": True, **faults.settings_on_host()}}
        self.scratch.mkdir(parents=True)
        self.place = place_in(self.playbooks.repository, NAME)
        self.transfer = "auto"

    def begin(self, transfer: str) -> None:
        """Make the first snapshot, and measure."""
        self.transfer = transfer
        self.usual_speed()
        begun = time.monotonic()
        run = self.start()
        first = last = 0.0
        while run.poll() is None:
            time.sleep(0.02)
            if faults.find_victim(run.pid, self.host, "agent"):
                last = time.monotonic() - begun
                first = first or last
        self.usual, self.agent_seconds = time.monotonic() - begun, last - first
        finished = self.playbooks.finish(run)
        assert finished.status == 0, str(finished)
        # So that the following runs have parts to make.
        self.host.run(["cp", "-a", f"{ON_HOST}/media", f"{ON_HOST}/more"])
        self.host.run(["mv", f"{ON_HOST}/more", f"{ON_HOST}/media/results/more"])
        # After it, because the first login of a user leaves its traces, too.
        self.before = faults.HostState.of(self.host)
        self.first = stored_state(self.place)
        self.kept = shutil.copytree(self.place.path, self.scratch.with_name(f"{self.scratch.name}-kept"))

    def usual_speed(self) -> None:
        """Make the link as fast as it was measured with: streamed, a little slow, so that steps take some time."""
        if self.transfer == "streamed":
            self.host.slow("300mbit")
        else:
            self.host.full_speed()

    def start(self) -> Any:
        extra = {"papermerge_backup_transfer": self.transfer}
        environment = {"TMPDIR": str(self.scratch), "ANSIBLE_SSH_ARGS": "-o ControlMaster=no"}
        return self.playbooks.start("create", self.inventory, extra=extra, environment=environment)

    def succeed(self) -> None:
        begun = time.monotonic()
        run = self.playbooks.finish(self.start())
        assert run.status == 0, str(run)
        assert time.monotonic() - begun < 60

    def forget_newer(self) -> None:
        """Go back to the first snapshot, to keep the repository small."""
        faults.reset(self.place, self.kept)

    def kill_once(self, victim: faults.Victim, when: float | str) -> str:
        """Kill one process of a run, check everything, and run the next create. Returns what happened.

        ``when``: a step of POINTS, or a share: of the whole run for the controller, of the agent's life for the others.
        """
        old = set(self.place.path.rglob("*"))
        begun = time.monotonic()
        if victim == "controller" and when in ("claimed", "database begun", "part begun"):
            # So slow that whoever goes on without the controller is still at it when we look.
            self.host.slow("4mbit")
        run = self.start()
        found: tuple[Host | None, int] | None = (None, run.pid)
        if victim != "controller":
            found = None
            while run.poll() is None and not (found := faults.find_victim(run.pid, self.host, victim)):
                time.sleep(0.01)
        if isinstance(when, float):
            time.sleep(when * (self.usual if victim == "controller" else self.agent_seconds))
            # Staged, there is one after another.
            while victim != "controller" and run.poll() is None:
                if found := faults.find_victim(run.pid, self.host, victim):
                    break
        else:
            while run.poll() is None and all(path in old for path in self.place.path.glob(POINTS[when])):
                time.sleep(0.0005)
        if isinstance(when, float) and run.poll() is not None and when > 0.1:
            # Faster than the measured run: again, a little earlier.
            assert self.ended(run).status == 0
            self.forget_newer()
            return self.kill_once(victim, when * 0.85)
        hit = ""
        if run.poll() is None and found:
            hit = f"{victim} at {when} after {time.monotonic() - begun:.2f} s"
            below = faults.descendants(run.pid)
            faults.end(found)
            try:
                run.wait(30)
            except subprocess.TimeoutExpired:
                # Ansible waits for the rest of what a worker was telling it when it was killed.
                assert victim == "worker", hit
                run.kill()
                hit += ", and Ansible had to be killed"
            faults.waited(lambda: not faults.still_running(below), 5.0, f"{hit}: {below} went on")
        self.usual_speed()
        finished = self.ended(run)
        listed = require_sound(self.place, self.first, "full")
        assert finished.status == 0 or hit, str(finished)
        assert len(listed) in (1, 2)
        if finished.status == 0:
            assert len(listed) == 2, f"{hit}: success without a snapshot\n{finished}"
        elif victim in ("agent", "ssh client"):
            words = "connection was lost|could not be started|staging command failed"
            assert re.search(words, finished.output), f"{hit}\n{finished}"
        assert "Traceback" not in str(finished)

        self.succeed()

        assert require_sound(self.place, self.first, "full")[: len(listed)] == listed
        assert len(self.place.snapshot_names()) == len(listed) + 1, hit
        require_nothing_unfinished(self.place)
        self.before.require_same(self.host)
        assert list(self.scratch.iterdir()) == [], hit
        self.forget_newer()
        return f"{hit or 'nothing hit'}: status {finished.status}, {len(listed) - 1} committed"

    @staticmethod
    def ended(run: Any) -> PlaybookRun:
        run.wait(90)
        output, errors = run.communicate(timeout=90)
        return PlaybookRun(run.returncode, output, errors)


@pytest.fixture(scope="module")
def killing_instance(tmp_path_factory: pytest.TempPathFactory) -> MadeInstance:
    """Large enough for every step of a create to take some time."""
    root = tmp_path_factory.mktemp("killing") / "source"
    return faults.make_instance(root, documents=300, large_files=3, database_bytes=6 << 20)


@pytest.mark.parametrize("transfer", ["streamed", "staged"])
def test_a_create_killed_at_any_moment_leaves_nothing_behind_and_the_next_succeeds(
    host_bench: HostBench, killing_instance: MadeInstance, tmp_path: Path, transfer: str
) -> None:
    chooser = seeded(f"kill {transfer}")
    victims = faults.VICTIMS if transfer == "streamed" or soaking() else ("controller", "agent")
    moments = {"streamed": (5, 50), "staged": (2, 12)}[transfer][soaking()]
    cases: list[tuple[faults.Victim, float | str]] = [
        (victims[number % len(victims)], (number + chooser.random()) / moments) for number in range(moments)
    ]
    if soaking():
        cases += [(victim, point) for point in POINTS for victim in faults.VICTIMS]
    elif transfer == "streamed":
        cases += [("worker", "manifest written"), ("controller", "database begun")]
    hosts = host_bench.start_many([f"kill-{transfer}-{number}" for number in (1, 2)])
    try:
        killings = [Killing(host, Playbooks(tmp_path / host.name), tmp_path / f"scratch-{host.name}") for host in hosts]

        def work(killing: Killing, mine: list[tuple[faults.Victim, float | str]]) -> None:
            faults.put_on(killing.host, killing_instance)
            killing.begin(transfer)
            print(f"undisturbed: {killing.usual:.1f} s, its agent {killing.agent_seconds:.1f} s", flush=True)
            for victim, when in mine:
                print(f"[{transfer}] {killing.kill_once(victim, when)}", flush=True)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work, killing, cases[n::2]) for n, killing in enumerate(killings)]:
                done.result()
    finally:
        for host in hosts:
            host_bench.remove(host)


# -- connections that are cut ------------------------------------------------------------------------------------------


def test_a_connection_that_ends_after_some_bytes_fails_the_create_and_leaves_nothing(
    host_bench: HostBench, tmp_path: Path
) -> None:
    host = host_bench.start("proxied")
    try:
        faults.put_on(host, faults.make_instance(tmp_path / "source", documents=300, database_bytes=1 << 20))
        place = place_in(tmp_path / "repository", NAME)

        def attempt(limit: int | None, reset: bool = False) -> int:
            with faults.CuttingProxy(host.address, 22, limit, reset) as proxy:
                with faults.agent_on(host, proxy.port, address="127.0.0.1") as session:
                    create_snapshot(session, place, faults.request_on_host(NAME), faults.silent())
                return proxy.passed

        attempt(None)
        faults.add_files(host, "more")
        total = attempt(None)
        before = stored_state(place)
        chooser = seeded("proxy")
        count = 60 if soaking() else 6
        for number in range(count):
            faults.add_files(host, f"more-{number}")
            state = faults.HostState.of(host)
            limit = int(total * (number + chooser.random()) / count)
            with pytest.raises(BackupError) as lost:
                attempt(limit, reset=bool(number % 2))
            assert lost.value.kind == "connection", (limit, lost.value)
            assert lost.value.message.startswith("proxied: "), (limit, lost.value)
            assert stored_state(place) == before
            require_nothing_unfinished(place)
            state.require_same(host)
        attempt(None)
        require_sound(place, before)
    finally:
        host_bench.remove(host)


@dataclass
class Silence:
    """A host that falls silent in the middle of a run, and what became of it. Times in seconds after that."""

    host: Host
    case: str
    directory: Path
    instance: MadeInstance
    noticed: float = -1.0
    agent_gone: float = -1.0
    message: str = ""
    scanning: bool = False

    def run(self) -> None:
        case = self.case
        place = place_in(self.directory / "repository", NAME)
        request = faults.request_on_host(NAME)
        faults.put_on(self.host, self.instance)
        with faults.agent_on(self.host) as session:
            create_snapshot(session, place, request, faults.silent())
        faults.add_files(self.host, "more")
        before = stored_state(place)
        state = faults.HostState.of(self.host)
        if case != "scan":
            self.host.slow("20mbit")
        fault = self.host.freeze if case == "frozen" else self.host.cut
        inside: Callable[[], bool] = {
            "dump": lambda: _larger(place, "incoming/*/database.sqlite3.zst", 500_000),
            "scan": lambda: self.scanning,
            "part": lambda: _larger(place, "incoming/*/*.tar.zst", 500_000),
            "frozen": lambda: _larger(place, "incoming/*/*.tar.zst", 500_000),
            "playbook": lambda: _larger(place, "incoming/*/*.tar.zst", 500_000),
            "restore": lambda: _larger_target(self.host, 500_000),
        }[case]
        work = {"restore": self._restore, "playbook": self._playbook}.get(case, self._create)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(work, place)
            faults.waited(lambda: inside() or running.done(), 60.0, f"{case} never began")
            assert not running.done(), running.result()
            time.sleep(0.5)
            fault()
            begun = time.monotonic()
            while not running.done() or (self.agent_gone < 0 and case != "frozen"):
                assert time.monotonic() - begun < 120, f"{case}: {self}"
                if running.done() and self.noticed < 0:
                    self.noticed = time.monotonic() - begun
                if self.agent_gone < 0 and case != "frozen" and not faults.agents_on(self.host):
                    self.agent_gone = time.monotonic() - begun
                time.sleep(0.5)
            self.noticed = self.noticed if self.noticed >= 0 else time.monotonic() - begun
            self.message = running.result()
        self.host.heal()
        if case == "frozen":
            begun = time.monotonic()
            faults.waited(lambda: not faults.agents_on(self.host), 60.0)
            self.agent_gone = time.monotonic() - begun
        else:
            # What the agent has made was gone when it ended, not when the cable was back.
            state.require_same(self.host)
        require_sound(place, before)
        assert len(place.snapshot_names()) == 1
        require_nothing_unfinished(place)
        with faults.agent_on(self.host) as session:
            create_snapshot(session, place, request, faults.silent())
        state.require_same(self.host)
        require_sound(place, before)

    def _create(self, place: InstanceDirectory) -> str:
        progress = faults.silent()
        begin = progress.begin

        def noticing(step: str, *arguments: Any, **named: Any) -> None:
            begin(step, *arguments, **named)
            if (self.case, step) == ("scan", "scan"):
                self.host.slow("200kbit")
                self.scanning = True

        progress.begin = noticing  # type: ignore[method-assign]
        return _message_of(lambda: self._created(place, progress))

    def _created(self, place: InstanceDirectory, progress: Any) -> None:
        with faults.agent_on(self.host) as session:
            create_snapshot(session, place, faults.request_on_host(NAME), progress)

    def _restore(self, place: InstanceDirectory) -> str:
        return _message_of(lambda: restore_on(self.host, place))

    def _playbook(self, place: InstanceDirectory) -> str:
        playbooks = Playbooks(self.directory / "home")
        inventory = {self.host.name: {**self.host.inventory(), "ansible_become": True, **faults.settings_on_host()}}
        extra = {"papermerge_backup_repository": place.path.parent, "papermerge_backup_instance": NAME}
        run = playbooks.run("create", inventory, extra=extra)
        assert run.status == 2, str(run)
        assert run.results() == {self.host.name: "unreachable"}, str(run)
        return f"{self.host.name}: {run.message(self.host.name).removeprefix(f'{self.host.name}: ')}"


def _message_of(work: Callable[[], object]) -> str:
    with pytest.raises(ConnectionLost) as lost:
        work()
    return lost.value.message


def _larger(place: InstanceDirectory, pattern: str, size: int) -> bool:
    try:
        return any(path.stat().st_size > size for path in place.path.glob(pattern))
    except OSError:
        return False


TARGET = "/srv/target"


def restore_on(host: Host, place: InstanceDirectory) -> None:
    """Restore the newest snapshot to TARGET on a host."""
    with faults.agent_on(host) as session:
        put_back(place, Path(TARGET, "media"), Path(TARGET, "db/db.sqlite3"), session)


def _larger_target(host: Host, size: int) -> bool:
    """Tell whether a restore on a host has unpacked so much of its large file."""
    try:
        found = (host.root / TARGET[1:]).glob(".papermerge-backup.restore-*/media/results/large_0")
        return any(path.stat().st_size > size for path in found)
    except OSError:
        return False


SILENCES = ("dump", "scan", "part", "frozen", "playbook", "restore")
_SILENCES: dict[str, Silence] = {}


def _fall_silent(case: str) -> dict[str, Any]:
    """Run a case in a process of its own, which has got _SILENCES from this one."""
    silence = _SILENCES[case]
    silence.run()
    return {name: getattr(silence, name) for name in ("message", "noticed", "agent_gone")}


@pytest.fixture(scope="module")
def silences(
    host_bench: HostBench, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """All the cases at once: each waits for most of a minute. Processes, because threads would take turns."""
    directory = tmp_path_factory.mktemp("silences")
    instance = faults.make_instance(directory / "source", documents=1500, large_files=1, database_bytes=8 << 20)
    hosts = host_bench.start_many([f"silent-{case}" for case in SILENCES])
    try:
        for case, host in zip(SILENCES, hosts, strict=True):
            _SILENCES[case] = Silence(host, case, directory / case, instance)
        with ProcessPoolExecutor(len(SILENCES), mp_context=multiprocessing.get_context("fork")) as pool:
            yield {case: pool.submit(_fall_silent, case) for case in SILENCES}
    finally:
        for host in hosts:
            host_bench.remove(host)


@pytest.fixture(scope="module", autouse=True)
def begin_to_wait_early(request: pytest.FixtureRequest) -> None:
    """Let those cases wait while other tests run."""
    if any("silences" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("silences")


@pytest.mark.parametrize("case", SILENCES)
def test_a_host_that_falls_silent_is_noticed_on_both_sides_within_a_minute(
    silences: dict[str, Future[dict[str, Any]]], case: str
) -> None:
    silence = silences[case].result()

    print(case, silence)
    assert silence["message"].startswith(f"silent-{case}: ")
    assert re.search("nothing heard|not responding|connection was lost", silence["message"])
    assert 0 <= silence["noticed"] < 60
    assert 0 <= silence["agent_gone"] < 60


# -- power cuts --------------------------------------------------------------------------------------------------------


def test_a_power_cut_in_a_create_or_a_restore_leaves_nothing_that_the_next_run_does_not_clear_up(
    host_bench: HostBench, tmp_path: Path
) -> None:
    host = host_bench.start("powerless")
    try:
        instance = faults.make_instance(tmp_path / "source", documents=300, large_files=1, database_bytes=4 << 20)
        faults.put_on(host, instance)
        place = place_in(tmp_path / "repository", NAME)

        def make() -> None:
            with faults.agent_on(host) as session:
                create_snapshot(session, place, faults.request_on_host(NAME), faults.silent())

        make()
        before = stored_state(place)
        cuts: list[tuple[Callable[[], None], Callable[[], bool]]] = [
            (make, lambda: _larger(place, "incoming/*/database.sqlite3.zst", 300_000)),
            (make, lambda: _larger(place, "incoming/*/*.tar.zst", 300_000)),
            (lambda: restore_on(host, place), lambda: _larger_target(host, 300_000)),
        ]
        for number, (work, inside) in enumerate(cuts * (5 if soaking() else 1)):
            if work is make:
                faults.add_files(host, f"more-{number}")
            state = faults.HostState.of(host)
            host.slow("40mbit")
            host.run(["rm", "-rf", TARGET])
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(_message_of, work)
                faults.waited(lambda: inside() or running.done(), 60.0)  # noqa: B023
                host.power_cut()
                assert running.result(60).startswith("powerless: ")
            host.boot()
            host.full_speed()
            assert stored_state(place) == before
            require_nothing_unfinished(place)
            make()
            if work is make:
                state.require_same(host)
            else:
                restore_on(host, place)
                target = host.root / TARGET[1:]
                assert files_below(target / "media") == files_below(host.root / f"{ON_HOST[1:]}/media")
                assert faults.own_leftovers(target) == []
            require_sound(place, before)
            before = stored_state(place)
    finally:
        host_bench.remove(host)


# -- a host without room -----------------------------------------------------------------------------------------------


def test_a_host_without_room_for_the_copy_fails_the_create_and_is_left_as_it_was(
    host_bench: HostBench, tmp_path: Path
) -> None:
    host = host_bench.start("full")
    try:
        instance = faults.make_instance(tmp_path / "source", database_bytes=12 << 20)
        faults.put_on(host, instance)
        place = place_in(tmp_path / "repository", NAME)
        db = f"{ON_HOST}/db"

        def attempt(copy_dir: str | None = None, interpreter: str | None = None) -> None:
            request = faults.request_on_host(NAME)
            request.copy_dir = copy_dir
            with faults.agent_on(host, interpreter=interpreter) as session:
                create_snapshot(session, place, request, faults.silent())

        attempt()
        before, state = stored_state(place), faults.HostState.of(host)

        def refused(words: str, **how: Any) -> None:
            with pytest.raises(SpaceError, match=words):
                attempt(**how)
            assert stored_state(place) == before
            require_nothing_unfinished(place)
            assert [name for name in host.files_under(db, "/dev/shm") if ".papermerge-backup" in name] == []

        refused("/dev/shm is on a tmpfs.*papermerge_backup_copy_dir", copy_dir="/dev/shm")
        with host.small_filesystem(db, 20):
            host.put(f"{db}/db.sqlite3", instance.database.read_bytes(), owner="papermerge")
            refused("the copy of database .* needs [0-9,]+ bytes in .*, which has [0-9,]+ free")
        with host.small_filesystem(db, 40):
            host.put(f"{db}/db.sqlite3", instance.database.read_bytes(), owner="papermerge")
            fill = f"head -c 40000000 /dev/zero >{db}/ballast 2>/dev/null; true"
            prelude = f"_run_when('.papermerge-backup.copy', [{db!r}], {fill!r})"
            host.put("/opt/python-that-fills-up", faults.interpreter_text(prelude), mode=0o755)
            refused("No space left on device", interpreter="/opt/python-that-fills-up")
            prelude = f"_run_when('sqlite3.connect {db}/.papermerge', [{db!r}], {fill!r})"
            host.put("/opt/python-that-fills-up", faults.interpreter_text(prelude), mode=0o755)
            host.run(["rm", f"{db}/ballast"])
            refused("no room for the copy of database", interpreter="/opt/python-that-fills-up")
            host.run(["rm", f"{db}/ballast"])
            attempt()
        attempt(copy_dir="/var/tmp")
        state.require_same(host)
        require_sound(place, before)
    finally:
        host_bench.remove(host)
