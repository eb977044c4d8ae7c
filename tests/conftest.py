# SPDX-License-Identifier: GPL-3.0-or-later
"""The seed of a run: printed by ./dev, or here when pytest was started by hand."""

from __future__ import annotations

import os
import random

import pytest

SEED_IS_KNOWN = "PAPERMERGE_BACKUP_SEED" in os.environ
os.environ.setdefault("PAPERMERGE_BACKUP_SEED", str(random.randrange(2**31)))


def pytest_report_header() -> list[str]:
    return [] if SEED_IS_KNOWN else [f"seed: {os.environ['PAPERMERGE_BACKUP_SEED']}"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make what has other numbers in the soak a part of it."""
    if os.environ.get("PAPERMERGE_BACKUP_SOAK") == "1":
        for item in items:
            if "soak" in getattr(item, "fixturenames", ()):
                item.add_marker("soak")
