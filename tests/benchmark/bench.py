# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison that ./dev bench runs.

Nothing here fails because something is slow: the numbers are for people. Everything that is compared is measured on the
same tree within minutes, one contender after another and round after round, since a machine is not the same all day.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmark.community_general import community_general
from tests.benchmark.contenders import (
    ArchiveModule,
    Contender,
    OurPlaybooks,
    Ours,
    Restic,
    Tar,
    TarOnly,
    TarPackedThere,
    TarSynced,
    emptied,
)
from tests.benchmark.facts import CHECKOUT, available_memory, commit, host_versions, machine_facts, versions
from tests.benchmark.measure import Command, Run, RunFailed, run, touch_memory
from tests.benchmark.media_tree import MEDIA_BYTES, Tree, make_tree
from tests.benchmark.results import Results
from tests.benchmark.sites import Local, OverSsh, Site
from tests.support.hosts.bench import HostBench
from tests.support.hosts.commands import BenchError
from tests.support.hosts.storage import claim_directory, remove_tree, unmount_under

DESCRIPTION = "Measure create and restore against tar, restic and community.general.archive, local and over ssh."
ROUNDS = 3
SEED = 20
#: The most that exists at a time, in sizes of the tree: it, a copy on the host, what is stored, what is restored.
COPIES = 5
#: A run writes about as much as the tree holds, and needs some memory besides.
WRITTEN = 1.2
ON_HOST = "/srv/bench"
SKIPPABLE = ("local", "ssh", "restore", "playbooks", "restic", "archive")
NOTES = """\
ratio: median to the median of tar | zstd in the same section. CPU s: of all processes together.
others: as many cores were busy with something else meanwhile; more than 0.2 says that the times are not to be trusted.
peak MB: of each kind of process the largest, in 1,000,000 bytes, looked at every 50 ms.
papermerge.backup: the collection's own code in a process without Ansible; playbooks: the whole command of a user.
restic is not run over ssh: it would have to be installed on the host and to log in to the controller.
community.general.archive only makes an archive beside the files: nothing is brought to the controller, or back.
"""


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    results = Results()
    try:
        with _work_directory(options) as work:
            report = _measure(options, work, results)
    except (BenchError, RunFailed, OSError, subprocess.SubprocessError) as error:
        print(f"./dev bench: {error}", file=sys.stderr)
        return 1
    _print_report(report, results)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=DESCRIPTION)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the tree; 1: 63,519 files, 2.14 GB")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each, but one of slow ones [{ROUNDS}]")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the content of the tree [{SEED}]")
    parser.add_argument(
        "--place",
        choices=("memory", "disk"),
        default="memory",
        help="where everything lies: in memory, so that programs are compared and not disks [memory], or on disk",
    )
    parser.add_argument("--directory", type=Path, default=_cache() / "bench", help="where to work [%(default)s]")
    parser.add_argument("--skip", action="append", choices=SKIPPABLE, default=[], help="leave something out")
    parser.add_argument(
        "--keep", action="store_true", help="leave the tree and the last results where they are, in memory, too"
    )
    return parser.parse_args()


