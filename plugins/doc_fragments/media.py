# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that say which files belong to the media."""

    DOCUMENTATION = r"""
options:
  media_allowed_roots:
    description:
      - Directories on the host, absolute paths, into which symbolic links and mounts below the media directory may
        lead. What they lead to is then treated as a part of the media directory.
      - Any other link that leads out of the media directory, and any other mount in it, is an error that names it.
    type: list
    elements: str
    default: []
  derived:
    description:
      - Whether files that Papermerge can make again, OCR text and previews of pages, are included.
      - Without them backups are smaller, and a restored Papermerge has to run OCR again.
    type: bool
    default: true
"""
