# SPDX-License-Identifier: GPL-3.0-or-later
"""One test host: a real system with its own init, users, network and sshd, and the faults that can be done to it."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tests.support.hosts.base import LOGIN_USERS
from tests.support.hosts.commands import BenchError, Completed, execute
from tests.support.hosts.control_group import ControlGroup
from tests.support.hosts.network import Network
from tests.support.hosts.storage import mount_overlay, remove_tree, unmount_under

BOOT_SECONDS = 90
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HIDDEN = PurePosixPath("/var/lib/hidden-by-test")

# Runs in a mount namespace of its own. nspawn wants to see the unified hierarchy where this machine may have the old
# one. Without --register and with --keep-unit it needs no systemd on this machine. A host sets the kernel's
# parameters of its own network, as a container engine has to.
LAUNCH = """
umount -R /sys/fs/cgroup 2>/dev/null
set -e
echo $$ >"$1/cgroup.procs"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=$1 root=$2 machine=$3 name=$4
shift 4
exec env -i PATH="$PATH" SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network \
  systemd-nspawn --quiet --boot --directory="$root" --machine="$machine" --hostname="$name" \
  --network-namespace-path="/run/netns/$machine" --register=no --keep-unit --console=pipe \
  --resolv-conf=off --timezone=off --link-journal=no "$@"
