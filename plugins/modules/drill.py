# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drill
short_description: Prove that a snapshot can be restored, and keep evidence
version_added: 0.1.0
description:
  - Restores a snapshot of an instance onto a scratch target on the controller, proves what was restored, measures the
    time, tries whether damage would have been seen, and removes everything again. Contacts no host.
  - The scratch target is a private directory with, for a database of a server, a throw-away PostgreSQL or MariaDB that
    listens on a unix socket in it only. No live instance is touched.
  - What was found is kept as evidence, C(drill.json), C(junit.xml) and C(report.html) in one directory.
  - The module fails when a check has failed, when a damage of the twin was not caught, or when an objective was missed.
    The evidence is written before that.
requirements:
  - For a snapshot with a PostgreSQL database the server programs of its major version or a later one on the controller
  - For a snapshot with a MariaDB database the server programs of its version or a later one on the controller
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.controller
  - papermerge.backup.repository
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Says which snapshot would be drilled.
options:
  snapshot:
    description:
      - Which snapshot to drill, V(latest), a sequence number, an id, or a time in ISO 8601, which is in UTC unless it
        has an offset.
    type: str
    default: latest
  days:
    description:
      - Drill a random snapshot of the last so many days, so that older ones are tried as well. Where these days have
        none it is the newest one.
      - V(0) drills O(snapshot).
    type: int
    default: 0
  sample:
    description: How many originals to open, chosen at random.
    type: int
    default: 20
  names:
    description:
      - Keep the paths of the originals in the evidence. In several releases of Papermerge they hold the titles of
        documents.
    type: bool
    default: false
  command:
    description:
      - A command for the shell of the controller that looks at the restored instance. Any status but 0 fails the drill.
        It is ended after an hour.
      - The environment variables E(PAPERMERGE_BACKUP_DRILL_MEDIA_ROOT), E(PAPERMERGE_BACKUP_DRILL_DATABASE_URL),
        E(PAPERMERGE_BACKUP_DRILL_VERSION), E(PAPERMERGE_BACKUP_DRILL_INSTANCE) and
        E(PAPERMERGE_BACKUP_DRILL_SNAPSHOT) tell it where and what that is.
    type: str
  rto:
    description:
      - The recovery time objective, in which the restored state must be proved. Seconds, or such as V(90min), V(4h) or
        V(1d12h).
      - The default is none.
    type: str
  rpo:
    description:
      - The recovery point objective, the age that the snapshot may have when the drill begins. Written as O(rto).
      - The default is none.
    type: str
  evidence:
    description: Directory on the controller in which the evidence of all drills is kept.
    type: path
    default: ~/papermerge-drills
  scratch_dir:
    description:
      - Directory on the controller in which the scratch target is made. It needs room for the restored instance.
      - The default is E(TMPDIR), or V(/var/tmp) when that is not set.
    type: path
    default: ""
seealso:
  - module: papermerge.backup.snapshot_restore
  - module: papermerge.backup.snapshot_verify
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Prove that the newest snapshot can be restored within four hours and is at most a day old
  papermerge.backup.drill:
    repository: /srv/backups/papermerge
    instance: paperhost
    evidence: /srv/backups/papermerge-drills
    rto: 4h
    rpo: 1d

- name: Drill any snapshot of the last month, and look at it with a program of our own
  papermerge.backup.drill:
    instance: paperhost
    days: 30
    command: /usr/local/bin/list-documents "$PAPERMERGE_BACKUP_DRILL_DATABASE_URL"
"""

RETURN = r"""
verdict:
  description: V(passed) or V(failed).
  returned: success, but not in check mode, and when a drill has failed
  type: str
  sample: passed
reasons:
  description: Everything for which the drill has failed.
  returned: success, but not in check mode, and when a drill has failed
  type: list
  elements: str
  sample: []
evidence:
  description: The directory of this drill's evidence.
  returned: success, but not in check mode, and when a drill has failed
  type: str
  sample: /home/backup/papermerge-drills/paperhost/20261122T134215Z-000042
checks:
  description: The verdict of each check, V(passed), V(failed) or V(skipped), by its name.
  returned: success, but not in check mode, and when a drill has failed
  type: dict
  sample: {verify: passed, load: passed, row_counts: passed, files: passed}
objectives:
  description: What was measured against O(rto) and O(rpo), in seconds; the page in the evidence shows the same.
  returned: success, but not in check mode, and when a drill has failed
  type: dict
  sample:
    rto: {limit_seconds: 14400.0, measured_seconds: 312.4, met: true}
    rpo: {limit_seconds: 86400.0, snapshot_age_seconds: 21600.2, newest_document_age_seconds: 30011.9, met: true}
seconds:
  description: Duration of the whole drill in seconds.
  returned: success, but not in check mode, and when a drill has failed
  type: float
  sample: 402.117
snapshot:
  description:
    - The snapshot that was drilled, or would be in check mode; some keys of
      RV(papermerge.backup.snapshot_create#module:snapshot).
  returned: success, and when a drill of a snapshot has failed
  type: dict
  sample: {id: 000042-20261122T134215Z, sequence: 42, version: 2.0.2}
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: paperhost, instance: paperhost, result: ok, snapshot: 000042-20261122T134215Z, checks: 7 passed}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: damage
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    Every stored byte is sound: /srv/backups/papermerge/paperhost/parts/0b7bd2b7e3a14b6f8a9b7d7a7ad6f3c1.tar.zst is
    missing; see /srv/backups/papermerge-drills/paperhost/20261122T134215Z-000042
"""
