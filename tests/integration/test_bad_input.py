# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input, caused for real: the message names the thing, its place and what to do, and nothing has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.papermerge_on_hosts import PROJECT, Source, agents
from tests.support.hosts.bench import HostBench
from tests.support.hosts.commands import execute
from tests.support.hosts.host import Host
from tests.support.playbooks import PlaybookRun, Playbooks, tree

CASES = "/srv/cases"
"""Each case has a project of its own below this directory."""
GONE = {"ansible_host": "127.0.0.1", "ansible_port": 1}
"""A host that would not answer."""

HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin exclusive")
print("held")
sys.stdin.readline()
"""


def contents(directory: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Names, modes and contents of everything below a directory but locks, with the times of files."""
    return {
        name: (mode, content if stat.S_ISDIR(mode) else f"{time} {hashlib.sha256(content).hexdigest()}")
        if isinstance(content, bytes)
        else (mode, content)
        for name, (mode, time, content) in tree(directory, "lock").items()
    }


def assert_said(run: PlaybookRun, host: str, says: tuple[str, ...], result: str = "failed") -> None:
    """The table has the host with this result, the message has all of this in it, and nobody saw a traceback."""
    assert run.row(host)["result"] == result, str(run)
    message = run.message(host)
    for text in says:
        assert text in message, message
    assert not run.says("Traceback")
    assert run.status != 0


