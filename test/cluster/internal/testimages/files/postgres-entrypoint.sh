#!/bin/bash
# Starts PostgreSQL as its official image does: a PGDATA without a database is
# initialised from the environment and from /docker-entrypoint-initdb.d, once.
#
#   POSTGRES_PASSWORD       (or POSTGRES_PASSWORD_FILE: read from a file)
#   POSTGRES_USER           the superuser, default postgres
#   POSTGRES_DB             a database to make, default that of the superuser
#   POSTGRES_HOST_AUTH_METHOD, for connections from elsewhere; default scram-sha-256
#   PGDATA                  default /var/lib/postgresql/data
#
# PGDATA may hold what a pg_basebackup has left, which is started as it is. Its
# permissions and those of what is in it are put right.
set -eo pipefail
shopt -s nullglob

note() { echo "entrypoint: $*" >&2; }
die() { note "error: $*"; exit 1; }

[ "${1:0:1}" != "-" ] || set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"
for arg in "$@"; do
	case "$arg" in --help | -\? | --version | -V) exec "$@" ;; esac
done

export PGDATA=${PGDATA:-/var/lib/postgresql/data}
mkdir -p "$PGDATA"
if [ "$(id -u)" = 0 ]; then
	find "$PGDATA" \! -user postgres -exec chown postgres:postgres '{}' +
	chmod 0700 "$PGDATA"
	note "continuing as user postgres"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

# file_env NAME: prints NAME, or the content of the file that NAME_FILE names.
file_env() {
	local file="$1_FILE"
	if [ -n "${!1:-}" ] && [ -n "${!file:-}" ]; then
		die "both $1 and $file are set"
	fi
	if [ -n "${!1:-}" ] || [ -z "${!file:-}" ]; then printf '%s' "${!1:-}"; return; fi
	[ -r "${!file}" ] || die "cannot read ${!file}, which $file names"
	cat "${!file}"
}

# sql [ARG...]: runs SQL from standard input in the temporary server.
sql() { psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=/run/postgresql --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" "$@"; }

run_scripts() {
	local file
	for file in /docker-entrypoint-initdb.d/*; do
		case "$file" in
			*.sh)
				note "running $file"
				if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
			*.sql) note "running $file"; sql <"$file" ;;
		esac
	done
}

initialise() {
	local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256} password
	password=$(file_env POSTGRES_PASSWORD)
	[ -n "$password" ] || [ "$method" = trust ] || die "PGDATA is empty and no password is given: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"
	export POSTGRES_USER=${POSTGRES_USER:-postgres}
	export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
	initdb --no-sync --auth=trust --username="$POSTGRES_USER" ${password:+--pwfile=<(printf '%s\n' "$password")} >&2
	echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
	printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
	pg_ctl start --wait --silent --options="-c listen_addresses='' -c unix_socket_directories=/run/postgresql" >&2
	if [ "$POSTGRES_DB" != postgres ]; then
		note "creating database $POSTGRES_DB"
		sql --dbname=postgres --set=name="$POSTGRES_DB" <<<'CREATE DATABASE :"name"'
	fi
	run_scripts
	pg_ctl stop --wait --silent --mode=fast >&2
	note "initialised"
}

[ -s "$PGDATA/PG_VERSION" ] || initialise
note "starting $*"
exec "$@"
