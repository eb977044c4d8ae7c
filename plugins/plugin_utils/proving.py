# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof on the controller: version rows against the files that are in parts, merged in the catalog."""

from __future__ import annotations

from itertools import groupby

from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import CHANGING, UNREADABLE
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import ReleaseLine
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import (
    NOT_COMPUTABLE,
    NOT_EXPECTED,
    Proof,
    classify,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog


def prove(
    catalog: Catalog, line: ReleaseLine, dumped_at_ns: int, not_expected: int, older: int, elsewhere: bool = False
) -> Proof:
    """Put every version row into its class, count the originals that no row accounts for, and find those that changed.

    ``dumped_at_ns``: moment of the dump in nanoseconds since 1970 by the host's clock; ``older``: versions whose paths
    cannot be computed; ``elsewhere``: originals are in object storage only.
    """
    proof = Proof(layout_known=line.is_known)
    proof.classes[NOT_EXPECTED] = not_expected
    proof.classes[NOT_COMPUTABLE] = older
    for path, row, state, held in catalog.expected_states():
        proof.add(classify(state, dumped_at_ns, elsewhere), row, path, held)
    proof.unreadable_files = catalog.count_state(UNREADABLE)
    proof.changing_files = catalog.count_state(CHANGING)
    for directory in line.originals:
        # Paths come sorted: those of one directory follow one another.
        for folder, paths in groupby(catalog.unexpected_below(directory), lambda path: path.rpartition(b"/")[0]):
            count = sum(1 for _path in paths)
            if _belongs_to_a_row(catalog, folder):
                proof.unlisted += count
            else:
                proof.orphans += count
    originals = tuple(directory + b"/" for directory in line.originals)
    for path, before, now in catalog.changed():
        if path.startswith(originals) or catalog.is_expected(path):
            proof.add_changed(path, before, now)
    return proof


def _belongs_to_a_row(catalog: Catalog, directory: bytes) -> bool:
    """Tell whether a directory is, or lies below, that of a version row: its files are older versions, or derived."""
    parts = directory.split(b"/")
    return any(catalog.is_listed_directory(b"/".join(parts[:depth])) for depth in range(1, len(parts) + 1))