def commit_again(instance: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of an instance's only snapshot as if it had been committed like that."""
    (manifest,) = (instance / "snapshots").glob("*/manifest.json")
    fields = json.loads(manifest.read_bytes())
    change(fields)
    text = (json.dumps(fields, indent=1) + "\n").encode("ascii")
    manifest.write_bytes(text)
    sha256 = hashlib.sha256(text).hexdigest()
    manifest.with_name("manifest.json.sha256").write_text(f"{sha256}  manifest.json\n", encoding="ascii")
    history = instance / "history.jsonl"
    (row,) = map(json.loads, history.read_text(encoding="ascii").splitlines())
    history.write_text(json.dumps({**row, "manifest_sha256": sha256}) + "\n", encoding="ascii")


def copy_instance(source: Path, repository: Path, name: str) -> Path:
    """Copy an instance with one snapshot to another name, and make its manifest right for that."""
    instance = repository / name
    shutil.copytree(source, instance)
    commit_again(instance, lambda fields: fields.update(instance=name))
    return instance


# -- creating ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """How a good instance becomes a bad one: a shell command in its project, or variables; and what is to be said.

    `{here}` stands for the project.
    """

    says: tuple[str, ...]
    spoil: str = "true"
    variables: dict[str, Any] = dataclasses.field(default_factory=dict)
    user: str = "admin"
    result: str = "failed"


DATABASE = "{here}/db.sqlite3"
FIRST = "media-missing"
"""The instance that is really backed up before; the others start with a copy of its snapshot."""
CREATE_CASES: dict[str, Case] = {
    "media-missing": Case(
        (
            "media directory {here}/media (default of project {here}) does not exist",
            "set papermerge_backup_media_root, or mount what belongs there",
        ),
        "rm -rf media",
    ),
    "media-empty": Case(
        ("media directory {here}/media", "is empty, but the database expects", "is it mounted?"),
        "rm -rf media/*",
    ),
    "media-is-a-file": Case(
        ("media directory {here}/media (default of project {here}) is not a directory", "set papermerge_backup_media"),
        "rm -rf media; echo >media",
    ),
    "link-out": Case(
        (
            "docs/way-out in media directory {here}/media is a link to /etc/passwd, outside of it",
            "add the target's directory to papermerge_backup_media_allowed_roots",
        ),
        "ln -s /etc/passwd media/docs/way-out",
    ),
    "directory-link-out": Case(
        ("docs/way-out in media directory {here}/media is a link to ../../../..", "outside of it; remove the link"),
        "ln -s ../../../.. media/docs/way-out",
    ),
    "mount-out": Case(
        ("docs/mounted", "media directory {here}/media", "papermerge_backup_media_allowed_roots"),
        "mkdir media/docs/mounted; mount -t tmpfs tmpfs media/docs/mounted; echo >media/docs/mounted/file",
    ),
    "database-missing": Case(
        (f"database {DATABASE} (default of project {{here}}) does not exist", "set papermerge_backup_database_url"),
        "rm db.sqlite3",
    ),
    "database-is-text": Case(
        (f"database {DATABASE} (default of project {{here}}) is not an SQLite database", "set papermerge_backup_data"),
        "echo 'this is no database at all' >db.sqlite3",
    ),
    "database-empty": Case(
        (f"database {DATABASE} (default of project {{here}}) is empty", "set papermerge_backup_database_url"),
        ": >db.sqlite3",
    ),
    "database-of-another": Case(
        (f"database {DATABASE} is not one of Papermerge 2.0: it has no table", "set papermerge_backup_database_url"),
        "rm db.sqlite3; sqlite3 db.sqlite3 'create table other (x)'",
    ),
    "database-malformed": Case(
        (f"database {DATABASE} is damaged", "repair it (sqlite3's .recover) before it is backed up"),
        "dd if=/dev/urandom of=db.sqlite3 bs=4096 seek=60 count=20 conv=notrunc status=none",
    ),
    "database-cut-short": Case(
        (f"database {DATABASE} is damaged", "repair it (sqlite3's .recover) before it is backed up"),
        "truncate -s 300000 db.sqlite3",
    ),
    "another-engine": Case(
        ("the server cannot be reached", "DBTYPE in {here}/papermerge.conf.py"),
        "echo 'DBTYPE = \"postgres\"' >>papermerge.conf.py",
    ),
    "project-missing": Case(
        ("project directory {here} (papermerge_backup_project_dir) does not exist",),
        "rm -rf {here}",
    ),
    "version-unknown": Case(
        ("no file of {here}", "tells the version of Papermerge", "bears 0099_x", "set papermerge_backup_app_version"),
        "rm -rf .venv/lib/python3.11/site-packages/papermerge_core* && "
        "sqlite3 db.sqlite3 \"update django_migrations set name = '0099_x' where app = 'core'\"",
    ),
    "two-versions": Case(
        ("found several versions of Papermerge: 2.0.1 ({here}/.venv", "2.0.2 ({here}/.venv", "papermerge_backup_app_"),
        "mkdir .venv/lib/python3.11/site-packages/papermerge_core-2.0.1.dist-info",
    ),
    "database-url-unknown": Case(
        ("papermerge_backup_database_url", "oracle"),
        variables={"papermerge_backup_database_url": "oracle://somewhere/db"},
    ),
    "sudo-asks": Case(
        ("sudo: a password is required; set ansible_become_password",),
        user="plain",
    ),
    "sudo-password-wrong": Case(
        ("sudo refused the password; set ansible_become_password",),
        variables={"ansible_become_password": "not this one"},
        user="operator",
    ),
    "sudo-not-allowed": Case(
        ("sudo refused the password; set ansible_become_password",),
        variables={"ansible_become_password": "whatever"},
        user="plain",
    ),
    "sudo-not-allowed-staged": Case(
        ("Missing sudo password",),
        variables={"papermerge_backup_transfer": "staged"},
        user="plain",
    ),
    "no-permission": Case(
        ("cannot make a directory in {here}: ", "Permission denied"),
        variables={"ansible_become": False},
        user="plain",
    ),
    "copy-directory-missing": Case(
        ("directory /nowhere (papermerge_backup_copy_dir) does not exist",),
        variables={"papermerge_backup_copy_dir": "/nowhere"},
    ),
    "copy-in-memory": Case(
        ("/dev/shm is on a tmpfs", "set papermerge_backup_copy_dir to a directory on a disk"),
        variables={"papermerge_backup_copy_dir": "/dev/shm"},
    ),
    "nice-beyond": Case(
        ("papermerge_backup_nice is 20; it must be 0 to 19",),
        variables={"papermerge_backup_nice": 20},
    ),
    "rate-without-unit": Case(
        ("papermerge_backup_rate_limit is 20 bytes a second; it must be at least 1024", "write 20M for 20 MiB"),
        variables={"papermerge_backup_rate_limit": 20},
    ),
    "rate-in-staging": Case(
        ("papermerge_backup_rate_limit cannot be kept in staging", "papermerge_backup_transfer is staged"),
        variables={"papermerge_backup_rate_limit": "20M", "papermerge_backup_transfer": "staged"},
    ),
    "name-unusable": Case(
        ("'../elsewhere' cannot name an instance in a repository", "set papermerge_backup_instance"),
        variables={"papermerge_backup_instance": "../elsewhere"},
    ),
}


@dataclasses.dataclass(frozen=True)
class Created:
    """A run over a good instance, and one over many when they have become bad; the state before and after."""

    host: Host
    playbooks: Playbooks
    good: PlaybookRun
    bad: PlaybookRun
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]
    repository_before: dict[str, Any]
    repository_after: dict[str, Any]
    locked: subprocess.Popen[str]
    lock_holder: subprocess.Popen[bytes]
    two_at_once: subprocess.Popen[str]


@pytest.fixture(scope="module")
def created(host_bench: HostBench, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Created]:
    playbooks = Playbooks(tmp_path_factory.mktemp("bad") / "home")
    host, slow = host_bench.start_many(["cases", "slow"])
    names = [*CREATE_CASES, "locked", "repository-is-a-file", "repository-read-only"]
    source.install(host, f"{CASES}/{names[0]}")
    for name in names[1:]:
        host.run(["cp", "-a", f"{CASES}/{names[0]}", f"{CASES}/{name}"])
    source.install(host)
    source.install(slow)

    def variables(name: str, user: str = "admin", **more: Any) -> dict[str, Any]:
        return host.inventory(user, ansible_become=True, papermerge_backup_project_dir=f"{CASES}/{name}", **more)

    good = playbooks.run("create", {FIRST: variables(FIRST)})
    for name in [*names, "two-projects"]:
        if name != FIRST:
            copy_instance(playbooks.repository / FIRST, playbooks.repository, name)
    # A run that has to wait for a lock, and two that meet, take their time while everything else goes on.
    slow.slow("4mbit")
    meeting = slow.inventory("admin", ansible_become=True, papermerge_backup_instance="shared")
    two_at_once = playbooks.start("create", {"first": meeting, "second": meeting})
    lock_holder = subprocess.Popen(
        [*host.ssh_command("root"), f"python3 -uc {shlex.quote(HOLD_LOCK)} {CASES}/locked/db.sqlite3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert lock_holder.stdout is not None
    assert lock_holder.stdout.readline() == b"held\n"
    locked = playbooks.start("create", {"locked": variables("locked")})

    inventory = {}
    for name, case in CREATE_CASES.items():
        here = f"{CASES}/{name}"
        host.run(f"cd {here} && {case.spoil.format(here=here)}")
        inventory[name] = {**variables(name, case.user), **case.variables}
    source.install(host, "/srv/papermerge")
    inventory["two-projects"] = host.inventory("admin", ansible_become=True)
    file, read_only = playbooks.home / "file", playbooks.home / "read-only"
    file.write_text("no directory", encoding="utf-8")
    read_only.mkdir()
    for name, place in (("repository-is-a-file", file), ("repository-read-only", read_only)):
        inventory[name] = variables(name, papermerge_backup_repository=str(place))

    ignored = {"locked", "shared"}

    def repository() -> dict[str, Any]:
        return {path.name: contents(path) for path in playbooks.repository.iterdir() if path.name not in ignored}

    def projects() -> dict[str, dict[str, Any]]:
        return {name: contents(host.root / f"{CASES[1:]}/{name}") for name in CREATE_CASES}

    with ExitStack() as stack:
        execute(["mount", "--bind", read_only, read_only])
        stack.callback(execute, ["umount", read_only])
        execute(["mount", "-o", "remount,bind,ro", read_only])
        before, repository_before = projects(), repository()
        bad = playbooks.run("create", inventory, environment={"ANSIBLE_FORKS": "4"})
        after, repository_after = projects(), repository()
    yield Created(
        host,
        playbooks,
        good,
        bad,
        before,
        after,
        repository_before,
        repository_after,
        locked,
        lock_holder,
        two_at_once,
    )
    for process in (locked, two_at_once, lock_holder):
        if process.poll() is None:
            process.kill()
            process.communicate()
    for used in (host, slow):
        host_bench.remove(used)


def test_the_instances_were_good_before(created: Created) -> None:
    assert (created.good.results(), created.good.status) == ({FIRST: "ok"}, 0), str(created.good)


@pytest.mark.parametrize("name", CREATE_CASES)
def test_what_is_wrong_with_an_instance_is_said(created: Created, name: str) -> None:
    case = CREATE_CASES[name]
    says = tuple(text.format(here=f"{CASES}/{name}") for text in case.says)
    assert_said(created.bad, name, says, case.result)
    assert created.before[name] == created.after[name]


def test_two_projects_are_too_many(created: Created) -> None:
    says = (
        "found 2 Papermerge projects: ",
        f"{PROJECT} (directory {PROJECT})",
        "/srv/papermerge (directory /srv/papermerge)",
        "set papermerge_backup_project_dir to one of them",
    )
    assert_said(created.bad, "two-projects", says)


def test_a_repository_that_cannot_be_written_is_named(created: Created) -> None:
    home = created.playbooks.home
    assert_said(
        created.bad,
        "repository-read-only",
        (f"repository {home}/read-only cannot be written", "set papermerge_backup_repository"),
    )
    assert_said(
        created.bad,
        "repository-is-a-file",
        (f"repository {home}/file: {home}/file is not a directory", "set papermerge_backup_repository"),
    )
    assert list((home / "read-only").iterdir()) == []


def test_nothing_is_published_and_earlier_snapshots_stay_as_they_are(created: Created) -> None:
    assert created.repository_before.keys() == created.repository_after.keys()
    for name, before in created.repository_before.items():
        assert created.repository_after[name] == before, name
    assert all(len(created.playbooks.snapshots(name)) == 1 for name in CREATE_CASES)
    assert not (created.playbooks.home / "elsewhere").exists()


def test_no_agent_stays_on_the_host(created: Created) -> None:
    assert [
        command for command in agents(created.host) if f"{CASES}/locked" not in command and "sqlite3" not in command
    ]


def test_two_runs_of_an_instance_at_once_make_one_snapshot(created: Created) -> None:
    run = created.playbooks.finish(created.two_at_once)
    results = run.results()
    assert sorted(results.values()) == ["failed", "ok"], str(run)
    (late,) = (host for host, result in results.items() if result == "failed")
    says = (
        f"another run works on instance shared in {created.playbooks.repository} (process ",
        "wait for it",
    )
    assert_said(run, late, says)
    assert len(created.playbooks.snapshots("shared")) == 1
    assert list((created.playbooks.repository / "shared/incoming").iterdir()) == []


# -- hosts without something -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bare:
    """What runs said about a host without Python, and then about one without zstd and setfacl."""

    host: Host
    playbooks: Playbooks
    without_python: PlaybookRun
    without_zstd: PlaybookRun
    restored: PlaybookRun


@pytest.fixture(scope="module")
def bare(host_bench: HostBench, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    playbooks = Playbooks(tmp_path_factory.mktemp("bare") / "home")
    host = host_bench.start("bare")
    source.install(host)
    admin = host.inventory("admin", ansible_become=True)
    staged = {**admin, "papermerge_backup_transfer": "staged"}
    host.hide("/usr/bin/python3*", "/usr/bin/zstd", "/usr/bin/setfacl")
    without_python = playbooks.run("create", {"no-python": admin, "no-python-staged": staged})
    host.unhide("/usr/bin/python3*")
    as_papermerge = {**staged, "ansible_become_user": "papermerge"}
    without_zstd = playbooks.run("create", {"no-zstd": admin, "no-zstd-staged": staged, "no-setfacl": as_papermerge})
    targets = {}
    for name, variables in {"no-zstd": admin, "no-zstd-staged": staged}.items():
        targets[name] = {
            **variables,
            "papermerge_backup_media_root": f"/srv/{name}/media",
            "papermerge_backup_database_url": f"sqlite:////srv/{name}/db.sqlite3",
        }
    restored = playbooks.run("restore", targets)
    yield Bare(host, playbooks, without_python, without_zstd, restored)
    host_bench.remove(host)


def test_a_host_without_python_is_told_from_one_that_cannot_be_reached(bare: Bare) -> None:
    for name in ("no-python", "no-python-staged"):
        assert_said(
            bare.without_python, name, ("the agent could not be started", "no Python 3.8 or later on this host")
        )
        assert not (bare.playbooks.repository / name).exists()


def test_a_host_without_zstd_is_backed_up_and_restored_all_the_same(bare: Bare, source: Source, tmp_path: Path) -> None:
    for name in ("no-zstd", "no-zstd-staged"):
        assert bare.without_zstd.row(name)["result"] == "ok", str(bare.without_zstd)
        assert bare.restored.row(name)["result"] == "ok", str(bare.restored)
        instance = source.bring_back_from(bare.host, tmp_path / name, f"/srv/{name}")
        assert instance.contents() == source.contents
    assert bare.restored.status == 0


def test_staging_as_an_unprivileged_user_needs_access_control_lists(bare: Bare) -> None:
    says = ("staging as papermerge needs access control lists", "setfacl", "install acl there, become root, or use")
    assert_said(bare.without_zstd, "no-setfacl", says)
    assert not (bare.playbooks.repository / "no-setfacl").exists()
    assert bare.host.run("ls -A /var/tmp").stdout == ""


# -- verifying ---------------------------------------------------------------------------------------------------------


def only(instance: Path, pattern: str) -> Path:
    (path,) = instance.glob(pattern)
    return path


STORED = {
    "manifest": "snapshots/*/manifest.json",
    "checksum": "snapshots/*/manifest.json.sha256",
    "database": "snapshots/*/database.sqlite3.zst",
    "index": "snapshots/*/index.jsonl.zst",
    "record": "parts/*.json.zst",
    "part": "parts/*.tar.zst",
}
"""The files of a snapshot."""
FLIPS = 20


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ (1 << bit)]))


@dataclasses.dataclass(frozen=True)
class Spoilt:
    """A repository of instances that were damaged each in its way, beside some that were not; what became of them."""

    playbooks: Playbooks
    flips: dict[str, str]
    others: dict[str, tuple[str, ...]]
    newer: dict[str, tuple[str, ...]]
    verified: PlaybookRun
    listed: PlaybookRun


@pytest.fixture(scope="module")
def spoilt(created: Created, tmp_path_factory: pytest.TempPathFactory) -> Spoilt:
    playbooks = Playbooks(tmp_path_factory.mktemp("spoilt") / "home")
    playbooks.repository.mkdir(mode=0o700)
    dice = random.Random(int(os.environ["PAPERMERGE_BACKUP_SEED"]))

    def copy(name: str) -> Path:
        return copy_instance(created.playbooks.repository / FIRST, playbooks.repository, name)

    flips = {}
    for number in range(FLIPS):
        name = f"flip-{number:02}"
        kind = list(STORED)[number % len(STORED)]
        path = only(copy(name), STORED[kind])
        offset, bit = dice.randrange(path.stat().st_size), dice.randrange(8)
        flip(path, offset, bit)
        flips[name] = f"bit {bit} of byte {offset} of {path}"
    others: dict[str, tuple[str, ...]] = {}
    for kind, pattern in STORED.items():
        path = only(copy(f"{kind}-missing"), pattern)
        path.unlink()
        others[f"{kind}-missing"] = (f"{path} is missing",)
        path = only(copy(f"{kind}-cut"), pattern)
        os.truncate(path, path.stat().st_size - 1)
        others[f"{kind}-cut"] = (str(path.parent),)
    for kind in ("part", "record", "index", "database"):
        path = only(copy(f"{kind}-swapped"), STORED[kind])
        content = bytearray(path.read_bytes())
        content.reverse()
        path.write_bytes(content)
        others[f"{kind}-swapped"] = (str(path),)
    renamed = playbooks.repository / "renamed"
    shutil.copytree(created.playbooks.repository / FIRST, renamed)
    others["renamed"] = (f"{renamed}", f"is the manifest of a snapshot of instance {FIRST}")
    newer: dict[str, tuple[str, ...]] = {
        "newer-format": ("the snapshot has format 2, this version of papermerge.backup reads up to 1", "upgrade the"),
        "unknown-feature": ("the snapshot uses encryption", "does not know; upgrade the collection"),
    }
    commit_again(copy("newer-format"), lambda fields: fields.update(format=2))
    commit_again(copy("unknown-feature"), lambda fields: fields.update(features=["encryption"]))
    copy("sound")
    before = {path.name: contents(path) for path in playbooks.repository.iterdir()}
    listed = playbooks.run("list", {})
    assert {path.name: contents(path) for path in playbooks.repository.iterdir()} == before
    verified = playbooks.run("verify", {})
    return Spoilt(playbooks, flips, others, newer, verified, listed)


def test_every_flipped_bit_is_reported(spoilt: Spoilt) -> None:
    results = spoilt.verified.results("instance")
    assert {name: results[name] for name in spoilt.flips} == dict.fromkeys(spoilt.flips, "damaged"), spoilt.flips
    assert spoilt.verified.status != 0
    assert not spoilt.verified.says("Traceback")


def test_a_sound_snapshot_among_them_is_sound(spoilt: Spoilt) -> None:
    assert spoilt.verified.results("instance")["sound"] == "sound"
    found = [name for name, result in spoilt.verified.results("instance").items() if result == "sound"]
    assert found == ["sound"]


def test_what_is_missing_cut_short_or_exchanged_is_named(spoilt: Spoilt) -> None:
    for name, says in spoilt.others.items():
        assert spoilt.verified.results("instance")[name] == "damaged"
        for text in says:
            assert spoilt.verified.says(text), (name, text)


def test_a_newer_format_and_an_unknown_feature_are_refused_not_called_damaged(spoilt: Spoilt) -> None:
    for name, says in spoilt.newer.items():
        assert spoilt.verified.results("instance")[name] == "failed", str(spoilt.verified)
        for text in says:
            assert spoilt.verified.says(text)


def test_a_list_shows_every_instance_whatever_its_state(spoilt: Spoilt) -> None:
    results = spoilt.listed.results("instance")
    assert set(results) == {*spoilt.flips, *spoilt.others, *spoilt.newer, "sound"}
    assert results["sound"] == "complete"
    assert results["manifest-missing"] == results["manifest-cut"] == results["renamed"] == "damaged"
    assert spoilt.listed.status == 0
    assert not spoilt.listed.says("Traceback")


# -- restoring ---------------------------------------------------------------------------------------------------------

SMALL = 24
"""Size in MiB of the disks that are too small."""


@dataclasses.dataclass(frozen=True)
class Refused:
    """A restore onto targets that it must not touch or cannot fill."""

    run: PlaybookRun
    replacing: PlaybookRun
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]
    left: list[str]


RESTORE_CASES: dict[str, Case] = {
    "no-such-number": Case(
        ("instance sound has no snapshot 99; there are 000001-",), variables={"papermerge_backup_snapshot": "99"}
    ),
    "no-such-time": Case(
        ("instance sound has no complete snapshot started by 2020-", "there are 000001-"),
        variables={"papermerge_backup_snapshot": "2020-01-01"},
    ),
    "no-such-words": Case(
        ("'the best one' names no snapshot: use latest, a sequence number, an id such as 000001-",),
        variables={"papermerge_backup_snapshot": "the best one"},
    ),
    "no-such-source": Case(
        ("instance nobody has no snapshots in {repository}",), variables={"papermerge_backup_source": "nobody"}
    ),
    "no-such-repository": Case(
        ("repository /nowhere does not exist on the controller; set papermerge_backup_repository",),
        variables={"papermerge_backup_repository": "/nowhere"},
    ),
    "media-not-empty": Case(
        ("media directory {here}/media is not empty: it holds 'precious'", "move it aside, or set papermerge_backup_"),
        "echo >media/precious; chown papermerge: media/precious",
    ),
    "media-is-a-file": Case(("media directory {here}/media is not a directory",), "rmdir media; echo >media"),
    "database-not-empty": Case(
        ("database {here}/db.sqlite3 is not empty", "move it aside, or set papermerge_backup_"),
        "sqlite3 db.sqlite3 'create table precious (x)'",
    ),
    "database-is-text": Case(("database {here}/db.sqlite3 is not empty",), "echo precious >db.sqlite3"),
    "journal-without-database": Case(("database {here}/db.sqlite3 is not empty",), "echo precious >db.sqlite3-wal"),
    "another-version": Case(
        ("the target has Papermerge 2.0.1 ({here}/.venv", "the snapshot is of 2.0.2; install 2.0.2 on the target"),
        "cd .venv/lib/python3.11/site-packages; mv papermerge_core-2.0.2.dist-info papermerge_core-2.0.1.dist-info",
    ),
    "disk-too-small": Case(
        ("the media of the snapshot needs ", " bytes in {here}", " free"),
        "fallocate -l $(( $(df --output=avail -B1 . | tail -n1) - 1000000 )) filler",
    ),
    "disk-too-small-for-both": Case(
        ("the snapshot needs ", " bytes in {here}", " free"),
        # Enough for the media and enough for the database, but not for both.
        "fallocate -l $(( $(df --output=avail -B1 . | tail -n1) - {media} - 20000 )) filler",
    ),
    "disk-fills-up": Case(
        ("the host has no room left: ", "No space left on device", "free some and run again"),
        # Nobody can tell before how many files a disk will take.
        "mkdir filler; seq $(( $(df --output=iavail . | tail -n1) - 60 )) | (cd filler; xargs touch)",
    ),
    "part-damaged": Case(("part-swapped/parts/",), variables={"papermerge_backup_source": "part-swapped"}),
    "database-damaged": Case(("database-swapped/snap",), variables={"papermerge_backup_source": "database-swapped"}),
    "record-damaged": Case(("record-swapped/parts/",), variables={"papermerge_backup_source": "record-swapped"}),
    "manifest-damaged": Case(("manifest-cut/snapshots/",), variables={"papermerge_backup_source": "manifest-cut"}),
    "newer-format": Case(("format 2", "upgrade the"), variables={"papermerge_backup_source": "newer-format"}),
    "unknown-feature": Case(("encryption", "upgrade"), variables={"papermerge_backup_source": "unknown-feature"}),
}


@pytest.fixture(scope="module")
def refused(spoilt: Spoilt, host_bench: HostBench, source: Source) -> Iterator[Refused]:
    host = host_bench.start("targets")
    manifest = json.loads(only(spoilt.playbooks.repository / "sound", STORED["manifest"]).read_bytes())
    media = manifest["totals"]["media_bytes"] + 4096 * manifest["totals"]["files"]
    first = f"{CASES}/{list(RESTORE_CASES)[0]}"  # noqa: RUF015 - next() in a generator reads as its end
    source.install_empty(host, first)
    with ExitStack() as stack:
        inventory = {}
        for name, case in RESTORE_CASES.items():
            here = f"{CASES}/{name}"
            if name.startswith("disk-"):
                stack.enter_context(host.small_filesystem(here, SMALL))
            if here != first:
                host.run(f"mkdir -p {here}; cp -a {first}/. {here}")
            inventory[name] = host.inventory(
                "admin", ansible_become=True, papermerge_backup_project_dir=here, papermerge_backup_source="sound"
            )
            inventory[name].update(case.variables)
        for name, case in RESTORE_CASES.items():
            here = f"{CASES}/{name}"
            host.run(f"cd {here} && {case.spoil.format(here=here, media=media)}")

        def targets() -> dict[str, dict[str, Any]]:
            listing = "find . -name filler -prune -o -printf '%p %y %m %u:%g %s %Ts\\n' | sort"
            sums = "find . -name filler -prune -o -type f -exec sha256sum {} + | sort"
            return {
                name: {
                    # Directories in which something was made and removed have a new time.
                    line.rsplit(" ", 1)[0] if line.split()[1] == "d" else line: ""
                    for line in host.run(f"cd {CASES}/{name} && {listing}; {sums}").stdout.splitlines()
                }
                for name in RESTORE_CASES
            }

        before = targets()
        run = spoilt.playbooks.run(
            "restore",
            inventory,
            extra={"papermerge_backup_replace": "false"},
            environment={"ANSIBLE_FORKS": "4"},
        )
        replacing = spoilt.playbooks.run(
            "restore", {"media-not-empty": inventory["media-not-empty"]}, extra={"papermerge_backup_replace": "true"}
        )
        after = targets()
        left = [name for name in host.files_under("/tmp", "/var/tmp", CASES) if "papermerge-backup" in name]
        left += agents(host)
    yield Refused(run, replacing, before, after, left)
    host_bench.remove(host)


@pytest.mark.parametrize("name", RESTORE_CASES)
def test_what_is_wrong_with_a_restore_is_said(refused: Refused, spoilt: Spoilt, name: str) -> None:
    where = {"here": f"{CASES}/{name}", "repository": spoilt.playbooks.repository}
    assert_said(refused.run, name, tuple(text.format(**where) for text in RESTORE_CASES[name].says))


@pytest.mark.parametrize("name", RESTORE_CASES)
def test_a_refused_target_stays_as_it_was(refused: Refused, name: str) -> None:
    assert refused.before[name] == refused.after[name]


def test_replacing_is_not_yet_possible_and_says_so(refused: Refused) -> None:
    assert_said(refused.replacing, "media-not-empty", ("restores onto empty targets only",))


def test_refused_restores_leave_nothing_on_the_host(refused: Refused) -> None:
    assert refused.left == []


# -- last, because it takes a minute in the background -----------------------------------------------------------------


def test_a_locked_database_is_named_after_a_minute(created: Created) -> None:
    run = created.playbooks.finish(created.locked)
    created.lock_holder.communicate(b"x\n")
    assert_said(run, "locked", (f"database {CASES}/locked/db.sqlite3 is locked by another process", "run again"))
    assert len(created.playbooks.snapshots("locked")) == 1
