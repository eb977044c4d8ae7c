#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What of the official image's entry matters to a backup: a root with a password, an account and a database of the
# application, which may come from any address.
set -eu
mkdir -p /tmp /run/mysqld
chmod 1777 /tmp
chown mysql: /run/mysqld /var/lib/mysql
if [ ! -d /var/lib/mysql/mysql ]; then
    mariadb-install-db --user=mysql --datadir=/var/lib/mysql --skip-test-db --auth-root-authentication-method=normal \
        >/tmp/install.log
    cat >/tmp/first.sql <<SQL
ALTER USER root@localhost IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';
CREATE DATABASE \`$MARIADB_DATABASE\` CHARACTER SET utf8mb4;
CREATE USER '$MARIADB_USER'@'%' IDENTIFIED BY '$MARIADB_PASSWORD';
GRANT ALL ON \`$MARIADB_DATABASE\`.* TO '$MARIADB_USER'@'%';
SQL
    chown mysql: /tmp/first.sql
    set -- "$@" --init-file=/tmp/first.sql
fi
exec "$@" --user=mysql --datadir=/var/lib/mysql --bind-address=0.0.0.0 --socket=/run/mysqld/mysqld.sock
