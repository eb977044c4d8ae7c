# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret shows: known passwords stand in every place that can hold one, and everything that can be seen is searched.

Each password holds a word of its own that no encoding changes: whoever finds it has found the password plain,
percent-encoded, quoted or escaped.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.releases_on_hosts import Papermerge, Site, install, install_empty, of_generated
from tests.support.generated.instance import generate
from tests.support.hosts.base import OPERATOR_PASSWORD
from tests.support.hosts.bench import HostBench
from tests.support.hosts.host import Host
from tests.support.playbooks import PlaybookRun, Playbooks, ProcessWatch

AROUND = "p@{}/%41:#\"'é"
"""What stands around a word: everything that URLs, shells, JSON and YAML treat as theirs."""
WORDS = {
    "source": "zqsource1",
    "target": "zqtarget2",
    "administrator": "zqadministrator3",
    "given": "zqgiven4",
    "wrong": "zqwrong5",
    "bucket": "zqbucket6",
    "invalid": "zqinvalid7",
    "become": OPERATOR_PASSWORD.split()[1],
    "secret key": "secret key of",
}
PASSWORDS = {name: AROUND.format(word) for name, word in WORDS.items()}
TEMPORARY = ("tmp", "var/tmp", "home/operator/.ansible", "home/admin/.ansible", "root/.ansible", "run/user", "dev/shm")
"""Where a host's temporary files are."""

CALLBACK = '''
import json

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recorder
type: notification
short_description: Keeps all results as they are, as a logger of somebody else would
description: For tests.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "recorder"

    def v2_runner_on_ok(self, result, **_more):
        with open("PLACE", "a", encoding="utf-8") as record:
            record.write(json.dumps(result._result, default=str, ensure_ascii=False) + "\\n")

    v2_runner_on_failed = v2_runner_on_unreachable = v2_runner_on_skipped = v2_runner_on_ok
'''
INFORMATION = """
- name: Look at each Papermerge
  hosts: papermerge
  gather_facts: false
  tasks:
    - name: Look at the instance
      papermerge.backup.instance_info:
        database_url: "{{ papermerge_backup_database_url | default(omit) }}"
      register: found
      ignore_errors: true

    - name: Show what was found
      ansible.builtin.debug:
        var: found
"""


class TemporaryFileWatch:
    """Looks into the temporary directories of hosts and of a home again and again, for secrets that others can read."""

    def __init__(self, places: list[Path]) -> None:
        self._places = places
        self._stop = threading.Event()
        self.seen: set[str] = set()
        self.leaks: set[tuple[str, str]] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for place in self._places:
                self._walk(place, True)
            time.sleep(0.02)

    def _walk(self, directory: Path, is_open: bool) -> None:
        try:
            entries = list(os.scandir(directory))
        except OSError:
            return
        for entry in entries:
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
                self.seen.add(entry.path)
                if stat.S_ISDIR(mode):
                    self._walk(Path(entry.path), is_open and bool(mode & stat.S_IXOTH))
                elif is_open and stat.S_ISREG(mode) and mode & stat.S_IROTH:
                    content = Path(entry.path).read_bytes()
                    self.leaks |= {(name, entry.path) for name, word in WORDS.items() if word.encode() in content}
            except OSError:  # it is gone
                continue


@dataclasses.dataclass(frozen=True)
class Searched:
    """Runs that were told to print everything, and everything that they left."""

    playbooks: Playbooks
    hosts: list[Host]
    runs: dict[str, PlaybookRun]
    watch: ProcessWatch
    files: TemporaryFileWatch
    log: Path
    record: Path
    scratch: Path


