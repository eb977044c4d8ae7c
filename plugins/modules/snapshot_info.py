# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_info
short_description: List the snapshots in repositories
version_added: 0.1.0
description:
  - Lists the committed snapshots in repositories on the controller, oldest first within each instance. Contacts no
    host.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.controller
  - papermerge.backup.attributes.reads_only
  - papermerge.backup.repository.several
  - papermerge.backup.errors
seealso:
  - module: papermerge.backup.snapshot_verify
  - module: papermerge.backup.snapshot_pin
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: List all snapshots in the default repository
  papermerge.backup.snapshot_info:
  run_once: true
  register: listed

- name: Show the newest snapshot of each instance
  ansible.builtin.debug:
    msg: "{{ item.instance }}: {{ item.id }}, {{ item.state }}"
  loop: "{{ listed.snapshots | selectattr('id', 'defined') | groupby('instance') | map('last') | map('last') }}"
  loop_control:
    label: "{{ item.instance }}"
  run_once: true

- name: List the snapshots of one instance
  papermerge.backup.snapshot_info:
    repository:
      - /srv/backups/papermerge
      - /mnt/second/papermerge

    instance: paperhost
"""

RETURN = r"""
snapshots:
  description:
    - The snapshots. Beside the keys below each has those of RV(papermerge.backup.snapshot_create#module:snapshot)
      except C(seconds). A damaged one has the keys below only.
    - An instance without snapshots has one entry with C(instance), C(path) and the state V(no snapshots).
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Sequence number and start in UTC.
      returned: always
      type: str
      sample: 000042-20261122T134215Z
    sequence:
      description: Number of the snapshot.
      returned: always
      type: int
      sample: 42
    instance:
      description: Name of the instance in the repository.
      returned: always
      type: str
      sample: paperhost
    state:
      description:
        - V(complete), V(incomplete) when originals were lost, or V(damaged) when the manifest cannot be read. Other
          damage is found by M(papermerge.backup.snapshot_verify).
      returned: always
      type: str
      sample: complete
    path:
      description: Directory of the snapshot on the controller.
      returned: always
      type: str
      sample: /home/backup/papermerge-backups/paperhost/snapshots/000042-20261122T134215Z
    verified:
      description: The last verification of this snapshot, V(none) when there was none.
      returned: always
      type: dict
      contains:
        time:
          description: Time of the verification, ISO 8601 in UTC.
          returned: always
          type: str
          sample: "2026-11-23T04:00:12.783558Z"
        level:
          description: V(quick), V(full) or V(deep).
          returned: always
          type: str
          sample: full
        result:
          description: V(sound), V(damaged), or V(failed) when the verification could not be done.
          returned: always
          type: str
          sample: sound
        message:
          description: What was found, empty for a sound snapshot.
          returned: always
          type: str
          sample: ""
        manifest_sha256:
          description: SHA-256 of the manifest that was verified, in hexadecimal digits.
          returned: always
          type: str
          sample: db107a7649671ef129c6baa43f6d39101c298e9b9eca4f1cf9768fd3ecc12478
        snapshot:
          description: Id of the snapshot.
          returned: always
          type: str
          sample: 000042-20261122T134215Z
        event:
          description: Always V(verified).
          returned: always
          type: str
          sample: verified
    pinned:
      description: The pin that keeps this snapshot from being pruned, V(none) when there is none.
      returned: always
      type: dict
      contains:
        time:
          description: Time at which it was pinned, ISO 8601 in UTC.
          returned: always
          type: str
          sample: "2026-11-23T09:12:44.001920Z"
        note:
          description: Why, as told to M(papermerge.backup.snapshot_pin).
          returned: always
          type: str
          sample: before the migration to 3.6
    msg:
      description: What is wrong.
      returned: for a damaged snapshot
      type: str
      sample: >-
        snapshot 000042-20261122T134215Z:
        /srv/backups/papermerge/paperhost/snapshots/000042-20261122T134215Z/manifest.json is missing
rows:
  description: What M(papermerge.backup.summary) shows of this result, a row for each snapshot.
  returned: always
  type: list
  elements: dict
  sample: [{host: paperhost, instance: paperhost, snapshot: 000042-20261122T134215Z, result: complete}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: repository
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: repository /home/backup/papermerge-backups does not exist on the controller; set papermerge_backup_repository
"""
