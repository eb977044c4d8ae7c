# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of our own ssh client: what the user has told Ansible, and what must not be overruled."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.ssh import (
    OWN_OPTIONS,
    SshOptions,
    askpass_environment,
    options_from,
    prefer_quick_cipher,
    ssh_command,
    user_arguments,
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("-C -o ControlMaster=auto -o ControlPersist=60s", ["-o", "ControlMaster=auto", "-o", "ControlPersist=60s"]),
        ("-C", []),
        ("-Cq", ["-q"]),
        ("-qC", ["-q"]),
        ("-4Cvv", ["-4vv"]),
        ("-i -C", ["-i", "-C"]),
        ("-o -C", ["-o", "-C"]),
        ("-F /etc/C -C", ["-F", "/etc/C"]),
        ("-oCompression=yes", ["-oCompression=yes"]),
        ("-J 'jump host'", ["-J", "jump host"]),
        ("-o 'ProxyCommand=ssh -C -W %h:%p jump'", ["-o", "ProxyCommand=ssh -C -W %h:%p jump"]),
        ("-l C -p 22", ["-l", "C", "-p", "22"]),
        ("-tt -M -qt -v", ["-q", "-v"]),
        ("-S /tmp/a -v -S/tmp/b -S", ["-v"]),
        ("-i", ["-i"]),
        ("", []),
    ],
)
def test_compression_is_taken_out_of_a_users_arguments_and_nothing_else(given: str, kept: list[str]) -> None:
    assert user_arguments(given) == kept


def effective(argv: list[str]) -> dict[str, str]:
    """Return what the ssh program makes of a command line."""
    if not shutil.which("ssh"):
        pytest.fail("the ssh client is not installed")
    shown = subprocess.run([argv[0], "-G", "-F", "none", *argv[1:]], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in shown.stdout.splitlines() if " " in line)


@pytest.mark.parametrize(
    "arguments",
    [
        "-C -o ControlMaster=auto -o ControlPersist=60s",
        "-o Compression=yes -o ControlMaster=yes -o ControlPath=/tmp/shared",
        "-o ServerAliveInterval=0 -o ServerAliveCountMax=100 -o RequestTTY=force",
        "-Cq",
        "-tt",
        "-t",
        "-M",
        "-qtC",
        "-S /tmp/shared",
        "-S/tmp/shared -M",
    ],
)
def test_no_argument_of_a_user_brings_compression_a_shared_socket_or_a_terminal(arguments: str) -> None:
    found = effective(ssh_command(SshOptions(host="example.org", ssh_args=arguments), "true"))
    assert found["compression"] == "no"
    assert found["controlmaster"] == "false"
    assert found.get("controlpath", "none") == "none"
    assert found["serveraliveinterval"] == "15"
    assert found["serveralivecountmax"] == "3"
    assert found["requesttty"] == "false"


def test_the_users_options_reach_ssh() -> None:
    options = SshOptions(
        host="example.org",
        port=2222,
        user="backup user",
        private_key_file="/keys/a b",
        ssh_args="-o ForwardAgent=yes",
        common_args="-o ProxyJump=jump",
        extra_args="-o LogLevel=ERROR",
        host_key_checking=False,
        timeout=7,
    )
    found = effective(ssh_command(options, "true"))
    assert found["hostname"] == "example.org"
    assert (found["port"], found["user"]) == ("2222", "backup user")
    assert found["identityfile"] == "/keys/a b"
    assert (found["forwardagent"], found["proxyjump"], found["loglevel"]) == ("yes", "jump", "ERROR")
    assert found["stricthostkeychecking"] == "false"
    assert (found["connecttimeout"], found["batchmode"]) == ("7", "yes")


