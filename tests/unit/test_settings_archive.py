# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings in a snapshot: they come back as they were, only on request, and nothing else is ever written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent import configuration
from ansible_collections.papermerge.backup.plugins.module_utils.agent.configuration import restore_configuration
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, SettingError, TargetError
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import store
from tests.support.generated.instance import GeneratedInstance, generate
from tests.support.generated.project import SECRET_KEY, write_project
from tests.support.instances import files_below
from tests.support.snapshots import local_agent, place_in, quiet, verify

CONTENT = b"SECRET_KEY = 'of the settings'\n"
Entry = dict[str, Any]


class Papermerge:
    """A Papermerge 2.0 with its settings on this machine."""

    def __init__(self, root: Path) -> None:
        self.instance: GeneratedInstance = generate("2.0", "sqlite", root / "data", large_text=1 << 12)
        self.project = root / "opt" / "papermerge"
        write_project(
            root,
            "2.0.2",
            database_url=self.instance.database_url,
            media_root=str(self.instance.media),
            directory=str(self.project),
            python=sys.executable,
        )
        self.conf = self.project / "papermerge.conf.py"
        self.conf.write_bytes(self.conf.read_bytes() + "# ümlaut\r\n\n".encode())
        self.conf.chmod(0o640)

    def create(self, place: InstanceDirectory, config: bool = True) -> dict[str, Any]:
        request = CreateRequest(host="here", instance=place.name, project_dir=str(self.project), config=config)
        with local_agent() as session:
            return create_snapshot(session, place, request, quiet())

    def settings(self) -> dict[str, tuple[bytes, int]]:
        """Content and mode of every settings file."""
        files = [self.conf, *(self.project / "config").rglob("*.py")]
        return {
            str(path): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
            for path in files
            if path.is_file() and path.stat().st_size
        }

    def lose(self) -> None:
        for path in self.settings():
            os.unlink(path)


def put_back(place: InstanceDirectory, where: Path, config: bool = True) -> dict[str, Any]:
    request = RestoreRequest(
        media_root=str(where / "media"),
        database_url=f"sqlite:///{where}/db.sqlite3",
        app_version="2.0.2",
        config=config,
    )
    with local_agent() as session:
        return restore_snapshot(session, place, request, quiet(), False)


@pytest.fixture
def papermerge(disk: Path) -> Papermerge:
    return Papermerge(disk)


@pytest.fixture
def target(disk: Path) -> Path:
    (disk / "target").mkdir()
    return disk / "target"


def test_settings_come_back_byte_for_byte_with_their_mode(
    papermerge: Papermerge, place: InstanceDirectory, target: Path
) -> None:
    papermerge.create(place)
    before = papermerge.settings()
    papermerge.lose()
    assert papermerge.settings() == {}
    written = put_back(place, target)["config"]
    assert papermerge.settings() == before
    assert set(before) <= set(written)
    assert not list(papermerge.project.rglob(f"*{configuration.PARTIAL}"))


def test_the_manifest_says_names_and_hashes_and_no_secret(papermerge: Papermerge, place: InstanceDirectory) -> None:
    papermerge.create(place)
    snapshot = place.select("latest")
    manifest = snapshot.require_manifest()
    for path, (content, mode) in papermerge.settings().items():
        (entry,) = [entry for entry in manifest.config_entries if entry["name"] == path]
        status = os.stat(path)
        assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert (entry["mode"], entry["owner"][:2]) == (mode, [status.st_uid, status.st_gid])
        assert set(entry) == {"name", "size", "sha256", "mode", "owner"}
    assert SECRET_KEY not in (snapshot.directory / "manifest.json").read_text(encoding="utf-8")
    stored = snapshot.directory / "config.tar.zst"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_zstd_and_tar_unpack_them_as_the_guide_says(
    papermerge: Papermerge, place: InstanceDirectory, target: Path
) -> None:
    papermerge.create(place)
    guide = (Path(__file__).resolve().parents[2] / "docs" / "restore-by-hand.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```text\n(mkdir -m 0700 settings\n.*?)```", guide, re.DOTALL)
    snapshot = place.select("latest").directory
    subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", commands],
        cwd=target,
        env={"PATH": os.environ["PATH"], "snapshot": str(snapshot)},
        check=True,
    )
    unpacked = {
        f"/{os.fsdecode(path)}": content for path, (content, _time, _mode) in files_below(target / "settings").items()
    }
    variables = unpacked.pop("/environment", b"")
    assert unpacked == {path: content for path, (content, _mode) in papermerge.settings().items()} | {
        path: content for path, content in unpacked.items() if content == b""
    }
    assert variables == b""  # nothing runs it on this machine
    for path, (_content, mode) in papermerge.settings().items():
        assert stat.S_IMODE((target / "settings" / path[1:]).stat().st_mode) == mode


