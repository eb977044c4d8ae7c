# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: summary
short_description: Print the closing table of a play
version_added: 0.1.0
description:
  - Prints one table over the results of all hosts of a play, and after it the message of each row that has one. The
    playbooks of this collection end with it.
  - A host without a result gets a row that says so, since silence must not look like success. Contacts no host and
    never fails because of what a row says.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.controller
  - papermerge.backup.attributes.reads_only
options:
  title:
    description: Line above the table.
    type: str
    required: true
  columns:
    description:
      - Keys of the rows to show, in this order. The head of a column is its key with spaces for underscores.
      - Numbers in columns whose key ends in C(_bytes) are shown as sizes, those in the columns C(time) and C(seconds)
        as durations.
    type: list
    elements: str
    required: true
  results:
    description:
      - The rows, as the other modules of this collection return them in C(rows). The key C(host) says which host a
        row belongs to, the key C(msg) has a message.
      - Of rows with the same C(path), the directory of a snapshot, the first one is shown.
      - A row that has nothing but C(host) is not shown and says that this host has nothing to show.
    type: list
    elements: dict
    required: true
  hosts:
    description: Names of the hosts of the play, in the order of the table.
    type: list
    elements: str
    required: true
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Take a snapshot
  papermerge.backup.snapshot_create:
  become: true
  register: created

- name: Show what became of each host
  papermerge.backup.summary:
    title: Snapshots
    columns: [host, result, snapshot, version, documents, originals, new_bytes, stored_bytes, time]
    results: >-
      {{ ansible_play_hosts_all | map('extract', hostvars) | selectattr('created.rows', 'defined')
         | map(attribute='created.rows') | flatten }}
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
"""

RETURN = r"""
rows:
  description: The rows as shown, in the order of O(hosts).
  returned: success
  type: list
  elements: dict
  sample:
    - host: paperhost
      result: ok
      snapshot: 000042-20261122T134215Z
      originals: 1198/1198
      time: 43.126
    - host: otherhost
      result: failed
      msg: the host has left no result
"""