def _cache() -> Path:
    given = os.environ.get("PAPERMERGE_BACKUP_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "papermerge-backup"


@contextlib.contextmanager
def _work_directory(options: argparse.Namespace) -> Iterator[Path]:
    """Yield an empty directory, in memory if wanted, that is gone afterwards."""
    lock = claim_directory(options.directory)
    if lock is None:
        raise BenchError(f"another run works in {options.directory}; wait for it, or choose a --directory")
    work: Path = options.directory / "work"
    needed = int(COPIES * MEDIA_BYTES * options.scale)
    try:
        unmount_under(work)
        remove_tree(work)
        work.mkdir(mode=0o700)
        if options.place == "memory":
            _require_room(available_memory(), needed, "memory", "--place disk or a smaller --scale")
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=90%", "tmpfs", work], check=True)
        else:
            _require_room(shutil.disk_usage(work).free, needed, str(work), "another --directory or a smaller --scale")
        yield work
    finally:
        if options.keep:
            print(f"kept: {work}")
        else:
            unmount_under(work)
            remove_tree(work)
        os.close(lock)


def _require_room(free: int, needed: int, where: str, way_out: str) -> None:
    if free < needed:
        raise BenchError(f"{needed / 1e9:.1f} GB are needed in {where}, {free / 1e9:.1f} are free; choose {way_out}")


def _measure(options: argparse.Namespace, work: Path, results: Results) -> dict[str, Any]:
    report: dict[str, Any] = {
        "commit": commit(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": options.seed,
        "scale": options.scale,
        "place": options.place,
        "machine": machine_facts(),
        "versions": versions(restic="restic" not in options.skip),
        "notes": NOTES,
    }
    local = Local(work)
    tree = _make_tree(options, work)
    report["tree"] = vars(tree)
    report["file_systems"] = {"local": local.file_system()}
    if "local" not in options.skip:
        _race(_local_contenders(options, local, work, report), options, results)
    if "ssh" not in options.skip:
        _measure_over_ssh(options, work, results, report)
    return report


def _make_tree(options: argparse.Namespace, work: Path) -> Tree:
    begun = time.monotonic()
    tree = make_tree(work / "instance", options.scale, options.seed)
    _tell(
        f"made {tree.files:,} files in {tree.directories:,} directories, {tree.media_bytes / 1e9:.2f} GB, and a "
        f"database of {tree.database_bytes / 1e6:.1f} MB in {time.monotonic() - begun:.1f} s"
    )
    return tree


def _local_contenders(options: argparse.Namespace, site: Site, work: Path, report: dict[str, Any]) -> list[Contender]:
    place = work / "stored"
    found: list[Contender] = [TarOnly(site, place), Tar(site, place)]
    if options.place == "disk":
        found.append(TarSynced(site, place))
    found.append(Ours(site, place))
    if "playbooks" not in options.skip:
        found.append(OurPlaybooks(site, place))
    if "restic" not in options.skip:
        found.append(Restic(site, place))
    if "archive" not in options.skip:
        collection = community_general(_cache() / "bench-tools")
        report["versions"]["community.general"] = collection.version
        found.append(ArchiveModule(site, place, collection))
    return found


def _measure_over_ssh(options: argparse.Namespace, work: Path, results: Results, report: dict[str, Any]) -> None:
    with HostBench() as bench, contextlib.ExitStack() as stack:
        host = bench.start("bench")
        if options.place == "memory":
            room = int(2.5 * MEDIA_BYTES * options.scale) + (256 << 20)
            stack.enter_context(host.small_filesystem(ON_HOST, room >> 20, kind="tmpfs"))
        else:
            host.run(["mkdir", "-p", ON_HOST])
        host.put_tree(work / "instance", f"{ON_HOST}/instance", "papermerge")
        site = OverSsh(host, ON_HOST)
        report["versions"].update(host_versions(host))
        report["file_systems"]["host"] = site.file_system()
        place = work / "stored"
        contenders: list[Contender] = [Tar(site, place), TarPackedThere(site, place)]
        if options.place == "disk":
            contenders.append(TarSynced(site, place))
        contenders.append(Ours(site, place))
        if "playbooks" not in options.skip:
            contenders.append(OurPlaybooks(site, place))
        _race(contenders, options, results)


def _race(contenders: Sequence[Contender], options: argparse.Namespace, results: Results) -> None:
    """Let each back up and bring back, round after round."""
    for number in range(options.rounds):
        for contender in contenders:
            if number == 0 or not contender.slow:
                _compete(contender, options, results)


def _compete(contender: Contender, options: argparse.Namespace, results: Results) -> None:
    emptied(contender.place)
    contender.site.clear()
    contender.prepare()
    created = _run(contender, contender.create(), options)
    section = f"create, {contender.site.name}"
    results.add(section, contender.name, created, contender.reference, contender.stored_bytes())
    _tell(f"{section}: {contender.name}: {created.seconds:.2f} s")
    restore = contender.restore() if "restore" not in options.skip else None
    if restore is not None:
        contender.site.clear()
        restored = _run(contender, restore, options)
        section = f"restore, {contender.site.name}"
        results.add(section, contender.name, restored, contender.reference)
        _tell(f"{section}: {contender.name}: {restored.seconds:.2f} s")
    contender.site.clear()


def _run(contender: Contender, command: Command, options: argparse.Namespace) -> Run:
    if options.place == "memory":
        touch_memory(contender.place.parent, int(WRITTEN * MEDIA_BYTES * options.scale))
    return run(command)


def _tell(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _print_report(report: dict[str, Any], results: Results) -> None:
    path = CHECKOUT / "build" / f"bench-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    report["results"] = results.as_list()
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    machine, tree = report["machine"], report["tree"]
    print(f"\ncommit {report['commit']}, seed {report['seed']}, scale {report['scale']}, {report['began']}")
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, Linux "
        f"{machine['kernel']}, load before {machine['load']:.1f}"
    )
    print(", ".join(f"{name} {number}" for name, number in report["versions"].items()))
    print(
        f"{tree['files']:,} files in {tree['directories']:,} directories, {tree['media_bytes'] / 1e9:.2f} GB, database "
        f"{tree['database_bytes'] / 1e6:.1f} MB; on "
        + ", ".join(f"{kind} ({place})" for place, kind in report["file_systems"].items())
    )
    print(f"\n{results.table()}\n")
    print(report["notes"])
    print(f"{path.relative_to(CHECKOUT)}")


if __name__ == "__main__":
    sys.exit(main())