def test_without_the_setting_no_settings_are_kept_or_restored(
    papermerge: Papermerge, place: InstanceDirectory, target: Path
) -> None:
    papermerge.create(place, config=False)
    snapshot = place.select("latest")
    assert not (snapshot.directory / "config.tar.zst").exists()
    assert snapshot.require_manifest().fields["config"] is None
    with pytest.raises(SettingError, match="holds no settings files"):
        put_back(place, target)
    assert list(target.iterdir()) == []


def test_settings_are_restored_on_request_only(papermerge: Papermerge, place: InstanceDirectory, target: Path) -> None:
    papermerge.create(place)
    papermerge.lose()
    assert put_back(place, target, config=False)["config"] == []
    assert papermerge.settings() == {}
    assert files_below(target / "media").keys() == papermerge.instance.sha256.keys()


def test_the_same_file_stays_and_another_one_is_refused_before_anything_is_written(
    papermerge: Papermerge, place: InstanceDirectory, target: Path
) -> None:
    papermerge.create(place)
    before = files_below(papermerge.project)
    papermerge.conf.write_bytes(b"another")
    with pytest.raises(TargetError, match=f"another content: {papermerge.conf};"):
        put_back(place, target)
    assert list(target.iterdir()) == []
    assert papermerge.conf.read_bytes() == b"another"
    papermerge.conf.write_bytes(before[b"papermerge.conf.py"][0])
    os.utime(papermerge.conf, ns=(0, 1))
    assert str(papermerge.conf) not in put_back(place, target)["config"]
    assert papermerge.conf.stat().st_mtime_ns == 1


