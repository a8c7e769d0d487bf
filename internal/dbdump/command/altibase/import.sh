# Restores a logical backup of an Altibase database, the tar archive that comes
# on standard input, into pod 0, and brings aku up again.
# Arguments: file of variables or nothing, directory, port, variable of the password.
set -eu
umask 077

die() {
	echo "$1" >&2
	[ -z "${2:-}" ] || tail -n 20 "$2" >&2
	exit 1
}

# Errors are printed as [ERR-xxxxx : ...], whatever the status.
said_well() {
	if grep -q '\[ERR-' "$1"; then die "$2 printed an error" "$1"; fi
}

case $(hostname) in
*-0) ;;
*) die "this is not pod 0: aku fills the others from there" ;;
esac
if [ -n "$1" ]; then
	[ -r "$1" ] || die "there is no file $1 with Altibase's environment"
	set +eu # it was written for a shell that does not mind, as the guide's LD_LIBRARY_PATH shows
	# shellcheck disable=SC1090
	. "$1" >&2
	set -eu
fi
eval "password=\${$4:-}"
[ -n "$password" ] || die "the variable $4 with the password of SYS is empty in the container"

work=$2/keepset-import
mkdir "$work" || die "another import is at work, or one that was killed has left $work behind"
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT PIPE TERM
cd "$work"
# All of it is here before anything is touched: what is cut off ends this script.
tar xf - || die "the archive cannot be unpacked"
cat >/dev/null # what tar leaves of its padding
[ -s run_il_in.sh ] || die "the archive has no run_il_in.sh: it is no export of aexport"

# ask prints what one statement answers. One statement a call and no EXIT, since
# isql's status is that of the last one, and 0 after EXIT.
ask() {
	printf '%s\n' "$1" | isql -s 127.0.0.1 -port "$port" -u sys -p "$password" -silent >isql.log 2>&1 ||
		die "isql ended with status $?: $1" isql.log
	said_well isql.log "isql: $1"
}
port=$3

# aku first: what it replicates would carry the restored rows to pods that are
# about to be filled, or flush old changes over them.
if [ -e /tmp/aku_start_completed ]; then
	aku -p end >aku.log 2>&1 || die "aku -p end ended with status $?" aku.log
	said_well aku.log "aku -p end"
fi
ask 'SELECT REPLICATION_NAME, XSN FROM SYSTEM_.SYS_REPLICATIONS_;'
open=$(awk '$1 ~ /^AKU_REP_/ && $2 != -1 { printf " %s", $1 }' isql.log)
[ -z "$open" ] || die "replications are not reset (XSN is not -1):$open; scale the set to one pod, and let aku end in each of the others"
aku -p clean >aku.log 2>&1 || die "aku -p clean ended with status $?" aku.log
said_well aku.log "aku -p clean"

# The manual's order; replication's own script (run_is_repl.sh) is aku's business.
for script in run_is.sh run_il_in.sh run_is_refresh_mview.sh run_is_index.sh run_is_fk.sh run_is_alt_tbl.sh; do
	[ -e "$script" ] || continue
	sh -e "./$script" </dev/null >script.log 2>&1 || die "$script ended with status $?" script.log
	said_well script.log "$script"
done
bad=$(find . -name '*.bad' -size +0)
[ -z "$bad" ] || die "iloader rejected rows: $bad"

aku -p start >aku.log 2>&1 || die "the rows are there, and aku -p start ended with status $?" aku.log
said_well aku.log "the rows are there, and aku -p start"
grep -q 'AKU run successfully' aku.log || die "the rows are there, and aku -p start did not say that it ran successfully" aku.log
