# SPDX-License-Identifier: GPL-3.0-or-later
"""Every Papermerge, as users have it: found with nothing but the host in the inventory, proved, and brought elsewhere.

The data of real installs are used where they lie beside the checkout, generated ones everywhere: a sample of releases
and engines, in the soak all.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.releases_on_hosts import (
    MEDIA,
    PASSWORD,
    Papermerge,
    Site,
    Stored,
    install,
    install_empty,
    of_generated,
    of_install,
    stored,
)
from tests.support.faults import seeded, soaking
from tests.support.generated.instance import COMBINATIONS, generate
from tests.support.generated.project import ENVIRONMENT_FILE, SECRET_KEY, UNIT
from tests.support.hosts.bench import HostBench
from tests.support.hosts.host import Host
from tests.support.installs import DATA, NAMES, needs_installs, real_install
from tests.support.playbooks import PlaybookRun, Playbooks

pytestmark = [pytest.mark.soak] if soaking() else []

SAMPLE = 4
"""Pairs of a release line and an engine in an ordinary run."""
UNKNOWN = "unknown-4-0"
"""A Papermerge that is newer than the table of releases."""
BUCKET, PROTECTED, MIRRORED = "bucket", "bucket-protected", "mirrored"
"""Originals in object storage only, the same host said to be protected, and originals that are also in a bucket."""
STORAGE = ("Environment=PM_STORAGE_BACKEND=s3", "Environment=PM_BUCKET_NAME=papers")
MIRROR = ("Environment=PAPERMERGE__S3__BUCKET_NAME=papers",)
SETTINGS = "settings"
"""A Papermerge whose settings are to be in the snapshot."""
BLANK, OTHER, WITHOUT = "blank", "other", "without"
"""Targets of its settings: a host without any, one with others, and a restore of settings from a snapshot without."""
OTHER_SETTINGS = "MEDIA_DIR = '/somewhere/else'\n"


def sample() -> list[tuple[str, str]]:
    """Return the pairs of this run: of each engine one, and more at random."""
    if soaking():
        return list(COMBINATIONS)
    rng = seeded("releases")
    engines = ["sqlite", "postgresql", "mysql"]
    chosen = [rng.choice([pair for pair in COMBINATIONS if pair[1] == engine]) for engine in engines]
    return chosen + rng.sample([pair for pair in COMBINATIONS if pair not in chosen], SAMPLE - len(chosen))


GENERATED = {f"made-{line.replace('.', '-')}-{engine}": (line, engine) for line, engine in sample()}
REAL = {"real-" + name.replace(".", "-"): name for name in NAMES}


@dataclasses.dataclass(frozen=True)
class Journey:
    """Papermerges that were backed up, verified and restored onto fresh hosts, each playbook run once over all."""

    playbooks: Playbooks
    sources: dict[str, Site]
    targets: dict[str, Site]
    blank: Host
    other: Host
    created: PlaybookRun
    verified: PlaybookRun
    other_before: list[str]
    restored: PlaybookRun

    def stored(self, name: str) -> Stored:
        (directory,) = self.playbooks.snapshots(name)
        return stored(directory)


def travellers(scratch: Path) -> Iterator[Papermerge]:
    """Make the Papermerges that are to travel."""
    if DATA.is_dir():
        for name in REAL.values():
            yield of_install(real_install(name), scratch / name)
    for name, (line, engine) in GENERATED.items():
        yield of_generated(generate(line, engine, scratch / name), name)
    yield of_generated(generate("3.6", "postgresql", scratch / UNKNOWN), UNKNOWN, "4.0.0")


@pytest.fixture(scope="module")
def journey(host_bench: HostBench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    scratch = tmp_path_factory.mktemp("releases")
    playbooks = Playbooks(scratch / "home")
    moving = list(travellers(scratch / "made"))
    staying = {
        BUCKET: (of_generated(generate("3.6", "postgresql", scratch / BUCKET), BUCKET), STORAGE),
        MIRRORED: (of_generated(generate("3.5", "postgresql", scratch / MIRRORED), MIRRORED), MIRROR),
        SETTINGS: (of_generated(generate("2.0", "sqlite", scratch / SETTINGS), SETTINGS), ("Environment=PM_X=1",)),
    }
    bucket = staying[BUCKET][0]
    for path in bucket.originals:
        (bucket.media / os.fsdecode(path)).unlink()
    names = [f"{role}-{made.name}" for made in moving for role in ("from", "to")]
    hosts = {host.name: host for host in host_bench.start_many([*names, *staying, BLANK, OTHER])}
    with ThreadPoolExecutor(max_workers=4) as pool:
        installing = {
            made.name: pool.submit(install, made, hosts[f"from-{made.name}"], scratch / "sources" / made.name)
            for made in moving
        }
        for name, (made, drop_in) in staying.items():
            where = "file" if name == SETTINGS else "unit"
            installing[name] = pool.submit(
                install, made, hosts[name], scratch / "sources" / name, *drop_in, settings_in=where
            )
        preparing = {
            made.name: pool.submit(
                install_empty, made, hosts[f"to-{made.name}"], scratch / "targets" / made.name, with_admin=bool(odd % 2)
            )
            for odd, made in enumerate(moving)
        }
        sources = {name: site.result() for name, site in installing.items()}
        targets = {name: site.result() for name, site in preparing.items()}
    hosts[SETTINGS].run(
        "chown papermerge: /opt/papermerge/papermerge.conf.py; chmod 640 /opt/papermerge/papermerge.conf.py"
    )
    hosts[OTHER].put("/opt/papermerge/papermerge.conf.py", OTHER_SETTINGS)

    inventory = {name: site.inventory() for name, site in sources.items()}
    inventory[SETTINGS]["papermerge_backup_config"] = True
    protected = sources[BUCKET].inventory(papermerge_backup_media_protected_elsewhere=True)
    created = playbooks.run("create", {**inventory, PROTECTED: protected})
    stored_here = {name: inventory[name] for name in sources if name != BUCKET}
    # All that a full one looks at, and more.
    verified = playbooks.run("verify", stored_here, extra={"papermerge_backup_verify_level": "deep"})
    other_before = everything(hosts[OTHER])
    restores = {
        f"new-{name}": site.inventory(
            papermerge_backup_source=name,
            **({"papermerge_backup_database_admin_url": site.admin_url} if site.admin_url else {}),
        )
        for name, site in targets.items()
    }
    for name, host, source in (
        (BLANK, hosts[BLANK], SETTINGS),
        (OTHER, hosts[OTHER], SETTINGS),
        (WITHOUT, hosts[OTHER], MIRRORED),
    ):
        variables = {"papermerge_backup_source": source, "papermerge_backup_config": True}
        restores[name] = host.inventory("admin", ansible_become=True, **variables)
    restored = playbooks.run("restore", restores)
    yield Journey(
        playbooks,
        sources,
        targets,
        hosts[BLANK],
        hosts[OTHER],
        created,
        verified,
        other_before,
        restored,
    )
    with ThreadPoolExecutor(max_workers=4) as pool:
        for gone in [pool.submit(host_bench.remove, host) for host in hosts.values()]:
            gone.result()


def everything(host: Host) -> list[str]:
    """Return every file of a host where something could be written, with its size."""
    places = ["/etc", "/opt", "/srv", "/var/lib/papermerge", "/var/tmp", "/tmp", "/root", "/core_app"]
    return host.run(["find", *places, "-printf", "%p %s %T@\n"], check=False).stdout.splitlines()


KNOWN = [*(pytest.param(name, marks=needs_installs) for name in REAL), *GENERATED]


@pytest.fixture(params=[*KNOWN, UNKNOWN])
def traveller(request: pytest.FixtureRequest, journey: Journey) -> str:
    """The name of a Papermerge that has travelled."""
    return str(request.param)


def test_everything_is_found_with_nothing_in_the_inventory(journey: Journey, traveller: str) -> None:
    site, manifest = journey.sources[traveller], journey.stored(traveller).manifest
    made = site.papermerge
    assert journey.created.row(traveller)["result"] == "ok", str(journey.created)
    assert manifest["papermerge"]["version"] == made.version
    assert manifest["media"]["root"] == site.media
    database = manifest["database"]
    assert (database["engine"], database["schema_marker"]) == (made.engine, made.marker)
    if made.is_on_server:
        ports = {"postgresql": 5432, "mysql": 3306}
        assert database["url"] == f"{made.engine}://papermerge@127.0.0.1:{ports[made.engine]}/papermerge"
    else:
        assert database["path"] == site.database


@pytest.mark.parametrize("traveller", KNOWN, indirect=True)
def test_the_proof_has_exactly_the_expected_files(journey: Journey, traveller: str) -> None:
    made, snapshot = journey.sources[traveller].papermerge, journey.stored(traveller)
    proof = snapshot.manifest["proof"]
    assert snapshot.manifest["state"] == "complete"
    assert (proof["expected"], proof["proved"], proof["damaged"]) == (made.expected_rows, made.expected_rows, [])
    # Nothing that a row names is missing, and every original that no row names is counted as such.
    assert made.expected <= snapshot.index.keys()
    assert proof["orphans"] + proof["unlisted"] == len(made.originals - made.expected)
    assert journey.created.row(traveller)["originals"] == f"{made.expected_rows}/{made.expected_rows}"


def test_the_snapshot_has_every_byte(journey: Journey, traveller: str) -> None:
    made, snapshot = journey.sources[traveller].papermerge, journey.stored(traveller)
    assert snapshot.index == made.sha256
    counted = {table: snapshot.manifest["row_counts"].get(table) for table in made.counts}
    known = {table: count for table, count in counted.items() if count is not None}
    assert len(known) >= min(5, len(made.counts))
    assert known == {table: made.counts[table] for table in known}


def test_it_verifies(journey: Journey, traveller: str) -> None:
    row = journey.verified.row(traveller, "instance")
    assert (row["result"], row["level"]) == ("sound", "deep"), str(journey.verified)


def test_what_is_restored_is_what_was_there(journey: Journey, traveller: str) -> None:
    site = journey.targets[traveller]
    assert journey.restored.row(f"new-{traveller}")["result"] == "ok", str(journey.restored)
    assert site.hashes() == site.papermerge.sha256
    assert site.counts(list(site.papermerge.counts)) == site.papermerge.counts
    # Tables that nobody thought of came along, too.
    source = journey.sources[traveller]
    assert site.counts() == source.counts()


def test_all_of_them_travel_in_one_run(journey: Journey) -> None:
    names = {*journey.sources, PROTECTED}
    assert journey.created.results() == {**dict.fromkeys(names, "ok"), BUCKET: "failed"}
    assert journey.verified.results("instance") == dict.fromkeys(names - {BUCKET}, "sound"), str(journey.verified)
    assert journey.verified.status == 0
    expected = {f"new-{name}": "ok" for name in journey.targets}
    assert journey.restored.results() == {**expected, BLANK: "ok", OTHER: "failed", WITHOUT: "failed"}


def test_a_release_that_is_newer_than_the_table_is_archived_as_a_whole(journey: Journey) -> None:
    snapshot = journey.stored(UNKNOWN)
    assert snapshot.manifest["state"] == "complete"
    assert snapshot.manifest["proof"]["layout_known"] is False
    assert snapshot.classes == {}
    row = journey.created.row(UNKNOWN)
    assert (row["result"], row["originals"]) == ("ok", "unknown layout")
    assert "[WARNING]" in journey.created.output + journey.created.errors
    assert journey.created.says("unknown layout: Papermerge 4.0.0")
    assert journey.restored.row(f"new-{UNKNOWN}")["originals"] == "unknown layout"


def test_no_password_is_in_the_snapshot(journey: Journey, traveller: str) -> None:
    snapshot = journey.stored(traveller)
    assert PASSWORD not in (snapshot.directory / "manifest.json").read_text(encoding="utf-8")


# Object storage


def test_originals_in_a_bucket_only_fail_a_create(journey: Journey) -> None:
    message = journey.created.message(BUCKET)
    assert "Papermerge keeps its originals in bucket papers only (s3, PM_STORAGE_BACKEND in unit" in message
    assert "papermerge_backup_media_protected_elsewhere" in message
    assert journey.playbooks.snapshots(BUCKET) == []


def test_originals_that_are_protected_elsewhere_have_their_own_class(journey: Journey) -> None:
    made, snapshot = journey.sources[BUCKET].papermerge, journey.stored(PROTECTED)
    assert snapshot.manifest["state"] == "complete"
    assert snapshot.manifest["proof"]["classes"]["in_object_storage"] == made.expected_rows > 0
    assert snapshot.classes.keys() <= {"in_object_storage", "not_expected"}
    assert snapshot.index.keys() == made.sha256.keys() - made.originals
    assert snapshot.manifest["media"]["storage"]["bucket"] == "papers"
    assert journey.created.says(f"{made.expected_rows} originals are in object storage only")


def test_originals_that_are_mirrored_to_a_bucket_are_backed_up_as_ever(journey: Journey) -> None:
    made, snapshot = journey.sources[MIRRORED].papermerge, journey.stored(MIRRORED)
    assert snapshot.manifest["state"] == "complete"
    assert snapshot.manifest["media"]["storage"]["only"] is False
    assert snapshot.manifest["proof"]["proved"] == made.expected_rows
    assert snapshot.index == made.sha256


# Settings


CONF, BASE, PRODUCTION = (
    f"/opt/papermerge/{name}"
    for name in ("papermerge.conf.py", "config/settings/base.py", "config/settings/production.py")
)
DROP_IN = f"{UNIT}.d/more.conf"
SETTINGS_FILES = {CONF, BASE, PRODUCTION, UNIT, DROP_IN, ENVIRONMENT_FILE}


def test_settings_come_back_byte_for_byte_with_mode_and_owner(journey: Journey) -> None:
    snapshot, source = journey.stored(SETTINGS), journey.sources[SETTINGS].host
    entries = {entry["name"]: entry for entry in snapshot.manifest["config"]["entries"]}
    assert entries.keys() >= SETTINGS_FILES
    assert all(set(entry) == {"name", "size", "sha256", "mode", "owner"} for entry in entries.values())
    looks = ["stat", "--format=%n %s %a %U:%G %F", *sorted(SETTINGS_FILES)]
    assert journey.blank.run(looks).stdout == source.run(looks).stdout
    assert f"{CONF} " in source.run(looks).stdout
    assert "640 papermerge:papermerge" in journey.blank.run(["stat", "--format=%a %U:%G", CONF]).stdout
    assert journey.blank.run(["stat", "--format=%a", ENVIRONMENT_FILE]).stdout == "600\n"
    sums = ["sha256sum", *sorted(SETTINGS_FILES)]
    assert journey.blank.run(sums).stdout == source.run(sums).stdout
    assert SECRET_KEY not in (snapshot.directory / "manifest.json").read_text(encoding="utf-8")
    # Besides the settings, the documents: where they were, since nothing on the target said otherwise.
    made = journey.sources[SETTINGS].papermerge
    assert Site(made, journey.blank, MEDIA, journey.sources[SETTINGS].database_url).hashes() == made.sha256


def test_a_target_with_other_settings_is_refused_before_anything_is_written(journey: Journey) -> None:
    assert f"another content: {CONF}" in journey.restored.message(OTHER)
    assert everything(journey.other) == journey.other_before
    assert journey.other.run(["cat", CONF]).stdout == OTHER_SETTINGS


def test_settings_are_not_restored_from_a_snapshot_that_has_none(journey: Journey) -> None:
    assert "holds no settings files" in journey.restored.message(WITHOUT)
    assert journey.stored(MIRRORED).manifest["config"] is None
