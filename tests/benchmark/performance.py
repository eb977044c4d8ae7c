# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of runs: tables in Markdown, and docs/performance.md with its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmark.picture import picture
from tests.benchmark.results import Results, Row, Section
from tests.benchmark.targets import seen

#: Processes that never get larger than this, in bytes, are not worth a word.
SMALL = 8_000_000
MOST_PROCESSES = 4
SITES = {"local": "local", "ssh": "over ssh"}
PARTS = {
    "full": "Full: a first backup, into an empty place",
    "restore": "Restore: all of it, onto an empty target",
    "verify": "Verify: every stored byte; `openssl` hashes the source's files",
    "extract": "Extract: one document out of all",
    "unchanged": "Unchanged: backed up once more, nothing is new",
    "plus-one": "Plus one: 1 % more documents since the last backup",
    "resumed": "Resumed: the rest of a first backup that was cut in the middle; `tar` begins again",
    "playbook": "Playbook: a whole `papermerge.backup.create` of which nothing has changed",
}
HEAD = """\
# Performance

Written by `./dev bench`. Every figure is a median; a ratio is the median of the ratios of runs that took place side by
side, to the line in the same table that has 1.00. Nothing here is a promise for other machines: measure on your own,
see `./dev bench --help`.

![Times as ratios](performance.svg)
"""
NOTES = """\
## How it was measured

- `papermerge.backup` is the collection's own code in a process without Ansible; `playbooks` is the whole command of a
  user. It hashes every file, indexes and proves it, and dumps the database; `tar`, `rsync` and `manage.py backup` do
  not.
- Contenders take turns within a round. restic, borg, `manage.py backup` and `community.general.archive` run fewer
  rounds, and in the incremental parts alone, after the others. restic encrypts; borg runs without encryption, with its
  default compression.
- `manage.py backup` is Papermerge 2.0.2's own: it takes the newest version of each original, and neither OCR text nor
  previews, nor the database. `community.general.archive` makes an archive beside the files, and brings it nowhere.
- CPU s: of all processes on both sides, and their ratio, which says more than the time's on a machine that is not
  quiet. others: as many cores were busy with something else meanwhile; more than 0.2
  says that the times are not to be trusted. peak MB: of each kind of process the largest, in 1,000,000 bytes, looked at
  every 50 ms (the kernel's own high-water mark); `@host` is a process on the other side of ssh.
- moved MB: all that passed the host's network cable, in both directions. The targets count what the agents' streams
  carried for the media, without what ssh adds.
- Over ssh: an unprivileged user and sudo, on a host with a network of its own on the same machine: both sides share its
  cores.
- The tree `large` is 20 GB of which most are holes: they are read, hashed, compressed and written as any other bytes,
  but take no room. It shows that memory does not grow with size. Times on it say nothing of other content.
"""


def markdown(report: dict[str, Any]) -> str:
    """Return one run as Markdown: what was run on what, the targets, and a table for each part, tree and site."""
    results = Results.from_list(report["results"])
    lines = [*_facts(report), "", *_targets(results, report["trees"])]
    for tree in report["trees"]:
        lines += ["", *_tree(report, tree)]
        for section in results.sections():
            if section.tree == tree:
                lines += ["", *_section(results, section)]
    return "\n".join(lines) + "\n"


def write_documents(reports: Sequence[dict[str, Any]], directory: Path) -> None:
    """Write performance.md and performance.svg of some runs, the newest last."""
    runs = [f"## Run {number}\n\n{markdown(report)}" for number, report in enumerate(reports, 1)]
    text = "\n".join([HEAD, *runs, NOTES])
    (directory / "performance.md").write_text(text, encoding="utf-8")
    merged = [(report, Results.from_list(report["results"])) for report in reports]
    (directory / "performance.svg").write_text(picture(merged), encoding="utf-8")


def _facts(report: dict[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    yield f"- command: `{report['command']}`, {report['began']}, seed {report['seed']}, commit `{report['commit']}`"
    yield (
        f"- machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"Linux {machine['kernel']}, load before {machine['load']:.1f}"
    )
    yield "- " + ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    places = ", ".join(f"{place}: {kind}" for place, kind in report["file_systems"].items())
    yield f"- source, stored and target on {places}"


def _targets(results: Results, trees: dict[str, Any]) -> list[str]:
    rows = [
        [
            target.words,
            f"{'at least' if target.least else 'at most'} {target.wanted:g}{target.unit}",
            f"{target.value:.2f}{target.unit}",
            "yes" if target.met else "**no**",
        ]
        for target in seen(results, trees)
    ]
    return _table(["what is wanted of papermerge.backup, at scale 1", "wanted", "seen", "met"], rows) if rows else []


def _tree(report: dict[str, Any], name: str) -> list[str]:
    tree = report["trees"][name]
    scale = "" if report["scale"] == 1 else f", at scale {report['scale']:g}"
    counts = (
        f"{tree['files']:,} files in {tree['directories']:,} directories, {tree['media_bytes'] / 1e9:.2f} GB; database "
        f"{tree['database_bytes'] / 1e6:.1f} MB."
    )
    return [f"### {name}: {tree['words']}{scale}", "", counts]


def _section(results: Results, section: Section) -> list[str]:
    heads = [
        SITES[section.site],
        "runs",
        "wall s",
        "ratio",
        "CPU s",
        "ratio",
        "others",
        "stored MB",
        "moved MB",
        "peak MB",
    ]
    rows = [_cells(results, row) for row in results.rows(section)]
    return [f"**{PARTS[section.part]}**", "", *_table(heads, rows)]


def _cells(results: Results, row: Row) -> list[str]:
    ratio, cpu_ratio = results.ratio(row), results.ratio(row, lambda run: run.cpu)
    peaks = [f"{name} {peak / 1e6:.0f}" for name, peak in row.memory.items() if peak >= SMALL]
    return [
        row.name,
        str(len(row.runs)),
        f"{row.seconds:.2f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{row.cpu:.1f}",
        "" if cpu_ratio is None else f"{cpu_ratio:.2f}",
        f"{row.others:.1f}",
        _megabytes(row.stored_bytes),
        _megabytes(row.moved),
        ", ".join(peaks[:MOST_PROCESSES]),
    ]


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f}" if count >= 10_000_000 else f"{count / 1e6:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    columns = range(len(heads))
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in columns]
    texts = {0, len(heads) - 1}

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column in texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if column in texts else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [line(heads), line(rule), *map(line, rows)]