@pytest.mark.parametrize("what", ["directory", "dangling link", "fifo"])
def test_whatever_else_stands_in_the_place_of_a_file_is_refused(
    papermerge: Papermerge, place: InstanceDirectory, target: Path, what: str
) -> None:
    papermerge.create(place)
    papermerge.conf.unlink()
    {
        "directory": papermerge.conf.mkdir,
        "dangling link": lambda: papermerge.conf.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(papermerge.conf),
    }[what]()
    with pytest.raises(TargetError, match="another content"):
        put_back(place, target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("level", ["full", "deep"])
def test_a_changed_byte_is_noticed(
    papermerge: Papermerge, place: InstanceDirectory, target: Path, rng: random.Random, level: str
) -> None:
    papermerge.create(place)
    papermerge.lose()
    assert verify(place, level)
    path = place.select("latest").directory / "config.tar.zst"
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    with pytest.raises(DamageError, match=r"config\.tar\.zst"):
        verify(place, level)
    with pytest.raises(DamageError, match=r"config\.tar\.zst"):
        put_back(place, target)
    assert list(target.iterdir()) == []
    assert papermerge.settings() == {}


def test_a_tar_that_the_manifest_knows_but_not_its_files_is_noticed_before_anything_is_written(
    papermerge: Papermerge, place: InstanceDirectory, target: Path
) -> None:
    papermerge.create(place)
    papermerge.lose()
    directory = place.select("latest").directory
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    packed = tar((tarfile.TarInfo("etc/more"), b"more"))
    (directory / "config.tar.zst").unlink()
    stored = store(directory / "config.tar.zst", iter([packed]))
    manifest["files"]["config"].update(size=stored.size, sha256=stored.sha256, plain_size=len(packed))
    manifest["config"]["plain_sha256"] = hashlib.sha256(packed).hexdigest()
    text = json.dumps(manifest).encode("ascii")
    (directory / "manifest.json").write_bytes(text)
    (directory / "manifest.json.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
    place.history.path.unlink()
    for act in (lambda: verify(place, "full"), lambda: put_back(place, target)):
        with pytest.raises(DamageError, match="'etc/more' unlike the manifest"):
            act()
    assert list(target.iterdir()) == []


# Archives made by hand


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A directory to which nothing is to be written."""
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            if member.isreg() and member.size == 0:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def named(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def entry(path: Path | str, content: bytes = CONTENT, **changes: Any) -> Entry:
    return {
        "name": str(path),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "mode": 0o640,
        "owner": [os.getuid(), os.getgid(), "", ""],
        **changes,
    }


def sparse(name: str, size: int) -> bytes:
    """Return a tar whose one member says that it is that large and has no content."""
    member = named(name, pax_headers={"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0"})
    member.pax_headers |= {"GNU.sparse.size": str(size), "GNU.sparse.name": name}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    return packed.getvalue()


def header_without_content(name: str) -> bytes:
    return named(name, size=len(CONTENT)).tobuf(tarfile.PAX_FORMAT)


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "a member that the manifest does not name": lambda name: tar((named(name), CONTENT), (named("etc/x"), b"x")),
    "a member above": lambda name: tar((named(f"../../{name}"), CONTENT)),
    "a member with an absolute name": lambda name: tar((named(f"/{name}"), CONTENT)),
    "a symbolic link": lambda name: tar((named(name, tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "a hard link": lambda name: tar((named(name), CONTENT), (named(name, tarfile.LNKTYPE, name), b"")),
    "a directory": lambda name: tar((named(name, tarfile.DIRTYPE), b"")),
    "a device": lambda name: tar((named(name, tarfile.CHRTYPE), b"")),
    "a fifo": lambda name: tar((named(name, tarfile.FIFOTYPE), b"")),
    "another content": lambda name: tar((named(name), CONTENT.swapcase())),
    "the file, and then another of its name": lambda name: tar((named(name), CONTENT), (named(name), CONTENT[::-1])),
    "a longer file": lambda name: tar((named(name), CONTENT + b"x")),
    "more than the manifest says": lambda name: tar((named(name), CONTENT)) + bytes(1 << 20),
    "a file larger than all memory": lambda name: sparse(name, 1 << 50),
    "a sparse file of the right size": lambda name: sparse(name, len(CONTENT)),
    "a header and no content": header_without_content,
    "nothing": lambda _name: b"",
    "no tar": lambda _name: b"x" * 4096,
    "half of it": lambda name: tar((named(name), CONTENT))[:600],
    "a number that is none": lambda name: tar((named(name, pax_headers={"GNU.sparse.map": "x,y"}), CONTENT)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_writes_nothing(empty: Path, what: str) -> None:
    path = empty / "etc" / "papermerge.conf.py"
    packed = HOSTILE[what](str(path)[1:])
    with pytest.raises(DamageError):
        restore_configuration(iter([packed[:700], packed[700:]]), [entry(path)])
    assert list(empty.iterdir()) == []


def test_the_same_archive_without_its_fault_is_written(empty: Path) -> None:
    path = empty / "etc" / "papermerge.conf.py"
    assert restore_configuration(iter([tar((named(str(path)[1:]), CONTENT))]), [entry(path)]) == [str(path)]
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (CONTENT, 0o640)
    assert [name.name for name in path.parent.iterdir()] == ["papermerge.conf.py"]


@pytest.mark.parametrize("name", ["etc/x", "../x", "/etc/../x", "/etc//x", "/etc/x/", "/", "", "/etc/\0x"])
def test_a_manifest_with_a_hostile_name_writes_nothing(empty: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(empty)
    packed = tar((named(name.strip("/") or "x"), CONTENT))
    with pytest.raises(DamageError):
        restore_configuration(iter([packed]), [entry(name)])
    assert list(empty.iterdir()) == []


def test_a_manifest_that_asks_for_all_memory_or_names_a_file_twice_is_refused(empty: Path) -> None:
    path = empty / "etc" / "x"

    def refuse(_number: int) -> bytes:
        raise AssertionError("something was read")

    for entries in ([entry(path, size=1 << 40)], [entry(path), entry(path)]):
        with pytest.raises(DamageError, match="names a settings file twice, or more than"):
            restore_configuration(map(refuse, range(1)), entries)
    assert list(empty.iterdir()) == []


def test_rights_beyond_reading_writing_and_executing_are_not_given(empty: Path) -> None:
    path = empty / "x"
    restore_configuration(iter([tar((named(str(path)[1:]), CONTENT))]), [entry(path, mode=0o6755)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_what_a_killed_restore_has_left_is_no_obstacle(empty: Path) -> None:
    path, elsewhere = empty / "x", empty / "elsewhere"
    elsewhere.write_bytes(b"kept")
    os.symlink(elsewhere, f"{path}{configuration.PARTIAL}")
    restore_configuration(iter([tar((named(str(path)[1:]), CONTENT))]), [entry(path)])
    assert (path.read_bytes(), elsewhere.read_bytes()) == (CONTENT, b"kept")
    assert sorted(name.name for name in empty.iterdir()) == ["elsewhere", "x"]


def test_settings_that_cannot_be_read_or_are_none_fail_the_create(papermerge: Papermerge, disk: Path) -> None:
    for number, spoil in enumerate(
        (
            lambda: (papermerge.project / "config/settings/huge.py").write_bytes(b"#" * (configuration.MAX_FILE + 1)),
            lambda: os.mkfifo(papermerge.project / "config/settings/fifo.py"),
        )
    ):
        spoil()
        place = place_in(disk / f"repository-{number}")
        with pytest.raises(SettingError, match=r"settings file .*(huge|fifo)"):
            papermerge.create(place)
        assert place.snapshot_names() == []
        for path in (papermerge.project / "config/settings").glob("[hf]*.py"):
            path.unlink()