@pytest.fixture(scope="module")
def searched(host_bench: HostBench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    scratch = tmp_path_factory.mktemp("secrets")
    playbooks = Playbooks(scratch / "home")
    made = {
        "units": of_generated(generate("3.5", "postgresql", scratch / "units"), "units"),
        "conf": of_generated(generate("2.0", "postgresql", scratch / "conf"), "conf"),
        "maria": of_generated(generate("3.0-3.2", "mysql", scratch / "maria"), "maria"),
    }
    names = [f"{name}-{role}" for name in made for role in ("old", "new")]
    hosts = dict(zip(names, host_bench.start_many(names), strict=True))
    sources, targets = {}, {}
    for name, papermerge in made.items():
        keys = ("Environment=AWS_SECRET_ACCESS_KEY=" + PASSWORDS["bucket"].replace("%", "%%").replace('"', "'"),)
        sources[name] = _install(papermerge, hosts[f"{name}-old"], scratch, keys)
        targets[name] = install_empty(
            papermerge,
            hosts[f"{name}-new"],
            scratch / f"{name}-new",
            with_admin=True,
            password=PASSWORDS["target"],
            admin_password=PASSWORDS["administrator"],
        )
    # psql beside pg_dump, where psycopg2 is not to be had.
    for role in ("old", "new"):
        hosts[f"conf-{role}"].hide("/usr/lib/python3/dist-packages/psycopg2")

    callbacks = scratch / "callbacks"
    callbacks.mkdir()
    record, log, temporary = scratch / "record.jsonl", scratch / "ansible.log", scratch / "tmp"
    (callbacks / "recorder.py").write_text(CALLBACK.replace("PLACE", str(record)), encoding="utf-8")
    temporary.mkdir()
    environment = {
        "ANSIBLE_CALLBACK_PLUGINS": str(callbacks),
        "ANSIBLE_CALLBACKS_ENABLED": "recorder",
        "ANSIBLE_LOG_PATH": str(log),
        "ANSIBLE_DIFF_ALWAYS": "1",
        "TMPDIR": str(temporary),
        "ANSIBLE_SSH_PIPELINING": "0",
    }
    information = scratch / "information.yml"
    information.write_text(INFORMATION, encoding="utf-8")
    playbook = {"create": "create", "verify": "verify", "restore": "restore", "information": information}
    inventories = {
        "create": creates(sources),
        "verify": {name: _reached(sources["units"].host) for name in ("units", "conf", "given")},
        "information": creates(sources),
        "restore": restores(targets, sources),
    }
    watch = ProcessWatch()
    places = [Path(f"/proc/{host.first_process}/root", place) for host in hosts.values() for place in TEMPORARY]
    files = TemporaryFileWatch([*places, temporary, playbooks.home / ".ansible"])
    with watch.watching(), files.watching():
        runs = {
            name: playbooks.run(playbook[name], inventory, options=["-vvvv"], environment=environment)
            for name, inventory in inventories.items()
        }
    yield Searched(playbooks, list(hosts.values()), runs, watch, files, log, record, scratch)
    for host in hosts.values():
        host_bench.remove(host)


def _install(papermerge: Papermerge, host: Host, scratch: Path, keys: tuple[str, ...]) -> Site:
    site = install(papermerge, host, scratch / f"{papermerge.name}-old", *keys, password=PASSWORDS["source"])
    site.databases.execute(*_another_account(site))
    return site


def _another_account(site: Site) -> tuple[str, ...]:
    """Return what makes the account of the inventory, which may read everything."""
    from tests.support.servers import mariadb, postgres

    if site.papermerge.engine == "postgresql":
        return (f"create role given login superuser password {postgres.literal(PASSWORDS['given'])}",)
    return (
        f"create user given@'%' identified by {mariadb.literal(PASSWORDS['given'])}; grant all on *.* to given@'%'",
    )


def _reached(host: Host, **more: Any) -> dict[str, Any]:
    """Return the variables of a host whose sudo asks for a password."""
    password = {"ansible_become_password": OPERATOR_PASSWORD}
    return host.inventory("operator", ansible_become=True, **password, **more)


def creates(sources: Mapping[str, Site]) -> dict[str, dict[str, Any]]:
    """Return what is backed up in which way: streamed and staged, found and given, well and failing."""
    units = sources["units"]
    url = units.databases.url

    def at(url: str, **more: Any) -> dict[str, Any]:
        return _reached(units.host, papermerge_backup_database_url=url, **more)

    given = url("papermerge", "given", PASSWORDS["given"])
    found = {
        "units": _reached(units.host),
        "conf": _reached(sources["conf"].host, papermerge_backup_config=True),
        "conf-staged": _reached(sources["conf"].host, papermerge_backup_transfer="staged"),
        "given": at(given, papermerge_backup_config=True),
        "given-staged": at(given, papermerge_backup_transfer="staged", papermerge_backup_config=True),
        "wrong": at(url("papermerge", "given", PASSWORDS["wrong"])),
        "wrong-staged": at(url("papermerge", "given", PASSWORDS["wrong"]), papermerge_backup_transfer="staged"),
        "wrong-psql": _reached(
            sources["conf"].host, papermerge_backup_database_url=url("papermerge", "given", PASSWORDS["wrong"])
        ),
        "nowhere": at(given.replace(":5432", ":1")),
        "absent": at(url("absent", "given", PASSWORDS["given"])),
        "unreadable": at(f"postgresql://given:{PASSWORDS['wrong']}@127.0.0.1:x/papermerge"),
        "no-engine": at(f"oracle://given:{PASSWORDS['wrong']}@127.0.0.1/papermerge"),
        "invalid": at(f"postgresql://given:{PASSWORDS['invalid']}@127.0.0.1/x", papermerge_backup_transfer="bogus"),
    }
    maria = sources["maria"]
    found["maria"] = _reached(maria.host)
    found["maria-wrong"] = _reached(
        maria.host,
        papermerge_backup_database_url=maria.databases.url("papermerge", "given", PASSWORDS["wrong"]),
        papermerge_backup_transfer="staged",
    )
    return found


CREATED = {"units", "conf", "conf-staged", "given", "given-staged", "maria"}


def restores(targets: Mapping[str, Site], sources: Mapping[str, Site]) -> dict[str, dict[str, Any]]:
    """Return what is restored in which way. Failing ones leave the target to the one that does not."""
    admin, given = "papermerge_backup_database_admin_url", "papermerge_backup_database_url"
    units, conf = targets["units"], targets["conf"]
    source = {"papermerge_backup_source": "units"}
    wrong = units.databases.url("postgres", "backup admin", PASSWORDS["wrong"])
    found = {
        "new-units": _reached(units.host, **source, **{admin: units.admin_url}),
        "new-conf": _reached(
            conf.host,
            papermerge_backup_source="conf",
            papermerge_backup_transfer="staged",
            **{admin: conf.admin_url, given: conf.database_url},
        ),
        "wrong": _reached(units.host, **source, **{admin: wrong}),
        "wrong-staged": _reached(units.host, **source, **{admin: wrong}, papermerge_backup_transfer="staged"),
        "without-rights": _reached(units.host, **source),
        "not-empty": _reached(
            sources["units"].host,
            **source,
            **{given: sources["units"].databases.url("papermerge", "given", PASSWORDS["given"])},
        ),
    }
    maria = targets["maria"]
    found["new-maria"] = _reached(maria.host, papermerge_backup_source="maria", **{admin: maria.admin_url})
    return found


def test_the_runs_go_as_they_should(searched: Searched) -> None:
    for name, good in (("create", CREATED), ("restore", {"new-units", "new-conf", "new-maria"})):
        run = searched.runs[name]
        results = run.results()
        assert {host for host, result in results.items() if result == "ok"} == good & results.keys(), str(run)
        assert len(set(results) - good) >= 4
    assert searched.runs["verify"].status == 0, str(searched.runs["verify"])
    assert "Show what was found" in searched.runs["information"].output
    create, restore = searched.runs["create"], searched.runs["restore"]
    for host in ("wrong", "wrong-staged", "wrong-psql"):
        assert "the server refuses the login" in create.message(host), str(create)
    assert "the server refuses the login" in restore.message("wrong")
    assert "not empty" in restore.message("not-empty")


def test_no_secret_is_an_argument_of_a_process(searched: Searched) -> None:
    # What is looked at would show it: the commands of both sides, of a server's clients among them.
    for seen in ("ansible-playbook", "sudo -H -S -p", "pg_dump", "pg_restore", "psql", "mariadb-dump"):
        assert searched.watch.with_word(seen), seen
    assert searched.watch.looks > 500
    for name, word in WORDS.items():
        assert searched.watch.with_word(word) == [], name


@pytest.mark.parametrize("name", ["create", "verify", "restore", "information"])
def test_no_secret_is_printed(searched: Searched, name: str) -> None:
    run = searched.runs[name]
    assert "TASK [" in run.output
    assert len(run.output) > 5000
    for secret, word in WORDS.items():
        lines = [line for line in (run.output + run.errors).splitlines() if word in line]
        assert lines == [], f"{secret} in the output of {name}"


def test_no_secret_is_in_a_log_or_a_result(searched: Searched) -> None:
    for path in (searched.log, searched.record):
        text = path.read_text(encoding="utf-8")
        assert len(text) > 5000
        for secret, word in WORDS.items():
            lines = [line for line in text.splitlines() if word in line]
            assert lines == [], f"{secret} in {path.name}"


def test_no_secret_is_in_a_repository_but_where_it_belongs(searched: Searched) -> None:
    opened = 0
    for path in searched.playbooks.repository.rglob("*"):
        if not path.is_file() or path.name.startswith(("database.", "config.tar")):
            continue
        content = path.read_bytes()
        if path.suffix == ".zst":
            content = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout
        opened += 1
        for secret, word in WORDS.items():
            assert word.encode() not in content, f"{secret} in {path}"
    assert opened > 20
    # Settings hold secrets; who may read them is said by the mode.
    settings = sorted(searched.playbooks.repository.glob("*/snapshots/*/config.tar.zst"))
    assert len(settings) == 3
    for path in settings:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    packed = subprocess.run(["zstd", "-dc", settings[-1]], capture_output=True, check=True).stdout
    assert WORDS["source"].encode() in packed


def test_no_secret_is_in_what_a_controller_keeps(searched: Searched) -> None:
    words = [argument for word in WORDS.values() for argument in ("-e", word)]
    places = [searched.playbooks.home, searched.scratch / "tmp"]
    command = ["grep", "-rlF", "-D", "skip", "--exclude=config.tar.zst", *words, *map(str, places)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    assert {name for name in found if not Path(name).name.startswith("inventory-")} == set()
    assert any(Path(name).name.startswith("inventory-") for name in found), "what is searched has them"


def test_no_secret_was_in_a_temporary_file_that_others_could_read(searched: Searched) -> None:
    assert any("ansible-tmp-" in path for path in searched.files.seen), "Ansible's own were seen"
    assert any("papermerge-backup" in path for path in searched.files.seen), "the collection's own were seen"
    assert searched.files.leaks == set()


def test_no_secret_is_left_on_a_host(searched: Searched) -> None:
    words = " ".join(f"-e {shlex.quote(word)}" for word in WORDS.values())
    places = "/tmp /var/tmp /home /root /run /var/log /dev/shm /var/lib/papermerge /var/lib/sudo /var/spool"
    for host in searched.hosts:
        command = f"grep -rlF -D skip {words} {places}"
        assert host.run(command, check=False).stdout == "", host.name
        journal = "journalctl --output=json --all --no-pager"
        assert "sudo" in host.run(f"{journal} | head -c 4000000").stdout, "the journal tells of sudo"
        assert host.run(f"{journal} | grep -F {words}", check=False).stdout == "", host.name
