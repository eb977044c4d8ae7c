# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversation with an agent: how it starts, how either side ends it, and what is left behind (nothing)."""

from __future__ import annotations

import io
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent import protocol
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    ConnectionLost,
    DamageError,
    LoginError,
    SpaceError,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport import streamed
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Handlers,
    handle_until_result,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import Login, StreamedSession
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import WatchedSession, changed_agent, local_agent, put_back, take


def target_facts(session: Any, root: Path) -> dict[str, Any]:
    """Ask an agent something small."""
    return session.call(  # type: ignore[no-any-return]
        Call("scan_media", {"root": str(root), "media_allowed_roots": [], "excluded": [], "fingerprints": False})
    )


def shell(text: str, timeout: float = 20.0, login: Login | None = None) -> StreamedSession:
    return StreamedSession(["/bin/sh", "-c", text], "dms1", login, timeout)


@pytest.mark.parametrize(
    "chatter",
    [
        "echo Welcome; echo 'Last login: today'; ",
        "printf 'no newline'; ",
        "printf 'papermerge.backup agent '; ",
        "head -c 300000 /dev/urandom; ",
        "echo to standard error >&2; ",
    ],
)
def test_what_a_login_shell_prints_before_the_agent_is_passed_over(chatter: str, tmp_path: Path) -> None:
    with local_agent(before=chatter) as session:
        assert target_facts(session, tmp_path)["files"] == 0


def test_a_login_that_prints_without_end_or_says_nothing_is_given_up() -> None:
    with pytest.raises(ConnectionLost, match="prints without end"):
        shell("cat /dev/zero")
    begun = time.monotonic()
    with pytest.raises(ConnectionLost, match="nothing heard"):
        shell("sleep 60", timeout=0.5)
    assert time.monotonic() - begun < 20


def test_a_host_without_python_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    command = agent_command(None)
    for name in ("/usr/bin/python3", "/usr/libexec/platform-python", "/usr/local/bin/python3"):
        command = command.replace(name, "/nowhere/python3")
    with pytest.raises(
        LoginError, match=r"dms1: the agent could not be started .*no Python 3\.8 or later on this host"
    ):
        StreamedSession(["/bin/sh", "-c", command], "dms1", environment={"PATH": str(tmp_path)})


@pytest.mark.parametrize("interpreter", ["/nowhere/python3", "/bin/false"])
def test_an_interpreter_that_does_not_run_is_told(interpreter: str) -> None:
    with pytest.raises(LoginError, match="dms1: the agent could not be started"):
        shell(agent_command(interpreter))


