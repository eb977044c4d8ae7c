# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that say where on the host an instance keeps what."""

    DOCUMENTATION = r"""
notes:
  - The installation of Papermerge is discovered on the host, from processes, systemd units, usual directories and
    containers of Docker or Podman. What an option sets wins over what is discovered, and with O(media_root),
    O(database_url) and O(app_version) all set nothing is discovered. Several installations on one host are an error
    unless O(project_dir) or O(container) names one.
  - Several services of one installation, such as web and workers, count as one. It is an error where they say different
    things of its media or database, unless an option decides.
  - Settings are read as the release reads them. Up to Papermerge 3.2 the project's own Python is asked, as the user of
    the service, and where it cannot be found C(papermerge.conf.py) or C(papermerge.toml) is read, without running it.
    From Papermerge 3.3 on they stand in the environment of its services.
options:
  project_dir:
    description:
      - Directory on the host in which Papermerge is installed, an absolute path. Up to Papermerge 3.2 this is the
        directory with C(manage.py); later it is the one with C(pyproject.toml) or C(alembic.ini), or the working
        directory of its service.
      - Discovered when not set.
    type: str
  media_root:
    description:
      - Papermerge's media directory on the host, an absolute path.
      - When not set, Papermerge's own settings are read.
    type: str
  database_url:
    description:
      - Papermerge's database as a URL. For SQLite it holds the absolute path of the database file after three
        slashes, which makes four, as in V(sqlite:////srv/papermerge/db.sqlite3). For a server it is
        V(postgresql://user:password@host:5432/name) or V(mysql://user:password@host:3306/name), with special characters
        of user and password percent-encoded; without a host the server's usual socket is meant.
      - When not set, Papermerge's own settings are read.
    type: str
  app_version:
    description:
      - Version of Papermerge, for example V(2.0.2).
      - Discovered from the installed files when not set.
    type: str
  container:
    description:
      - Name of the container in which Papermerge runs, where a host has several of them.
    type: str
"""
