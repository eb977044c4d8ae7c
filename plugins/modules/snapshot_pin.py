# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_pin
short_description: Pin a snapshot, so that no prune removes it
version_added: 0.1.0
description:
  - Pins a snapshot in a repository on the controller, or takes the pin away. Contacts no host.
  - Pins are lines of the instance's history. The snapshots themselves are never changed.
  - M(papermerge.backup.snapshot_info) shows which snapshots are pinned.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.controller
  - papermerge.backup.repository
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
options:
  snapshot:
    description:
      - Which snapshot of the instance to pin. A sequence number such as V(42), an id such as
        V(000042-20261122T134215Z), V(latest), or a time, as in M(papermerge.backup.snapshot_verify).
    type: str
    required: true
  state:
    description: Whether the pin is to be there.
    type: str
    choices:
      - present
      - absent
    default: present
  note:
    description: Why the snapshot is pinned, for whoever finds it years later.
    type: str
    default: ""
seealso:
  - module: papermerge.backup.snapshot_prune
  - module: papermerge.backup.snapshot_info
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Keep the state before the migration
  papermerge.backup.snapshot_pin:
    instance: paperhost
    snapshot: latest
    note: before the migration to 3.6
  run_once: true

- name: Let the policy decide again
  papermerge.backup.snapshot_pin:
    instance: paperhost
    snapshot: "42"
    state: absent
  run_once: true
"""

RETURN = r"""
id:
  description: The snapshot's sequence number and start in UTC.
  returned: success
  type: str
  sample: 000042-20261122T134215Z
instance:
  description: Name of the instance in the repository.
  returned: success
  type: str
  sample: paperhost
pinned:
  description: Whether the snapshot is pinned now.
  returned: success
  type: bool
  sample: true
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: localhost, instance: paperhost, snapshot: 000042-20261122T134215Z, result: ok}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: repository
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: instance paperhost has no snapshot 42; there are 000001-20261120T101500Z
"""
