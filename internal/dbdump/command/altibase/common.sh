# What the preset's scripts share. Arguments: file of variables or nothing,
# directory, port, variable of the password.
set -eu
umask 077
environment=$1 directory=$2 port=$3 variable=$4

die() {
	echo "$1" >&2
	[ -z "${2:-}" ] || tail -n 20 "$2" >&2
	exit 1
}

# Errors are printed as [ERR-xxxxx : ...], whatever the status.
said_well() {
	if grep -q '\[ERR-' "$1"; then die "$2 printed an error" "$1"; fi
}

if [ -n "$environment" ]; then
	[ -r "$environment" ] || die "there is no file $environment with Altibase's environment"
	set +eu # it was written for a shell that does not mind, as the guide's LD_LIBRARY_PATH shows
	# shellcheck disable=SC1090
	. "$environment" >&2
	set -eu
fi
eval "password=\${$variable:-}"
[ -n "$password" ] || die "the variable $variable with the password of SYS is empty in the container"

# workplace makes a directory, goes there and sees that it goes when this ends.
# There is one at a time of each: aexport does not stand two, nor does the server.
workplace() {
	work=$directory/keepset-$1
	mkdir "$work" || die "another $1 is at work, or one that was killed has left $work behind: if none runs in the pod, remove that directory"
	trap 'rm -rf "$work"' EXIT
	trap 'exit 143' HUP INT PIPE TERM
	cd "$work"
}

# unpack takes the archive from standard input. All of it is here before anything
# is touched: what is cut off ends this script.
unpack() {
	tar xf - || die "the archive cannot be unpacked"
	cat >/dev/null # what tar leaves of its padding
}

# ask leaves in isql.log what one SELECT answers. One statement a call and no
# EXIT, since isql's status is that of the last one, and 0 after EXIT. Without the
# line that ends an answer there was none, and no rows would look like a good sign.
ask() {
	printf '%s\n' "$1" | isql -s 127.0.0.1 -port "$port" -u sys -p "$password" -silent >isql.log 2>&1 ||
		die "isql ended with status $?: $1" isql.log
	said_well isql.log "isql: $1"
	grep -q 'rows\{0,1\} selected' isql.log || die "isql ended with status 0 and did not answer: $1" isql.log
}
