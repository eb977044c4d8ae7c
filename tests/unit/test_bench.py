# SPDX-License-Identifier: GPL-3.0-or-later
"""The measure's own parts: trees that can be trusted, and a report that says what the runs were."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.benchmark.measure import Command, Run, RunFailed, run
from tests.benchmark.media_tree import SHAPES, MadeTree
from tests.benchmark.performance import markdown, write_documents
from tests.benchmark.results import Results, Section
from tests.benchmark.targets import seen
from tests.support.snapshots import place_in, take

FULL = Section("full", "incompressible", "local")
REPORT = {
    "command": "./dev bench --scale 0.5",
    "commit": "abc",
    "began": "2026-11-22T20:00:00Z",
    "seed": 1,
    "scale": 0.5,
    "machine": {"processor": "a processor", "cores": 2, "memory_bytes": 1 << 34, "kernel": "6", "load": 0.0},
    "versions": {"tar": "1.34"},
    "file_systems": {"local": "tmpfs"},
    "trees": {
        "incompressible": {
            "words": "2.1 GB, hardly shrinks",
            "files": 10,
            "directories": 2,
            "media_bytes": 1000,
            "database_bytes": 10,
        }
    },
}


def timed(seconds: float, **answer: Any) -> Run:
    return Run(seconds, {"agent": 20_000_000}, 1.0, {}, 0.0, None, answer)


def raced() -> Results:
    """Return five rounds of two in which the machine becomes slower and slower."""
    results = Results()
    for slowness in (1, 2, 3, 4, 50):
        results.add(FULL, "tar", "tar | zstd -1 -T0", True, timed(1.0 * slowness), 1000)
        results.add(FULL, "ours", "papermerge.backup", False, timed(1.5 * slowness, moved={"archive_media": 7}), 1100)
    return results


def test_ratios_are_of_runs_side_by_side() -> None:
    results = raced()
    ours = results.row(FULL, "ours")
    assert ours is not None
    assert results.ratio(ours) == pytest.approx(1.5)
    assert ours.seconds == pytest.approx(4.5)


def test_targets_say_what_was_wanted_and_seen() -> None:
    found = {target.words: (target.wanted, round(target.value, 2), target.met) for target in seen(raced(), {})}
    assert found == {
        "full, incompressible, local: time of `tar | zstd -1 -T0`": (1.2, 1.5, False),
        "full, incompressible, local: stored size of `tar | zstd -1 -T0`": (1.05, 1.1, False),
    }


def test_a_report_survives_its_file_and_becomes_documents(tmp_path: Path) -> None:
    report = json.loads(json.dumps({**REPORT, "results": raced().as_list()}))
    assert markdown(report) == markdown({**REPORT, "results": raced().as_list()})
    write_documents([report], tmp_path)
    text = (tmp_path / "performance.md").read_text("utf-8")
    for word in ("./dev bench --scale 0.5", "`abc`", "at scale 0.5", "tar 1.34", "| papermerge.backup "):
        assert word in text
    rows = [line for line in text.splitlines() if line.startswith("| papermerge.backup ")]
    assert [cell.strip() for cell in rows[0].split("|")[2:7]] == ["5", "4.50", "1.50", "1.0", "1.00"]
    # A bar in a cell would be a cell of its own.
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1
    picture = ElementTree.parse(tmp_path / "performance.svg")
    words = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert "1.50 · 4.50 s" in words
    assert "prefers-color-scheme: dark" in (tmp_path / "performance.svg").read_text("utf-8")


def test_cpu_time_of_all_that_a_command_starts_is_counted() -> None:
    spin = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    measured = run(Command(["sh", "-c", f"({spin}) & ({spin}); wait"]))
    alone = run(Command(["sh", "-c", spin]))
    assert measured.cpu > 1.5 * alone.cpu > 0
    with pytest.raises(RunFailed, match="exit status 3"):
        run(Command(["sh", "-c", "exit 3"]))


def digests(media: Path) -> dict[str, str]:
    found = {}
    for path in media.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                found[str(path.relative_to(media))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_trees_are_what_they_are_called_and_can_be_backed_up(name: str, disk: Path) -> None:
    shape = SHAPES[name]
    scale = 8 / shape.documents
    made = MadeTree(disk / "tree", shape, scale, 7)
    again = MadeTree(disk / "again", shape, scale, 7)
    found = digests(made.instance.media)
    assert found == digests(again.instance.media)
    assert made.tree.files == len(found)
    assert made.tree.media_bytes == sum(os.path.getsize(path) for path in made.instance.media.rglob("*.*"))
    if shape.media_bytes and not shape.holes:
        assert made.tree.media_bytes == pytest.approx(shape.media_bytes * scale, rel=0.3)
    if shape.fullest:
        assert max(len(files) for _path, _below, files in os.walk(made.instance.media)) > len(found) / 3
    assert (made.instance.media / made.tree.example).stat().st_size > 0
    if name in ("incompressible", "million"):
        made.grow(0.1)
        place = place_in(disk / "repository")
        assert take(made.instance, place)["files"] > len(found)
        made.shrink()
        assert digests(made.instance.media) == found
        assert take(made.instance, place)["files"] == len(found)
