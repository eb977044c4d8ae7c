# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the programs of each PostgreSQL release are had from."""

from __future__ import annotations

from pathlib import Path

from tests.support.servers.process import ServerError

DEBIAN_MAJOR = 15


def programs_of(major: int) -> Path:
    """Return the directory of a release's programs. Raises ServerError."""
    installed = Path(f"/usr/lib/postgresql/{major}/bin")
    if (installed / "postgres").exists():
        return installed
    raise ServerError(
        f"PostgreSQL {major} is not installed; run apt-get install --no-install-recommends postgresql-{major}"
    )