def test_an_old_python_is_passed_over_and_named_when_it_was_asked_for(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(
        f"#!/bin/sh\nfor last; do :; done\nexec {shlex.quote(sys.executable)} -I -c "
        '"import sys; sys.version_info = (3, 7, 9); exec(sys.argv[1])" "$last"\n'
    )
    old.chmod(0o755)
    with pytest.raises(LoginError, match=r"no Python 3\.8 or later"):
        shell(agent_command(str(old)))
    path = f"{tmp_path}:{os.path.dirname(sys.executable)}:/usr/bin:/bin"
    with StreamedSession(["/bin/sh", "-c", agent_command(None)], "dms1", environment={"PATH": path}) as session:
        assert target_facts(session, tmp_path)["files"] == 1


def test_a_program_that_cannot_be_started_is_named() -> None:
    with pytest.raises(ConnectionLost, match="cannot start /nowhere/ssh: No such file"):
        StreamedSession(["/nowhere/ssh"], "dms1")


def test_a_connection_that_fails_says_its_last_words() -> None:
    with pytest.raises(ConnectionLost, match=r"status 255.*No route to host"):
        shell("echo 'connect: No route to host' >&2; exit 255")


def prompting(then: str) -> str:
    return f"printf 'Password: ' >&2; read -r word; {then}"


def is_prompt(text: bytes) -> bool:
    return b"Password: " in text


def test_become_asks_for_its_password_once(tmp_path: Path) -> None:
    login = Login("sudo", "s3cret", is_prompt)
    check = prompting('[ "$word" = s3cret ] || exit 1; ')
    with shell(check + agent_command(sys.executable), login=login) as session:
        assert target_facts(session, tmp_path)["files"] == 0
    with pytest.raises(LoginError, match="sudo refused the password; set ansible_become_password"):
        shell(prompting("") + prompting("exit 1"), login=login)
    with pytest.raises(LoginError, match="sudo asks for a password; set ansible_become_password"):
        shell(prompting("exit 1"), login=Login("sudo", None, is_prompt))


def test_what_the_agent_reports_arrives_as_the_error_that_it_was(tmp_path: Path) -> None:
    with local_agent() as session, pytest.raises(BackupError, match="does not exist"):
        target_facts(session, tmp_path / "nowhere")
    with local_agent() as session, pytest.raises(BackupError, match="the agent failed") as caught:
        session.call(Call("no such operation", {}))
    assert "traceback" in caught.value.details


def own_directories(*places: Path) -> list[Path]:
    return [path for place in places for path in place.glob(".papermerge-backup.*")]


def wait_until_gone(pid: int, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
                if stream.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} still runs")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("operation", ["dump_database", "archive_media"])
def test_an_agent_that_is_ended_fails_the_create_which_publishes_nothing(
    instance: MadeInstance, place: InstanceDirectory, number: signal.Signals, operation: str
) -> None:
    instance.add_document(os.urandom(1 << 20))

    def end(call: Call) -> None:
        if call.operation == operation:
            os.kill(agent.pid, number)

    agent = local_agent()
    with WatchedSession(agent, end) as session, pytest.raises(ConnectionLost, match="the connection was lost"):
        take(instance, place, session)
    assert place.snapshot_names() == []
    assert list(place.incoming_path.iterdir()) == []
    assert take(instance, place)["sequence"] in (1, 2)
    assert own_directories(instance.media, instance.database.parent) == []


class Abandoned(Exception):
    pass


@pytest.mark.parametrize("operation", ["begin_restore", "extract", "receive_database", "place"])
def test_an_agent_whose_controller_is_gone_ends_and_takes_away_what_it_has_made(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, operation: str
) -> None:
    for _number in range(50):
        instance.add_document(os.urandom(5000))
    take(instance, place)
    agent = local_agent()

    def leave(call: Call) -> None:
        if call.operation == operation:
            raise Abandoned

    target = disk / "target"
    with pytest.raises(Abandoned):
        put_back(place, target / "media", target / "db" / "db.sqlite3", WatchedSession(agent, leave))
    assert operation == "begin_restore" or own_directories(target, target / "db")
    # As when the controller is killed: its end of the pipe is closed, and nothing is said.
    agent._input.close()
    wait_until_gone(agent.pid)
    assert not target.exists()
    agent.close()


def test_an_agent_that_is_killed_during_a_restore_leaves_what_the_next_restore_removes(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    instance.add_document()
    take(instance, place)
    target = disk / "target"
    for operation in ("extract", "receive_database", "place"):
        agent = local_agent()

        def kill(call: Call, agent: StreamedSession = agent, operation: str = operation) -> None:
            if call.operation == operation:
                os.kill(agent.pid, signal.SIGKILL)

        with WatchedSession(agent, kill) as session, pytest.raises(ConnectionLost):
            put_back(place, target / "media", target / "db.sqlite3", session)
        assert not (target / "media").exists()
        assert not (target / "db.sqlite3").exists()
    put_back(place, target / "media", target / "db.sqlite3")
    assert files_below(target / "media") == files_below(instance.media)
    assert own_directories(target) == []


@pytest.mark.parametrize("media_existed", [True, False])
@pytest.mark.parametrize("end", ["os._exit(9)", "os.kill(os.getpid(), 15)"], ids=["killed", "terminated"])
def test_a_restore_that_is_ended_between_its_renames_is_undone_or_finished(
    instance: MadeInstance,
    place: InstanceDirectory,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    media_existed: bool,
    end: str,
) -> None:
    """The media are in place and the database is not: the worst moment."""
    for _number in range(5):
        instance.add_document()
    take(instance, place)
    target = disk / "target"
    target.mkdir()
    if media_existed:
        (target / "media").mkdir(mode=0o711)
    before = "            _place_database("
    with (
        changed_agent(monkeypatch, "agent.placing", before, f"            {end}\n{before}"),
        pytest.raises(ConnectionLost),
    ):
        put_back(place, target / "media", target / "db.sqlite3")
    if not (target / "db.sqlite3").exists():
        check = put_back(place, target / "media", target / "db.sqlite3", check_only=True)
        assert not check["undone"] or check["undone"] == [str(target / "media")]
        put_back(place, target / "media", target / "db.sqlite3")
    assert files_below(target / "media") == files_below(instance.media)
    assert (target / "media").stat().st_mode & 0o777 == (0o711 if media_existed else 0o755)
    assert own_directories(target, target / "media") == []


def test_a_controller_that_falls_silent_is_given_up(
    instance: MadeInstance, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_INTERVAL", 1000.0)
    protocol_module = "agent.protocol"
    with changed_agent(monkeypatch, protocol_module, "SILENCE_LIMIT = 45.0", "SILENCE_LIMIT = 0.5"):
        session = local_agent()
    where = {"media_root": str(disk / "target" / "media"), "database_path": str(disk / "target" / "db.sqlite3")}
    session.call(Call("begin_restore", where))
    assert len(own_directories(disk / "target")) == 2
    wait_until_gone(session.pid)
    assert not (disk / "target").exists()
    with pytest.raises(ConnectionLost):
        target_facts(session, instance.media)
    session.close()


def test_heartbeats_keep_a_quiet_conversation_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_INTERVAL", 0.1)
    with changed_agent(monkeypatch, "agent.protocol", "SILENCE_LIMIT = 45.0", "SILENCE_LIMIT = 3.0"):
        session = local_agent()
    time.sleep(4.0 if os.environ.get("PAPERMERGE_BACKUP_SOAK") else 3.5)
    assert target_facts(session, tmp_path)["files"] == 0
    session.close()


def test_an_agent_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SILENCE_LIMIT", 0.5)
    monkeypatch.setattr(streamed, "CLOSE_SECONDS", 0.5)
    session = local_agent()
    os.kill(session.pid, signal.SIGSTOP)
    with pytest.raises(ConnectionLost, match="nothing heard for"):
        target_facts(session, tmp_path)
    session.close()
    wait_until_gone(session.pid)


def test_silence_and_heartbeats_leave_a_minute_to_both_sides() -> None:
    assert protocol.SILENCE_LIMIT + protocol.HEARTBEAT_INTERVAL < 60
    assert protocol.HEARTBEAT_INTERVAL * 3 < protocol.SILENCE_LIMIT


def test_a_failure_while_sending_is_the_cause_that_is_told(tmp_path: Path) -> None:
    stage = tmp_path / "stage" / "media"
    stage.mkdir(parents=True)

    def pieces() -> Iterator[bytes]:
        yield b"\0" * 100
        raise DamageError("the part is damaged")

    arguments = {
        "media_stage": str(tmp_path / "stage"),
        "tar_size": 1 << 20,
        "compressed": False,
        "directory_mode": 0o755,
        "directory_owner": [0, 0, "", ""],
        "host_path": "",
    }
    with local_agent() as session, pytest.raises(DamageError, match="the part is damaged"):
        session.call(Call("extract", arguments, records=[], data=pieces()))


def test_a_handler_that_fails_ends_the_conversation(instance: MadeInstance) -> None:
    for number in range(3):
        instance.write(b"%d" % number, os.urandom(3 << 20))

    def full(_piece: bytes) -> None:
        raise SpaceError("no room")

    session = local_agent()
    arguments = {
        "root": str(instance.media),
        "media_allowed_roots": [],
        "compress": False,
        "frame_bytes": 1 << 20,
        "frame_members": 4096,
        "size": 0,
        "host_path": "",
    }
    records = [{"path": str(number)} for number in range(3)]
    with pytest.raises(SpaceError), session:
        session.call(Call("archive_media", arguments, records), Handlers(data=full))
    wait_until_gone(session.pid)


def frames(data: bytes) -> list[protocol.Frame]:
    read = io.BytesIO(data).read
    found = []
    while (frame := protocol.read_frame(read)) is not None:
        found.append(frame)
    return found


def test_frames_make_the_round_trip_and_broken_ones_are_refused(rng: random.Random) -> None:
    sent = [
        protocol.Frame(rng.randint(protocol.REQUEST, protocol.END), rng.randbytes(rng.choice((0, 1, 5, 70_000))))
        for _number in range(50)
    ]
    data = b"".join(protocol.encode(*frame) for frame in sent)
    assert frames(data) == sent
    small = protocol.encode(protocol.DATA, b"payload")
    for length in range(1, len(small)):
        with pytest.raises(ConnectionLost, match="inside a frame"):
            frames(small[:length])
    for head in (b"\0", bytes([protocol.END + 1]), b"\xff"):
        with pytest.raises(ConnectionLost, match="something else than frames"):
            frames(head + small[1:])
    with pytest.raises(ConnectionLost, match="something else than frames"):
        frames(protocol.HEADER.pack(protocol.DATA, protocol.MAX_PAYLOAD + 1))
    with pytest.raises(ConnectionLost, match="not an object"):
        protocol.Frame(protocol.RESULT, b"[]").json()


def test_records_travel_in_bounded_batches(rng: random.Random) -> None:
    rows = [{"path": "x" * rng.randrange(3000), "number": number} for number in range(500)]
    payloads = list(protocol.batches(protocol.record(row) for row in rows))
    assert [row for payload in payloads for row in protocol.records(payload)] == rows
    assert max(map(len, payloads)) < protocol.BATCH_BYTES + 4096
    assert len(payloads) > 3
    odd = {"path": "a\u2028b\x85c\r\nd\x1ce"}
    assert list(protocol.records(protocol.record(odd))) == [odd]


def test_a_conversation_that_ends_early_or_is_no_conversation_is_lost() -> None:
    with pytest.raises(ConnectionLost, match="before it had answered"):
        handle_until_result(iter([protocol.Frame(protocol.HEARTBEAT, b"")]), Handlers())
    with pytest.raises(ConnectionLost, match="of kind 1"):
        handle_until_result(iter([protocol.Frame(protocol.REQUEST, b"{}")]), Handlers())


def test_garbage_from_the_other_side_is_a_lost_connection(tmp_path: Path) -> None:
    greeting = shlex.quote(streamed.GREETING.decode())
    noise = f"printf %s {greeting}; echo garbage; cat >/dev/null"
    with shell(noise) as session, pytest.raises(ConnectionLost, match="something else than frames"):
        target_facts(session, tmp_path)
    with (
        shell(f"printf %s {greeting}; exit 3") as session,
        pytest.raises(ConnectionLost, match="the connection was lost"),
    ):
        target_facts(session, tmp_path)


def test_garbage_to_the_agent_ends_it() -> None:
    session = local_agent()
    session._write([b"GET / HTTP/1.0\r\n\r\n"])
    wait_until_gone(session.pid)
    session.close()


def test_an_agent_leaves_no_file_and_no_process(instance: MadeInstance, place: InstanceDirectory) -> None:
    instance.add_document()
    with local_agent() as session:
        take(instance, place, session)
        pid = session.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        assert children == []
    wait_until_gone(pid)
