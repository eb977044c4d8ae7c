# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: media_restore
short_description: Restore an archive of Papermerge's media directory
version_added: 0.1.0
description:
  - Restores what M(papermerge.backup.media_archive) has written to a host on which the media directory is absent or
    empty. Anything else is refused.
  - Only regular files that the index names are written, with the SHA-256 that it says, no link is followed, and
    nothing is written outside of the media directory.
  - Every stored byte of the archive is verified first. It is then unpacked beside the media directory and put in
    place at the end. The target's Papermerge must have the version that the archive was made of, or not be installed
    yet.
  - Papermerge and its workers must not run on the target meanwhile.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.action
  - papermerge.backup.discovery
  - papermerge.backup.location
  - papermerge.backup.transfer
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Verifies the archive and looks at the target.
options:
  src:
    description:
      - The archive, a directory with C(archive.json) and all that it names, on the machine that O(location)
        says.
    type: str
    required: true
seealso:
  - module: papermerge.backup.media_archive
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Restore the media directory from the controller
  papermerge.backup.media_restore:
    src: /srv/backups/paperhost-media
  become: true

- name: Restore an archive that lies on the host to a place of its own
  papermerge.backup.media_restore:
    src: /mnt/backup/papermerge-media
    location: host
    media_root: /srv/restored/media
  become: true
"""

RETURN = r"""
media_root:
  description: The media directory on the target.
  returned: success
  type: str
  sample: /srv/papermerge/media
files:
  description: Number of media files restored, in check mode of those in the archive.
  returned: success
  type: int
  sample: 30871
media_bytes:
  description: Size of these files in bytes.
  returned: success, not in check mode
  type: int
  sample: 2147483648
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: paperhost, result: ok}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: target
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    media directory /srv/papermerge/media is not empty: it holds 'docs'; a restore goes onto a target that is empty
"""
