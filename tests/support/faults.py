# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of faults share: instances of some size made quickly, processes that end at a chosen step or moment, cut
connections, and looks at a repository and a host before and after.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ansible_collections.papermerge.backup.plugins.module_utils.media.scan import OWN_PREFIX
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import list_snapshots, verify_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import GREETING, agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.ssh import SshOptions, ssh_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import Login, StreamedSession
from tests.support.hosts.commands import execute
from tests.support.hosts.host import Host
from tests.support.instances import VERSION, MadeInstance

CHECKOUT = Path(__file__).resolve().parents[2]
#: Stands in the command line of every agent, and of whatever starts one.
AGENT_MARK = GREETING.decode("ascii").strip()
OWN = os.fsdecode(OWN_PREFIX)
#: Where an instance lies on a test host.
ON_HOST = "/srv/papermerge"


def soaking() -> bool:
    """Tell whether this run has the numbers of the soak."""
    return os.environ.get("PAPERMERGE_BACKUP_SOAK") == "1"


def seeded(name: str) -> random.Random:
    """Return the random numbers of one test in this run."""
    return random.Random(f"{os.environ['PAPERMERGE_BACKUP_SEED']} {name}")


# -- instances ---------------------------------------------------------------------------------------------------------


def make_instance(
    root: Path, documents: int = 20, document_bytes: int = 3000, large_files: int = 0, database_bytes: int = 0
) -> MadeInstance:
    """Make an instance without waiting for a sync a document.

    ``large_files``: files of 8 MB beside the originals. ``database_bytes``: text in the database that does not shrink.
    """
    instance = MadeInstance(root)
    noise = random.Random(f"{documents} {document_bytes}")
    with closing(instance.connect()) as connection:
        connection.execute("pragma synchronous = off")
        connection.execute("begin")
        for number in range(10, 10 + documents):
            instance.write(b"docs/user_1/document_%d/scan.pdf" % number, noise.randbytes(document_bytes))
            connection.execute("insert into core_basetreenode (id, title, user_id) values (?, 'a', 1)", (number,))
            connection.execute("insert into core_document values (?, 'scan.pdf', ?, 1, '', 0)", (number, 3000))
        connection.execute("create table filler (content blob)")
        for _piece in range(database_bytes >> 16):
            connection.execute("insert into filler values (?)", (noise.randbytes(65_000),))
        connection.execute("commit")
    for number in range(large_files):
        instance.write(b"results/large_%d" % number, noise.randbytes(8_000_000))
    return instance


def put_on(host: Host, instance: MadeInstance) -> None:
    """Copy an instance onto a test host, to ON_HOST."""
    host.put_tree(instance.root, ON_HOST, "papermerge")


def add_files(host: Host, name: str) -> None:
    """Put as many files again beside the media, under new paths: a create has parts to make once more."""
    copy = "cp -a docs ../more && cp -a results/large_* ../more/ 2>/dev/null; mkdir -p results && mv ../more results/$0"
    host.run(["sh", "-c", f"cd {ON_HOST}/media && {{ {copy}; }}", name])


def request_on_host(host: str = "host") -> CreateRequest:
    """Return the request for a create of what `put_on` brought."""
    return CreateRequest(
        host=host,
        instance=host,
        media_root=f"{ON_HOST}/media",
        database_url=f"sqlite:///{ON_HOST}/db/db.sqlite3",
        app_version=VERSION,
        collection_version="0.0.0",
    )


def settings_on_host() -> dict[str, str]:
    """Return the inventory's settings for what `put_on` brought."""
    request = request_on_host()
    return {
        "papermerge_backup_media_root": str(request.media_root),
        "papermerge_backup_database_url": str(request.database_url),
        "papermerge_backup_app_version": str(request.app_version),
    }


def agent_on(
    host: Host, port: int | None = None, interpreter: str | None = None, address: str | None = None
) -> StreamedSession:
    """Log in to a host as admin, become root with sudo, and start an agent, as the action does."""
    alias = ["-o", f"HostKeyAlias={host.address}"] if address else []
    given = host.inventory()
    options = SshOptions(
        host=address or host.address,
        port=port,
        user="admin",
        private_key_file=str(host.private_key),
        common_args=shlex.join([*shlex.split(given["ansible_ssh_common_args"]), *alias]),
    )
    command = "sudo -H -n /bin/sh -c " + shlex.quote(agent_command(interpreter))
    return StreamedSession(ssh_command(options, command), host.name, Login(), 30.0)


