# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection community.general out of PyPI's `ansible` package: a server for collections may be out of reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

#: The release whose collections go with the ansible-core of tests/requirements.txt.
RELEASE = "12.3.0"
WANTED = "ansible_collections/community/general/"
MANIFEST = WANTED + "MANIFEST.json"


@dataclass(frozen=True)
class CommunityGeneral:
    """``path``: for ANSIBLE_COLLECTIONS_PATH."""

    path: Path
    version: str


def community_general(cache: Path) -> CommunityGeneral:
    """Return the collection, fetched into the cache the first time. Raises CalledProcessError when it cannot be."""
    place = cache / f"community.general-of-ansible-{RELEASE}"
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input", "download"]
            subprocess.run([*pip, "--no-deps", "--dest", scratch, f"ansible=={RELEASE}"], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            unpacked = Path(scratch, "unpacked")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(WANTED)])
            os.rename(unpacked, place)
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    return CommunityGeneral(place, manifest["collection_info"]["version"])