def test_our_options_stand_first_and_the_host_cannot_be_taken_for_an_option() -> None:
    argv = ssh_command(SshOptions(host="-oProxyCommand=reboot", ssh_args="-v", executable="/usr/bin/ssh"), "a 'b' c")
    own = [word for setting in OWN_OPTIONS for word in ("-o", setting)]
    assert argv[: len(own) + 1] == ["/usr/bin/ssh", *own]
    assert argv[-3:-1] == ["--", "-oProxyCommand=reboot"]
    assert shlex.split(argv[-1]) == ["/bin/sh", "-c", "a 'b' c"]


def test_a_password_is_asked_for_by_a_program_and_stands_nowhere_else() -> None:
    options = SshOptions(host="h", password="s3cr3t word\\")
    argv = ssh_command(options, "true")
    assert "BatchMode=yes" not in argv
    assert not any("s3cr3t" in word for word in argv)
    with askpass_environment(options.password) as environment:
        assert environment is not None
        assert not any("s3cr3t" in value for value in environment.values())
        program = environment["SSH_ASKPASS"]
        folder = os.path.dirname(program)
        assert os.stat(folder).st_mode & 0o077 == 0
        with open(program, encoding="utf-8") as stream:
            assert "s3cr3t" not in stream.read()
        answer = subprocess.run([program, "password:"], capture_output=True, text=True, check=True)
        assert answer.stdout == "s3cr3t word\\\n"
    assert not os.path.exists(folder)


def test_a_password_that_nobody_asks_for_keeps_nothing_waiting() -> None:
    before = threading.active_count()
    with askpass_environment("secret"):
        pass
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.daemon:
            thread.join(2.0)
    assert threading.active_count() <= before
    with askpass_environment(None) as environment:
        assert environment is None


def test_the_options_of_ansibles_connection_are_read() -> None:
    values: dict[str, object] = {"host": "h", "port": "22", "remote_user": "u", "ssh_args": "-v", "timeout": "5"}
    options = options_from(values.get)
    assert (options.host, options.port, options.user, options.ssh_args, options.timeout) == ("h", 22, "u", "-v", 5)
    assert (options.executable, options.common_args, options.password, options.private_key_file) == (
        "ssh",
        "",
        None,
        None,
    )
    assert options.host_key_checking is False
    assert options_from({"host": "h"}.get).timeout == 10


def ciphers_of(argv: list[str]) -> list[str]:
    said = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("ciphers ")).split(",")


def test_the_quickest_cipher_is_preferred_among_those_that_were_offered_anyhow(tmp_path: Path) -> None:
    if shutil.which("ssh") is None or " aes " not in Path("/proc/cpuinfo").read_text("ascii"):
        pytest.skip("no ssh, or a processor without AES")
    usual = ssh_command(SshOptions("somewhere"), "true")
    quick = prefer_quick_cipher(usual)
    assert ciphers_of(usual)[0] == "chacha20-poly1305@openssh.com"
    assert ciphers_of(quick)[0] == "aes128-gcm@openssh.com"
    assert set(ciphers_of(quick)) == set(ciphers_of(usual))
    assert quick[-3:] == usual[-3:]

    config = tmp_path / "config"
    for chosen in ("aes256-ctr", "chacha20-poly1305@openssh.com,aes256-ctr"):
        config.write_text(f"Ciphers {chosen}\n", encoding="ascii")
        strict = ssh_command(SshOptions("somewhere", common_args=f"-F {config}"), "true")
        assert prefer_quick_cipher(strict) == strict
    own = ssh_command(SshOptions("somewhere", extra_args="-c aes256-ctr"), "true")
    assert prefer_quick_cipher(own) == own


def test_an_ssh_that_does_not_answer_for_its_settings_is_used_as_it_is() -> None:
    argv = ssh_command(SshOptions("somewhere", executable="/bin/false"), "true")
    assert prefer_quick_cipher(argv) == argv
    argv = ssh_command(SshOptions("somewhere", executable="/nowhere/ssh"), "true")
    assert prefer_quick_cipher(argv) == argv
