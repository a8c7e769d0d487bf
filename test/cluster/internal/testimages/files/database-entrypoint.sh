#!/bin/bash
# Starts MariaDB or MySQL as their official images do: an empty volume is
# initialised from the environment and from /docker-entrypoint-initdb.d, once.
#
#   MARIADB_ROOT_PASSWORD   (or MYSQL_...; with _FILE appended: read from a file)
#   MARIADB_ALLOW_EMPTY_ROOT_PASSWORD, MARIADB_ROOT_HOST (default %)
#   MARIADB_DATABASE, MARIADB_USER, MARIADB_PASSWORD
#   MARIADB_INITDB_SKIP_TZINFO
#
# The volume is filled in a directory of its own in the volume, and moved into
# place only when all is done, the system tables last: whatever dies half-way,
# a volume that looks initialised is.
set -eo pipefail
shopt -s nullglob dotglob

note() { echo "entrypoint: $*" >&2; }
die() { note "error: $*"; exit 1; }

# setting NAME [DEFAULT]: prints MARIADB_NAME, MYSQL_NAME or the content of the
# file that either names with _FILE.
setting() {
	local prefix var file
	for prefix in MARIADB MYSQL; do
		var="${prefix}_$1" file="${prefix}_$1_FILE"
		if [ -n "${!var:-}" ] && [ -n "${!file:-}" ]; then
			die "both $var and $file are set"
		fi
		if [ -n "${!var:-}" ]; then printf '%s' "${!var}"; return; fi
		if [ -n "${!file:-}" ]; then
			[ -r "${!file}" ] || die "cannot read ${!file}, which $file names"
			cat "${!file}"; return
		fi
	done
	printf '%s' "${2:-}"
}

# quote STRING: as a literal of SQL.
quote() {
	local s=${1//\\/\\\\}
	printf "'%s'" "${s//"'"/"''"}"
}

[ "${1:0:1}" != "-" ] || set -- "$(command -v mariadbd >/dev/null && echo mariadbd || echo mysqld)" "$@"
case "$1" in
	mariadbd | mysqld) ;;
	*) exec "$@" ;;
esac
for arg in "$@"; do
	case "$arg" in --help | -\? | --version | -V | --print-defaults) exec "$@" ;; esac
done

server=$1
args=("${@:2}")

