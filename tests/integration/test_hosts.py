# SPDX-License-Identifier: GPL-3.0-or-later
"""The test hosts do what the other tests believe of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.hosts.base import LOGIN_USERS, OPERATOR_PASSWORD
from tests.support.hosts.bench import HostBench
from tests.support.hosts.commands import BenchError, Completed, execute
from tests.support.hosts.fixtures import fresh_host, healed_hosts, host_bench, hosts
from tests.support.hosts.host import Host

__all__ = ["fresh_host", "healed_hosts", "host_bench", "hosts"]

CHECKOUT = Path(__file__).parents[2]
ALIVE = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2", "-o", "ConnectTimeout=3")


def ssh(host: Host, user: str, command: str, *, input: str | None = None) -> Completed:
    return execute([*host.ssh_command(user, *ALIVE), command], check=False, input=input, timeout=30)


@contextmanager
def ssh_session(host: Host) -> Iterator[subprocess.Popen[str]]:
    """An open session that answers each line with the same line."""
    process = subprocess.Popen(
        [*host.ssh_command("admin", *ALIVE), "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        assert echoed(process, "hello") == "hello\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def echoed(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    return process.stdout.readline()


@pytest.mark.parametrize("user", LOGIN_USERS)
def test_every_user_logs_in_by_key_and_the_host_key_is_known(hosts: dict[str, Host], user: str) -> None:
    for host in hosts.values():
        logged_in = ssh(host, user, "whoami; hostname")
        assert (logged_in.stdout, logged_in.returncode) == (f"{user}\n{host.name}\n", 0), logged_in.stderr


def test_the_service_user_cannot_log_in(hosts: dict[str, Host]) -> None:
    assert ssh(hosts["one"], "papermerge", "true").returncode == 255


def test_sudo_and_doas_are_as_promised(hosts: dict[str, Host]) -> None:
    one = hosts["one"]
    assert ssh(one, "admin", "sudo -n whoami").stdout == "root\n"
    assert ssh(one, "admin", "sudo -n -u papermerge whoami").stdout == "papermerge\n"
    assert ssh(one, "operator", "sudo -n whoami").returncode == 1
    assert ssh(one, "operator", "sudo -S -p '' whoami", input=f"{OPERATOR_PASSWORD}\n").stdout == "root\n"
    assert ssh(one, "operator", "sudo -S -p '' whoami", input="wrong\n").returncode == 1
    assert ssh(one, "plain", "sudo -n whoami").returncode == 1
    assert ssh(one, "plain", "doas -n whoami").returncode == 1
    assert ssh(one, "doer", "doas -n whoami").stdout == "root\n"


def test_users_have_ordinary_ids_and_the_service_user_a_system_id(hosts: dict[str, Host]) -> None:
    for user in ("admin", "operator", "plain", "doer"):
        assert int(hosts["one"].run("id -u", user=user).stdout) >= 1000
    assert int(hosts["one"].run("id -u papermerge").stdout) < 1000


def test_run_says_what_failed(hosts: dict[str, Host]) -> None:
    one = hosts["one"]
    with pytest.raises(BenchError, match=r"exit status 3 .* no such luck"):
        one.run("echo no such luck >&2; exit 3")
    assert one.run("exit 3", check=False).returncode == 3
    assert one.run(["cat"], input=b"\xff\x00").stdout == "\udcff\0"
    assert one.run("pwd; id -un", user="admin").stdout == "/home/admin\nadmin\n"
    with pytest.raises(BenchError, match=r"not finished after 0\.5 s"):
        one.run("sleep 1000", timeout=0.5)
    assert "sleep 1000" not in [command for _pid, command in one.processes()]


def test_files_arrive_with_owner_mode_and_time(hosts: dict[str, Host], tmp_path: Path) -> None:
    one = hosts["one"]
    one.put("/srv/a b/file", b"\0data", mode=0o640, owner="papermerge")
    assert one.run("stat -c '%U:%G %a %s' '/srv/a b/file'").stdout == "papermerge:papermerge 640 5\n"
    assert (one.root / "srv/a b/file").read_bytes() == b"\0data"
    one.put("/tmp/note", "text", owner="operator")
    assert one.run("stat -c %U:%G /tmp/note").stdout == "operator:operator\n"

    (tmp_path / "below").mkdir()
    (tmp_path / "below/x").write_text("x")
    (tmp_path / "below/x").chmod(0o604)
    one.put_tree(tmp_path, "/srv/tree", owner="papermerge")
    assert one.files_under("/srv/tree") == ["/srv/tree/below", "/srv/tree/below/x"]
    assert one.run("stat -c '%U %a' /srv/tree/below/x").stdout == "papermerge 604\n"
    assert (one.root / "srv/tree/below/x").stat().st_mtime_ns == (tmp_path / "below/x").stat().st_mtime_ns


def test_the_inventory_says_how_to_log_in(hosts: dict[str, Host]) -> None:
    variables = hosts["two"].inventory("admin", ansible_become=True)
    assert variables["ansible_host"] == hosts["two"].address
    assert variables["ansible_become"] is True
    common = str(variables["ansible_ssh_common_args"]).split()
    login = [
        "-i",
        variables["ansible_ssh_private_key_file"],
        f"{variables['ansible_user']}@{variables['ansible_host']}",
    ]
    assert execute(["ssh", *common, "-o", "BatchMode=yes", *login, "hostname"]).stdout == "two\n"


def test_a_cut_breaks_an_open_connection(healed_hosts: dict[str, Host]) -> None:
    one = healed_hosts["one"]
    with ssh_session(one) as session:
        one.cut()
        _output, errors = session.communicate(timeout=20)
        assert session.returncode == 255
        assert "not responding" in errors
    assert ssh(one, "admin", "true").returncode == 255
    assert ssh(healed_hosts["two"], "admin", "true").returncode == 0
    one.mend()
    assert ssh(one, "admin", "true").returncode == 0


def test_an_open_connection_survives_a_short_cut(healed_hosts: dict[str, Host]) -> None:
    one = healed_hosts["one"]
    with ssh_session(one) as session:
        one.cut()
        time.sleep(0.5)
        one.mend()
        assert echoed(session, "still there") == "still there\n"


def test_a_frozen_host_accepts_connections_and_answers_none(healed_hosts: dict[str, Host]) -> None:
    one = healed_hosts["one"]
    with ssh_session(one) as session:
        one.freeze()
        refused = ssh(one, "admin", "true")
        assert refused.returncode == 255
        assert "timed out" in refused.stderr
        assert one.run("echo up").stdout == "up\n"
        _output, errors = session.communicate(timeout=20)
        assert "not responding" in errors
    one.thaw()
    assert ssh(one, "admin", "true").returncode == 0


def test_a_power_cut_keeps_the_files_and_ends_the_processes(healed_hosts: dict[str, Host]) -> None:
    one = healed_hosts["one"]
    one.put("/srv/kept", "kept")
    with ssh_session(one) as session:
        one.freeze()
        one.power_cut()
        assert not one.is_on
        with pytest.raises(BenchError, match="one is off"):
            one.run("true")
        one.boot()
        session.communicate(timeout=20)
        assert session.returncode == 255
    assert one.run("cat /srv/kept").stdout == "kept"
    assert "cat" not in [command for _pid, command in one.processes()]
    assert ssh(one, "admin", "true").returncode == 0


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_small_file_system_fills_up(fresh_host: Host, kind: str) -> None:
    fresh_host.put("/srv/media/old", "old", owner="papermerge")
    fresh_host.run("chown papermerge: /srv/media; chmod 750 /srv/media")
    with fresh_host.small_filesystem("/srv/media", 8, "ext4" if kind == "ext4" else "tmpfs"):
        assert fresh_host.files_under("/srv/media") == []
        assert fresh_host.run("stat -c '%U %a' /srv/media").stdout == "papermerge 750\n"
        full = fresh_host.run("head -c 9M /dev/zero >/srv/media/big", user="papermerge", check=False)
        assert "No space left on device" in full.stderr
        assert fresh_host.run("stat -c %s /srv/media/big").stdout > "6000000"
    assert fresh_host.files_under("/srv/media") == ["/srv/media/old"]


def test_a_disk_error_makes_open_files_read_only(fresh_host: Host) -> None:
    with fresh_host.small_filesystem("/srv/media", 8):
        script = "exec 3>/srv/media/f; echo 1 >&3; echo ready; read go; echo 2 >&3"
        writer = subprocess.Popen(
            [*fresh_host.ssh_command("root"), script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        fresh_host.remount_read_only("/srv/media")
        _output, errors = writer.communicate("go\n", timeout=20)
        assert "I/O error" in errors or "Read-only file system" in errors
        assert "Read-only" in fresh_host.run("touch /srv/media/g", check=False).stderr


def test_a_directory_becomes_read_only_and_writable_again(fresh_host: Host) -> None:
    fresh_host.put("/srv/media/f", "f")
    fresh_host.remount_read_only("/srv/media")
    assert "Read-only file system" in fresh_host.run("touch /srv/media/g", check=False).stderr
    assert fresh_host.run("cat /srv/media/f").stdout == "f"
    fresh_host.heal()
    fresh_host.run("touch /srv/media/g")


def test_a_slow_link_is_slow_both_ways(healed_hosts: dict[str, Host]) -> None:
    one = healed_hosts["one"]
    megabyte = "x" * 1_000_000

    def seconds(*, upload: bool) -> float:
        started = time.monotonic()
        if upload:
            assert ssh(one, "admin", "wc -c", input=megabyte).stdout == "1000000\n"
        else:
            assert len(ssh(one, "admin", "head -c 1000000 /dev/zero").stdout) == 1_000_000
        return time.monotonic() - started

    one.slow("8mbit")
    assert seconds(upload=True) > 0.8
    assert seconds(upload=False) > 0.8
    one.full_speed()
    assert seconds(upload=True) < 0.8


def test_hidden_programs_are_not_found_until_they_come_back(healed_hosts: dict[str, Host]) -> None:
    one = healed_hosts["one"]
    one.hide("/usr/bin/zstd", "/usr/bin/python3*")
    found = "command -v zstd python3 python3.11"
    assert one.run(found, check=False).stdout == ""
    assert ssh(one, "admin", found).stdout == ""
    one.unhide("/usr/bin/zstd")
    assert one.run(found, check=False).stdout == "/usr/bin/zstd\n"
    one.unhide()
    assert ssh(one, "admin", "python3 --version").returncode == 0
    with pytest.raises(BenchError, match="one has no /usr/bin/no-such"):
        one.hide("/usr/bin/no-such")


def test_the_list_of_processes_shows_what_is_left(hosts: dict[str, Host]) -> None:
    one = hosts["one"]
    assert one.processes()[0][0] == 1
    with ssh_session(one):
        assert "cat" in [command for _pid, command in one.processes()]


def traces(bench: HostBench) -> list[str]:
    """What this machine shows of the bench: processes, mounts, links, namespaces, files."""
    name, directory = bench.network.bridge, str(bench.directory)
    found = [f"link {line}" for line in execute(["ip", "-o", "link"]).stdout.splitlines() if name in line]
    found += [
        f"namespace {line}" for line in execute(["ip", "netns"]).stdout.splitlines() if line.startswith(f"{name}-")
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode("utf-8", "replace")
            mounts = (process / "mountinfo").read_text(errors="surrogateescape")
            group = (process / "cgroup").read_text()
        except OSError:
            continue
        if f"{name}-" in command or f"/{name}" in group:
            found.append(f"process {process.name} {command}")
        if f"{directory}/" in mounts:
            found.append(f"mount seen by {process.name} {command}")
    if bench.directory.exists():
        found.append(f"directory {directory}")
    loops = execute(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]).stdout
    return found + [f"loop {line}" for line in loops.splitlines() if line.startswith(f"{directory}/")]


def test_benches_stand_side_by_side_and_leave_nothing() -> None:
    with HostBench() as bench, HostBench() as other:
        assert bench.network.bridge != other.network.bridge
        here = bench.start_many(["one", "two"])
        there = other.start("one")
        here[1].run(["bash", "-c", f"read -r -n 4 hello </dev/tcp/{here[0].address}/22; test $hello = SSH-"])
        for host in (*here, there):
            assert ssh(host, "admin", "hostname").stdout == f"{host.name}\n"
        here[0].freeze()
        here[1].power_cut()
        assert traces(bench) != []
    assert traces(bench) == []
    assert traces(other) == []


def test_a_host_that_does_not_boot_says_why_and_leaves_nothing() -> None:
    with HostBench() as bench:
        with pytest.raises(BenchError, match="no host name"):
            bench.start("Bad_Name")
        bench.start("good")
        with pytest.raises(BenchError, match="there is a host good already"):
            bench.start_many(["good", "other"])
        assert (bench.directory / "hosts/other").exists()
        init = bench.directory / "layers/bad/upper/usr/lib/systemd/systemd"
        init.parent.mkdir(parents=True)
        init.write_text("no program")
        with pytest.raises(BenchError, match=r"bad did not boot, systemd-nspawn ended with 1 .*[Ee]xec"):
            bench.start("bad")
        assert not (bench.directory / "hosts/bad").exists()
    assert traces(bench) == []


KILLED = """
import os, signal, sys
from tests.support.hosts.bench import HostBench

bench = HostBench()
bench.__enter__()
host = bench.start("lost")
host.freeze()
with host.small_filesystem("/srv/media", 8):
    print(bench.directory, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_with_the_next_bench() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
    )
    assert killed.returncode == -9, killed.stderr
    left = Path(killed.stdout.strip())
    assert (left / "hosts/lost/root/etc").is_dir()
    with HostBench() as bench:
        assert not (left / "hosts/lost").exists()
        assert traces(bench) != []
    assert traces(bench) == []
    assert not left.exists()