"""


class Host:
    """A host of a bench; made and removed by HostBench only.

    `name`, `address` (IPv4), `root` (the host's file system as seen from outside: what the host has mounted over it,
    such as /tmp and /run, is not seen there), `private_key` (of every user that can log in), `known_hosts`.
    """

    def __init__(
        self,
        *,
        name: str,
        index: int,
        network: Network,
        directory: Path,
        layers: Path,
        group: ControlGroup,
        private_key: Path,
        control_sockets: Path,
        rights: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.index = index
        self.address = network.address(index)
        self.private_key = private_key
        self.root = directory / "root"
        self.known_hosts = directory / "known_hosts"
        self.console = directory / "console.log"
        self._directory = directory
        self._layers = layers
        self._network = network
        self.group = group
        self._control_sockets = control_sockets
        self._rights = rights
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._hidden: dict[PurePosixPath, Path] = {}
        self._read_only: list[str] = []

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {self.address})"

    # What HostBench does with it

    def install(self, base: Path) -> None:
        """Make the host's disk and network, not yet running. Raises BenchError."""
        self.root.mkdir(parents=True)
        mount_overlay(base, self._layers, self.root)
        etc = self.root / "etc"
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n", encoding="ascii")
        (etc / "hostname").write_text(f"{self.name}\n", encoding="ascii")
        public_key = self.private_key.with_suffix(".pub").read_text(encoding="ascii")
        for user in LOGIN_USERS:
            (etc / "ssh/authorized_keys.d" / user).write_text(public_key, encoding="ascii")
        host_key = etc / "ssh/ssh_host_ed25519_key"
        execute(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", host_key])
        self.known_hosts.write_text(
            f"{self.address} {host_key.with_suffix('.pub').read_text(encoding='ascii')}", encoding="ascii"
        )
        self._network.connect(self.name, self.index)

    def destroy(self) -> None:
        """End the host and remove all of it; fine for a host that never came up. Raises BenchError."""
        self._stop()
        self._network.disconnect(self.name, self.index)
        unmount_under(self._directory)
        remove_tree(self._directory)
        remove_tree(self._layers)

    # Power

    @property
    def is_on(self) -> bool:
        """Whether the host's PID 1 is alive."""
        return self.group.first_process() is not None

    @property
    def first_process(self) -> int:
        """The id of the host's PID 1 on this machine, whose /proc/ID/root is all that the host sees.

        Raises BenchError when the host is off.
        """
        return self._running()

    def boot(self) -> None:
        """Start the host and return when its sshd answers, else raise BenchError with the end of its console."""
        if self.is_on:
            raise BenchError(f"{self.name} is running already")
        self.group.create()
        with self.console.open("ab") as console:
            arguments = [str(self.group.path), str(self.root), self._network.namespace(self.name), self.name]
            arguments += self._rights
            self._supervisor = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", LAUNCH, "launch", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        end = time.monotonic() + BOOT_SECONDS
        while not self._answers():
            ended = self._supervisor.poll()
            if ended is not None or time.monotonic() > end:
                state = "no sshd answers" if ended is None else f"systemd-nspawn ended with {ended}"
                said = self.console.read_text(encoding="utf-8", errors="replace")[-1500:]
                raise BenchError(f"{self.name} did not boot, {state} (many hosts: fs.inotify limits?): {said}")
            time.sleep(0.05)

    def power_cut(self) -> None:
        """End every process of the host at once, as a power cut does; `boot` starts it again on the same disk.

        What the host had written is still there, synced or not: the disk's cache is this machine's.
        """
        self._stop()

    def _stop(self) -> None:
        self.group.kill()
        if self._supervisor is not None:
            self._supervisor.wait(10)
        if self.group.path.is_dir():
            self.group.remove()
        self._read_only.clear()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    # Commands and files

    def run(
        self,
        command: str | Sequence[str],
        *,
        user: str = "root",
        check: bool = True,
        input: str | bytes | None = None,
        timeout: float = 60,
    ) -> Completed:
        """Run a shell command line, or a program with arguments, in the host as the user, in the user's home directory.

        Needs neither the network, sshd nor Python of the host, and works while it is cut off or frozen. Raises
        BenchError when the host is off, for an exit status other than 0 (unless check is false), or for the timeout.
        """
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        return execute([*self._enter(user), *words], check=check, input=input, timeout=timeout)

    def ssh_command(self, user: str, *options: str) -> list[str]:
        """Return the start of an ssh command line that logs in with the key; the remote command follows it."""
        login = ["-o", "BatchMode=yes", "-i", str(self.private_key)]
        return ["ssh", *self._ssh_options(), *login, *options, f"{user}@{self.address}"]

    def put(self, path: str, data: str | bytes, mode: int = 0o644, owner: str = "root") -> None:
        """Write a file, making directories (owned by root) as needed, with the owner's own group. Raises BenchError."""
        target = shlex.quote(path)
        self.run(
            f'set -e; mkdir -p "$(dirname {target})"; rm -f {target}; umask 077; cat >{target}; '
            f"chown {shlex.quote(owner)}: {target}; chmod {mode:o} {target}",
            input=data,
        )

    def put_tree(self, source: Path, destination: str, owner: str = "root") -> None:
        """Copy what is in a directory into one of the host, made if need be, everything owned by owner and its group.

        Modes and modification times (to the nanosecond) are kept. Raises BenchError.
        """
        uid, gid, _home = self._account(owner)
        self.run(["mkdir", "-p", destination])
        pack = ["tar", "--create", "--format=posix", "--numeric-owner", f"--owner={uid}", f"--group={gid}"]
        unpack = ["tar", "--extract", "--numeric-owner", "--preserve-permissions", "--directory", destination]
        with subprocess.Popen([*pack, "--directory", str(source), "."], stdout=subprocess.PIPE) as packer:
            unpacked = subprocess.run(
                [*self._enter("root"), *unpack],
                stdin=packer.stdout,
                stderr=subprocess.PIPE,
                check=False,
            )
        if packer.returncode != 0 or unpacked.returncode != 0:
            said = unpacked.stderr.decode("utf-8", "replace")[-2000:]
            raise BenchError(f"copying {source} to {self.name}:{destination} failed: {said}")

    def files_under(self, *paths: str) -> list[str]:
        """Return the sorted absolute paths of everything below the directories, file systems mounted there included.

        Raises BenchError for a path that does not exist.
        """
        found = self.run(["find", *paths, "-mindepth", "1", "-print0"]).stdout
        return sorted(found.split("\0")[:-1])

    def processes(self) -> list[tuple[int, str]]:
        """Return (pid in the host, command line) of every process in the host."""
        mine = self._namespace_of(self._running())
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and self._namespace_of(int(process.name)) == mine:
                try:
                    words = (process / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
                    status = (process / "status").read_text(encoding="utf-8", errors="replace")
                except OSError:  # it has just ended
                    continue
                inner = next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))
                found.append((int(inner), " ".join(words)))
        return sorted(found)

    def inventory(self, user: str = "admin", **extra: Any) -> dict[str, Any]:
        """Return the host's Ansible variables for logging in as the user, with the extra ones added."""
        return {
            "ansible_host": self.address,
            "ansible_user": user,
            "ansible_ssh_private_key_file": str(self.private_key),
            "ansible_ssh_common_args": shlex.join(self._ssh_options()),
            # Away from ~/.ansible/cp, where a connection to an earlier host of this address may still be kept open.
            "ansible_control_path_dir": str(self._control_sockets),
            **extra,
        }

    def _ssh_options(self) -> list[str]:
        options = {
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
        }
        return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]

    def _enter(self, user: str) -> list[str]:
        uid, gid, home = self._account(user)
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"] if uid else []
        identity = [f"HOME={home}", f"USER={user}", f"LOGNAME={user}", "SHELL=/bin/sh", "LANG=C.UTF-8"]
        enter = ["nsenter", "--target", str(self._running()), *spaces]
        return [*enter, "env", "-i", "--chdir", home, f"PATH={PATH}", *identity, *become]

    def _account(self, user: str) -> tuple[int, int, str]:
        for line in (self.root / "etc/passwd").read_text(encoding="utf-8").splitlines():
            name, _password, uid, gid, _comment, home, _shell = line.split(":")
            if name == user:
                return int(uid), int(gid), home
        raise BenchError(f"{self.name} has no user {user}")

    def _running(self) -> int:
        first = self.group.first_process()
        if first is None:
            raise BenchError(f"{self.name} is off; boot it first")
        return first

    def _namespace_of(self, process: int) -> str | None:
        try:
            return os.readlink(f"/proc/{process}/ns/pid")
        except OSError:
            return None

    def moved_bytes(self) -> int:
        """Return how many bytes have passed the host's network cable since it was made, in both directions."""
        counters = Path("/sys/class/net", self._network.cable(self.index), "statistics")
        return sum(int((counters / name).read_text("ascii")) for name in ("rx_bytes", "tx_bytes"))

    # Faults; `heal` undoes them all

    def cut(self) -> None:
        """Pull the network cable: open connections hang, new ones find no route or time out."""
        execute(["ip", "link", "set", self._network.cable(self.index), "down"])

    def mend(self) -> None:
        """Plug the network cable in again; connections that have not timed out go on."""
        execute(["ip", "link", "set", self._network.cable(self.index), "up"])

    def freeze(self) -> None:
        """Stop all processes: the kernel still accepts connections, nothing answers. `run` still works."""
        self._running()
        self.group.freeze(True)

    def thaw(self) -> None:
        """Let the processes go on."""
        self.group.freeze(False)

    def slow(self, rate: str = "20mbit", latency: str = "50ms") -> None:
        """Limit the link to the rate (as tc writes it) in both directions; latency bounds what waits in its queue."""
        limit = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", latency]
        for prefix, device in self._ends():
            execute([*prefix, "qdisc", "replace", "dev", device, *limit])

    def full_speed(self) -> None:
        """Take the limit of `slow` away."""
        for prefix, device in self._ends():
            if " tbf " in execute([*prefix, "qdisc", "show", "dev", device, "root"]).stdout:
                execute([*prefix, "qdisc", "delete", "dev", device, "root"])

    def hide(self, *paths: str) -> None:
        """Make files disappear, so that the programs seem not installed. Names may be patterns: /usr/bin/python3*.

        Raises BenchError when nothing matches a path.
        """
        store = self._outside(HIDDEN)
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in paths:
            pattern = PurePosixPath(path)
            parent = self._outside(pattern.parent)
            names = sorted(found.name for found in parent.glob(pattern.name))
            if not names:
                raise BenchError(f"nothing to hide: {self.name} has no {path}")
            for name in names:
                visible = pattern.parent / name
                self._hidden[visible] = store / str(visible).strip("/").replace("/", ":")
                execute(["mv", "-T", parent / name, self._hidden[visible]])

    def unhide(self, *paths: str) -> None:
        """Bring back what `hide` took away: the paths that match, or everything when none is given."""
        for visible, hidden in list(self._hidden.items()):
            if not paths or any(visible.match(path) for path in paths):
                execute(["mv", "-T", hidden, self._outside(visible.parent) / visible.name])
                del self._hidden[visible]

    @contextmanager
    def small_filesystem(self, path: str, megabytes: int, kind: Literal["ext4", "tmpfs"] = "ext4") -> Iterator[None]:
        """Mount an empty file system of that size (MiB) over the directory, made if need be; owner and mode stay.

        What the directory held is out of sight until the end. Root can use all of it. Raises BenchError.
        """
        point = shlex.quote(path)
        self.run(["mkdir", "-p", path])
        owner = self.run(["stat", "-c", "%u:%g %a", path]).stdout.split()
        image = self._directory / f"disk-{time.monotonic_ns()}"
        if kind == "tmpfs":
            self.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path])
        else:
            with image.open("wb") as disk:
                disk.truncate(megabytes << 20)
            execute(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image])
            device = execute(["losetup", "--find", "--show", image]).stdout.strip()
            try:
                number = os.stat(device).st_rdev
                node = f"/dev/test-{os.minor(number)}"
                self.run(
                    f"set -e; mknod {node} b {os.major(number)} {os.minor(number)}; trap 'rm {node}' EXIT; "
                    f"mount -t ext4 -o errors=remount-ro {node} {point}; rmdir {point}/lost+found"
                )
            finally:
                execute(["losetup", "--detach", device])  # at once, or as soon as it is unmounted
        booted = self._running()
        try:
            self.run(f"chown {owner[0]} {point}; chmod {owner[1]} {point}")
            yield
        finally:
            if self.group.first_process() == booted:
                self.run(["umount", "--lazy", path])
            image.unlink(missing_ok=True)

    def remount_read_only(self, path: str) -> None:
        """Make a directory read-only, also for root.

        On an ext4 of `small_filesystem` this is a disk error: files that are open for writing get EROFS too, and it
        stays so. Elsewhere the directory is mounted read-only over itself, until `remount_writable`, which leaves
        files that are already open as they are. Raises BenchError.
        """
        mounted = self.run(["findmnt", "--noheadings", "--output", "FSTYPE,MAJ:MIN", "--mountpoint", path], check=False)
        kind, _space, number = (
            mounted.stdout.splitlines()[-1].partition(" ") if mounted.returncode == 0 else ("", "", "")
        )
        if kind == "ext4":
            device = Path(f"/sys/dev/block/{number.strip()}").resolve().name
            Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("caused by a test", encoding="ascii")
        else:
            self.run(["mount", "--bind", path, path])
            self._read_only.append(path)
            self.run(["mount", "-o", "remount,bind,ro", path])

    def remount_writable(self, path: str) -> None:
        """Undo `remount_read_only` of a directory that is not on an ext4 of its own."""
        self._read_only.remove(path)
        self.run(["umount", "--lazy", path])

    def heal(self) -> None:
        """Undo every fault: power on, thawed, cable in, full speed, nothing hidden or read-only."""
        self.mend()
        self.full_speed()
        self.unhide()
        if self.is_on:
            self.thaw()
        else:
            self._stop()
            self.boot()
        for path in list(self._read_only):
            self.remount_writable(path)

    def _ends(self) -> list[tuple[list[str], str]]:
        inside = ["tc", "-n", self._network.namespace(self.name)]
        return [(["tc"], self._network.cable(self.index)), (inside, "eth0")]

    def _outside(self, path: PurePosixPath) -> Path:
        outside = (self.root / str(path).lstrip("/")).resolve()
        if not path.is_absolute() or not outside.is_relative_to(self.root.resolve()):
            raise BenchError(f"{path} is not an absolute path that stays inside {self.name}'s own file system")
        return outside


def ssh_control_exit(sockets: Path) -> None:
    """End the ssh master connections whose control sockets are in the directory."""
    if shutil.which("ssh") is None or not sockets.is_dir():
        return
    for control in sockets.iterdir():
        if control.is_socket():
            try:
                execute(["ssh", "-o", f"ControlPath={control}", "-O", "exit", "nobody"], check=False, timeout=10)
            except BenchError:  # its host is going away, and it with that
                continue