# The image's own configuration names the directory, unless an argument does: asking the server costs it a second.
datadir=/var/lib/mysql
for arg in "${args[@]}"; do
	case "$arg" in --datadir=*) datadir=${arg#*=} ;; esac
done
datadir=${datadir%/}
mkdir -p "$datadir"

if [ "$(id -u)" = 0 ]; then
	find "$datadir" \! -user mysql -exec chown mysql:mysql '{}' +
	note "continuing as user mysql"
	exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
fi

filling="$datadir/#initialising"
empty=/usr/share/empty-database # made with the image
socket=/tmp/entrypoint.sock
client=$(command -v mariadb || command -v mysql)

# sql [ARG...]: runs SQL from standard input in the temporary server.
sql() { MYSQL_PWD=$root_now "$client" --no-defaults --protocol=socket --socket="$socket" --user=root --comments "$@"; }

create_system_tables() {
	note "creating system tables"
	if [ -r "$empty/ibdata1" ]; then
		cp -r --sparse=always "$empty/." "$filling"
	elif [ "$server" = mariadbd ]; then
		mariadb-install-db --datadir="$filling" --auth-root-authentication-method=normal --skip-test-db \
			--default-time-zone=SYSTEM --loose-innodb_buffer_pool_load_at_startup=0 \
			"${args[@]}" --datadir="$filling" >/tmp/install.log 2>&1 || { cat /tmp/install.log >&2; die "mariadb-install-db failed"; }
	else
		"$server" "${args[@]}" --datadir="$filling" --initialize-insecure
	fi
}

start_temporary() {
	local extra=(--mysqlx=OFF --skip-replica-start)
	[ "$server" = mysqld ] || extra=(--wsrep_on=OFF --expire-logs-days=0 --skip-slave-start)
	"$server" "${args[@]}" --datadir="$filling" --socket="$socket" --pid-file=/tmp/entrypoint.pid --skip-networking \
		--default-time-zone=SYSTEM --loose-innodb_buffer_pool_load_at_startup=0 "${extra[@]}" &
	temporary=$!
	local i
	for ((i = 0; i < 300; i++)); do
		if sql --database=mysql <<<'SELECT 1' >/dev/null 2>&1; then return; fi
		kill -0 "$temporary" 2>/dev/null || die "the temporary server ended"
		sleep 0.3
	done
	die "the temporary server did not start in time"
}

stop_temporary() {
	kill "$temporary"
	wait "$temporary" || die "the temporary server did not stop cleanly"
}

load_time_zones() {
	[ -z "$(setting INITDB_SKIP_TZINFO)" ] || return 0
	local loader
	loader=$(command -v mariadb-tzinfo-to-sql || command -v mysql_tzinfo_to_sql) || return 0
	{ echo 'SET SESSION sql_log_bin = 0;'; "$loader" /usr/share/zoneinfo 2>/dev/null; } | sql --database=mysql
}

create_accounts() {
	local host database user password
	host=$(setting ROOT_HOST %)
	database=$(setting DATABASE)
	user=$(setting USER)
	password=$(setting PASSWORD)
	{
		echo "SET SESSION sql_log_bin = 0;"
		if [ "$server" = mariadbd ]; then
			# mariadb-install-db makes root without password at each of the machine's names.
			echo "DROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1', 'root'@$(quote "$(hostname)"), ''@'localhost', ''@$(quote "$(hostname)");"
		fi
		if [ "$host" != localhost ]; then
			echo "CREATE USER 'root'@$(quote "$host") IDENTIFIED BY $(quote "$root_password");"
			echo "GRANT ALL ON *.* TO 'root'@$(quote "$host") WITH GRANT OPTION;"
		fi
		[ -z "$root_password" ] || echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $(quote "$root_password");"
	} | sql --database=mysql
	root_now=$root_password
	if [ -n "$database" ]; then
		note "creating database $database"
		sql <<<"CREATE DATABASE IF NOT EXISTS \`${database//\`/\`\`}\`;"
	fi
	if [ -n "$user" ]; then
		[ -n "$password" ] || die "MARIADB_USER needs MARIADB_PASSWORD"
		note "creating user $user"
		sql <<<"CREATE USER $(quote "$user")@'%' IDENTIFIED BY $(quote "$password");"
		[ -z "$database" ] || sql <<<"GRANT ALL ON \`${database//\`/\`\`}\`.* TO $(quote "$user")@'%';"
	fi
}

run_scripts() {
	local file database
	database=$(setting DATABASE)
	for file in /docker-entrypoint-initdb.d/*; do
		case "$file" in
			*.sh)
				note "running $file"
				if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
			*.sql) note "running $file"; sql ${database:+--database="$database"} <"$file" ;;
			*.sql.gz) note "running $file"; gzip -dc "$file" | sql ${database:+--database="$database"} ;;
			*.sql.zst) note "running $file"; zstd -dc "$file" | sql ${database:+--database="$database"} ;;
		esac
	done
}

initialise() {
	root_now= # what root logs in with: nothing, until the accounts are made
	root_password=$(setting ROOT_PASSWORD)
	if [ -z "$root_password" ] && [ -z "$(setting ALLOW_EMPTY_ROOT_PASSWORD)$(setting ALLOW_EMPTY_PASSWORD)" ]; then
		die "the volume is empty and no root password is given: set MARIADB_ROOT_PASSWORD or MYSQL_ROOT_PASSWORD (or ..._FILE)"
	fi
	rm -rf "$filling"
	mkdir "$filling"
	create_system_tables
	start_temporary
	load_time_zones
	create_accounts
	run_scripts
	stop_temporary
	sync -f "$filling"
	touch "$filling/.complete"
	note "initialised"
}

# move_into_place may be repeated: mysql, by which a volume counts as
# initialised, moves last.
move_into_place() {
	local entry
	for entry in "$filling"/*; do
		case "${entry##*/}" in mysql | .complete) ;; *) mv -fT "$entry" "$datadir/${entry##*/}" ;; esac
	done
	[ ! -e "$filling/mysql" ] || mv -fT "$filling/mysql" "$datadir/mysql"
	rm -rf "$filling"
}

if [ -e "$filling/.complete" ]; then
	move_into_place
elif [ ! -d "$datadir/mysql" ]; then
	for entry in "$datadir"/*; do
		case "${entry##*/}" in
			lost+found | '#initialising') ;;
			*) die "$datadir has no system tables but is not empty: it holds ${entry##*/}; give an empty volume" ;;
		esac
	done
	initialise
	move_into_place
fi
note "starting $*"
exec "$@"
