# The server as its administrator has it, for physical backups and restores.
home=${ALTIBASE_HOME:?is not set}
home=${home%/}

# sysdba leaves in isql.log what one statement of SYSDBA answers. It is the local
# connection, which finds a server that is not in service, and says when there is none.
sysdba() {
	printf '%s;\n' "$1" | isql -s localhost -u sys -p "$password" -sysdba -silent >isql.log 2>&1
}

admin() {
	sysdba "$1" || die "isql ended with status $?: $1" isql.log
	said_well isql.log "isql: $1"
}

# rows takes those of a SELECT out of what isql printed.
rows() {
	awk '/^-+ *$/ { on = 1; next } /rows? selected/ { on = 0 } on && NF' isql.log
}

# column prints the one column of a query, with ? for ALTIBASE_HOME as in the
# properties. The lines are long enough for any path.
column() {
	ask "SET LINESIZE 2048;
SET COLSIZE 1024;
$1;"
	rows | awk -v home="$home" '{ sub(/^\?/, home, $1); print $1 }'
}

# standing says that no server runs here. Only SYSDBA is told so; to everybody
# else a server that refuses a password looks the same.
standing() {
	sysdba 'SELECT 1 FROM DUAL' || :
	grep -qi 'idle instance' isql.log
}

# plain refuses what is no path of its own.
plain() {
	case $1/ in
	*/../* | */./* | *//*) die "$1 is no plain path" ;;
	/*) ;;
	*) die "$1 is no absolute path" ;;
	esac
}

# movable refuses a directory that a restore could not set aside as a whole.
movable() {
	plain "$1"
	for kept in "$home" "$home/conf" "$work"; do
		case $kept/ in
		"$1"/*) die "$1 holds files of the database and $kept as well: a restore sets it aside as a whole, so the files need a directory of their own" ;;
		esac
	done
}
