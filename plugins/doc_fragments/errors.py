# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How the modules fail: the words of ``error`` are the kinds of plugins/module_utils/errors.py."""

    DOCUMENTATION = r"""
options: {}
notes:
  - "A failed result says in RV(msg) what was found, where, and what to do, and in RV(error) what kind of failure it is,
    one of these words.
    V(setting) - a setting is wrong, missing or ambiguous, correct it in the inventory.
    V(media) - the media directory cannot be read as it is, repair it or allow what was found.
    V(database) - the database cannot be copied or restored, repair it or its access.
    V(unsupported) - what was found is outside what this version of the collection can do.
    V(repository) - the repository cannot be used, or it has no such snapshot.
    V(busy) - another run works on the same instance, wait for it.
    V(space) - not enough room, free some and run again.
    V(damage) - what is stored is not what was committed, use another snapshot and look after the storage.
    V(target) - the target of a restore is not empty or does not fit the snapshot.
    V(loss) - originals that must exist are missing or unreadable, look for them before older snapshots are pruned.
    V(login) - the host was reached, but the agent could not be started, check become, its password, and Python.
    V(connection) - the host could not be reached or went silent, check the connection and run again.
    V(tool) - a program that does a part of the work is missing or failed.
    V(failed) - anything else."
  - Messages name settings as the variables of the collection's roles. C(papermerge_backup_media_root), for example,
    is the option C(media_root) of the modules.
"""