def silent(host: str = "host") -> Progress:
    return Progress(host, lambda _line: None)


# -- looks at a repository and a host ----------------------------------------------------------------------------------


def stored_state(place: InstanceDirectory) -> dict[str, str]:
    """Return the SHA-256 of every file of the committed snapshots and of the parts that they name."""
    paths = []
    for snapshot in place.snapshots():
        paths += [path for path in snapshot.directory.iterdir() if path.is_file()]
        for part in snapshot.require_manifest().parts:
            paths += [place.part_path(part.id), place.record_path(part.id)]
    return {str(path.relative_to(place.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def require_sound(place: InstanceDirectory, before: dict[str, str] | None = None, level: str = "deep") -> list[str]:
    """Check that every listed snapshot verifies, and that nothing of ``before`` has changed. Returns their ids."""
    if before is not None:
        now = stored_state(place)
        assert {name: now.get(name) for name in before} == before, "an earlier snapshot was changed"
    repository = Repository(str(place.path.parent))
    if not place.snapshot_names():
        return []
    listed = list_snapshots([repository], place.name, [])
    assert [row["state"] for row in listed] == ["complete"] * len(listed), listed
    rows = verify_snapshots([repository], place.name, [], "all", level, silent(), record=False)
    assert [(row["id"], row["result"], row["msg"]) for row in rows] == [(row["id"], "sound", "") for row in listed]
    return [row["id"] for row in listed]


def require_nothing_unfinished(place: InstanceDirectory) -> None:
    """Check that nothing unfinished is left in a repository."""
    left = os.listdir(place.incoming_path) if place.incoming_path.is_dir() else []
    assert left == [], left


def reset(place: InstanceDirectory, kept: Path) -> None:
    """Make an instance's directory what its copy is."""
    shutil.rmtree(place.path)
    shutil.copytree(kept, place.path)


def own_leftovers(root: Path) -> list[str]:
    """Return what lies below a directory and carries this collection's name."""
    return [str(path) for path in root.rglob("*") if path.name.startswith((OWN, "papermerge-backup-"))]


def agents_on(host: Host) -> list[tuple[int, str]]:
    """Return (process id in the host, command line) of our programs there: agents, what starts them, compressors."""
    return [(pid, line) for pid, line in host.processes() if AGENT_MARK in line or re.match(r"\S*zstd -q", line)]


@dataclass(frozen=True)
class HostState:
    """The files in the places where anything of ours could be left."""

    files: tuple[str, ...]

    @classmethod
    def of(cls, host: Host) -> HostState:
        places = [ON_HOST, "/tmp", "/var/tmp", "/run", "/dev/shm", "/home/admin", "/root"]
        found = host.run(["find", *places, "-xdev", "-mindepth", "1", "-not", "-path", "/run/systemd/*", "-print0"])
        passing = re.compile(r"/run/(systemd|user|log|sudo|udev|sshd)\b|\.ansible(/tmp)?\Z")
        return cls(tuple(sorted(name for name in found.stdout.split("\0")[:-1] if not passing.match(name))))

    def require_same(self, host: Host) -> None:
        """Check that nothing was added or removed, and that none of our processes runs."""
        waited(lambda: not agents_on(host), 5.0, f"{host.name} still runs {agents_on(host)}")
        now = HostState.of(host)
        assert sorted(set(now.files) - set(self.files)) == []
        assert sorted(set(self.files) - set(now.files)) == []


def waited(condition: Callable[[], object], seconds: float, what: str = "") -> float:
    """Wait until a condition holds and return how long that took; fail after so many seconds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, what or "not within the time"
        time.sleep(0.02)
    return time.monotonic() - begun


# -- processes ---------------------------------------------------------------------------------------------------------


def _status(pid: int) -> tuple[int, str] | None:
    """Return (parent, command line) of a process, None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state == "Z" else (int(parent), line)


def descendants(pid: int) -> dict[int, str]:
    """Return the living processes below one, with their command lines."""
    known = {int(name): _status(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found: dict[int, str] = {}
    wanted = {pid}
    while wanted:
        below = {child: status[1] for child, status in known.items() if status and status[0] in wanted}
        wanted = set(below) - set(found)
        found.update(below)
    return found


def still_running(processes: dict[int, str]) -> list[int]:
    """Return which of these processes, as `descendants` told them, have not ended."""
    return [pid for pid, line in processes.items() if (status := _status(pid)) is not None and status[1] == line]


Victim = Literal["controller", "worker", "ssh client", "agent"]
VICTIMS: tuple[Victim, ...] = ("controller", "worker", "ssh client", "agent")


def find_victim(run: int, host: Host, victim: Victim) -> tuple[Host | None, int] | None:
    """Return the process of a playbook's run that is meant, and the host whose process number it is, if any."""
    if victim == "controller":
        return None, run
    if victim == "agent":
        # Not sudo and the shell before it, which name the agent as well.
        agents = [pid for pid, line in agents_on(host) if re.match(r"\S*python\S* -I -B -c ", line)]
        return (host, agents[-1]) if agents else None
    below = descendants(run)
    clients = [pid for pid, line in below.items() if re.match(r"\S*ssh ", line) and AGENT_MARK in line]
    if not clients:
        return None
    if victim == "ssh client":
        return None, clients[-1]
    parent = _status(clients[-1])
    return None if parent is None or parent[0] == run else (None, parent[0])


def end(found: tuple[Host | None, int]) -> None:
    """Send SIGKILL to one process, by its number."""
    host, pid = found
    if host is not None:
        host.run(["kill", "-KILL", str(pid)], check=False)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# -- steps -------------------------------------------------------------------------------------------------------------

#: Calls a function before each step of this process that changes something below some directories.
STEPS = """
def _watch_steps(directories, act):
    import os, sys
    kinds = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.link",
             "sqlite3.connect"}
    state = {"count": 0, "busy": False}

    def real(path):
        # What is reached by a descriptor.
        start = path.split("/")[:5]
        if start[:4] != ["", "proc", "self", "fd"] or len(start) < 5:
            return path
        return os.readlink("/".join(start)) + path[len("/".join(start)):]

    def hook(event, arguments):
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in kinds:
            return
        if state["busy"]:
            return
        state["busy"] = True
        try:
            step(event, arguments)
        finally:
            state["busy"] = False

    def step(event, arguments):
        texts = [os.fsdecode(value) for value in arguments if isinstance(value, (str, bytes))]
        paths = [real(text[5:].split("?")[0] if text.startswith("file:") else text) for text in texts]
        if not any(path.startswith(directory) or "/" not in path for path in paths for directory in directories):
            return
        state["count"] += 1
        act(state["count"], event, paths)

    sys.addaudithook(hook)


def _stop_at(number, directories, log):
    import os, signal

    def act(count, event, paths):
        if log:
            with open(log, "a") as stream:
                stream.write(repr((event, paths)) + "\\n")
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch_steps(directories, act)


def _run_when(needle, directories, command):
    import subprocess
    done = []

    def act(count, event, paths):
        if not done and needle in event + " " + " ".join(paths):
            done.append(event)
            subprocess.run(command, shell=True, check=True)

    _watch_steps(directories, act)
"""


def interpreter_with(path: Path, prelude: str, python: str = "/usr/bin/python3") -> str:
    """Write a Python that runs a prelude before the program of its ``-c``; returns its path."""
    path.write_text(interpreter_text(prelude, python), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def interpreter_text(prelude: str, python: str = "/usr/bin/python3") -> str:
    """Return the text of a Python that runs a prelude before the program of its ``-c``."""
    return f"#!{python} -IB\nimport sys\n{STEPS}\n{prelude}\nexec(sys.argv[sys.argv.index('-c') + 1])\n"


def interpreter_without_zstd(directory: Path) -> str:
    """Return an interpreter whose agent finds no zstd program."""
    prelude = "import shutil\nshutil.which = lambda name, path=None: None"
    return interpreter_with(directory / "python-without-zstd", prelude, sys.executable)


def agent_that_stops_at(directory: Path, number: int, watched: Path, log: Path | None = None) -> str:
    """Return an interpreter whose agent is killed before its step of that number (0: never) below a directory."""
    prelude = f"_stop_at({number}, [{str(watched)!r}], {str(log or '')!r})"
    return interpreter_with(directory / f"python-{number}-{time.monotonic_ns()}", prelude, sys.executable)


def agent_that_runs(directory: Path, command: str, needle: str, watched: str) -> str:
    """Return an interpreter whose agent runs a command before its first step that names something."""
    prelude = f"_run_when({needle!r}, [{watched!r}], {command!r})"
    return interpreter_with(directory / f"python-{time.monotonic_ns()}", prelude, sys.executable)


def controller(
    action: Literal["take", "put_back"], number: int, watched: Path, log: Path | None, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a create or a restore with an agent on this machine in a process that is killed before a step.

    The arguments are those of `_act`. Number 0 is never; ``log`` gets a line a step.
    """
    process = start_controller(
        action, *arguments, prelude=f"_stop_at({number}, [{str(watched)!r}], {str(log or '')!r})"
    )
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start_controller(
    action: Literal["take", "put_back"], *arguments: str, prelude: str = "", environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a create or a restore with an agent on this machine, in a process of its own."""
    program = (
        f"{STEPS}\nimport sys\nfrom tests.support.faults import _act\n{prelude}\n_act({action!r}, *sys.argv[1:])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT / 'build'}:{CHECKOUT}", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _act(action: str, repository: str, name: str, media: str, database: str) -> None:
    from tests.support.snapshots import local_agent, place_in, put_back

    place = place_in(Path(repository), name)
    if action == "put_back":
        put_back(place, Path(media), Path(database))
        return
    from ansible_collections.papermerge.backup.plugins.plugin_utils.create import create_snapshot

    request = request_on_host(name)
    request.media_root, request.database_url = media, f"sqlite:///{database}"
    with local_agent() as session:
        create_snapshot(session, place, request, silent())


def logged_steps(log: Path) -> list[str]:
    """Return the steps that a run has logged, one text each."""
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


# -- connections -------------------------------------------------------------------------------------------------------


class CuttingProxy:
    """A TCP proxy on the loopback address that ends each connection after so many bytes from the server.

    ``reset``: with RST instead of FIN. A limit of None passes everything; ``passed`` counts the server's bytes.
    """

    def __init__(self, address: str, port: int, limit: int | None, reset: bool = False) -> None:
        self._target = (address, port)
        self._limit = limit
        self._reset = reset
        self.passed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server, contextlib.suppress(OSError):
            passed = 0
            while True:
                ready, _writable, _failed = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is server:
                        if self._limit is not None and passed + len(data) >= self._limit:
                            client.sendall(data[: self._limit - passed])
                            self._cut(client, server)
                            return
                        passed += len(data)
                        self.passed += len(data)
                    (client if source is server else server).sendall(data)

    def _cut(self, *ends: socket.socket) -> None:
        if self._reset:
            for connection in ends:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# -- repositories that fill up -----------------------------------------------------------------------------------------


@contextmanager
def small_disk(directory: Path, kilobytes: int, kind: Literal["tmpfs", "ext4"] = "tmpfs") -> Iterator[None]:
    """Mount an empty file system of that size over a directory."""
    directory.mkdir(exist_ok=True)
    image = directory.with_name(directory.name + ".image")
    if kind == "tmpfs":
        execute(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "tmpfs", directory])
    else:
        with image.open("wb") as disk:
            disk.truncate(kilobytes << 10)
        execute(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image])
        execute(["mount", "-t", "ext4", "-o", "loop,errors=remount-ro", image, directory])
    try:
        yield
    finally:
        execute(["umount", "--lazy", directory])
        image.unlink(missing_ok=True)


def leave_free(directory: Path, size: int) -> Path:
    """Fill a file system until only so many bytes are free; returns the file whose removal makes room again."""
    ballast = directory / "ballast"
    status = os.statvfs(directory)
    ballast.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - size)))
    return ballast


def disk_error(directory: Path) -> None:
    """Make an ext4 of `small_disk` read-only in the middle of whatever is going on, as a disk error does."""
    device = os.stat(directory).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("caused by a test", encoding="ascii")


# -- compressors that fail ---------------------------------------------------------------------------------------------

COMPRESSORS = {
    "dies after some bytes": "head -c 5000 | {zstd} {arguments} | head -c 2000; kill -KILL $$",
    "fails at its end": "{zstd} {arguments}; exit 1",
    "cuts its output and says it went well": "{zstd} {arguments} | head -c 2000; exit 0",
    "drops its last block and says it went well": "{zstd} {arguments} | head -c -9; exit 0",
    "writes nothing and says it went well": "cat >/dev/null; exit 0",
}


def compressor_that(directory: Path, fault: str, zstd: str = "/usr/bin/zstd") -> dict[str, str]:
    """Write a zstd program with a fault and return the environment in which it is found first."""
    directory.mkdir()
    program = directory / "zstd"
    body = COMPRESSORS[fault].format(zstd=zstd, arguments='"$@"')
    program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


def dump(value: Any) -> str:
    """Return a value for a message."""
    return json.dumps(value, indent=1, default=str)
