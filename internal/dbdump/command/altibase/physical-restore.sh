# Restores a physical backup of an Altibase database, the tar archive that comes
# on standard input, into pod 0: with the old files set aside, by a recovery that
# ends with the backup's own logs. Then aku is started as the master.
only_pod_0
workplace restore
unpack
[ ! -e run_il_in.sh ] || die "this is a logical backup: restore it with the preset altibase"
[ "$(head -n 1 keepset-altibase 2>/dev/null)" = "keepset-altibase 1" ] || die "the archive has no list that says keepset-altibase 1: it is no physical backup of Altibase"
[ "$(tail -n 1 keepset-altibase)" = end ] || die "the archive's list has no end"

# of prints the values of the list's lines of a kind.
of() { sed -n "s/^$1 //p" keepset-altibase; }

[ "$(of home)" = "$home" ] || die "the backup is of the ALTIBASE_HOME $(of home), and this one is $home: paths in the database are absolute"
of file >contents
while read -r size name place; do
	[ -f "$name" ] && [ "$(($(wc -c <"$name")))" -eq "$size" ] || die "the archive does not have all $size bytes of $name"
	plain "$place"
done <contents
of directory >directories
while read -r path; do movable "$path"; done <directories

# A first attempt refuses to take the place of what an earlier restore has set
# aside. One that follows on a failed one, whose mark is still there, takes away
# what that has put in place, and nothing else.
mark=$home/keepset-restore-unfinished
if [ ! -e "$mark" ]; then
	while read -r path; do
		[ ! -e "$path.old" ] || die "$path.old is there, a database that was set aside before: take it away first"
	done <directories
	[ ! -e "$home/conf/altibase.properties.old" ] || die "$home/conf/altibase.properties.old is there, properties that were set aside before: take it away first"
fi

if ! standing; then
	[ ! -e "$mark" ] || die "a server runs on what an unfinished restore has put in place: shut it down for another attempt, or delete $mark to keep it"
	end_aku
	admin 'SHUTDOWN IMMEDIATE'
	standing || die "the server said nothing of an error, and is not shut down" isql.log
fi

: >"$mark"
while read -r path; do
	if [ -e "$path.old" ]; then
		rm -rf "$path"
	else
		mkdir -p "$path"
		mv "$path" "$path.old" || die "$path cannot be set aside as $path.old; is it a mount point? The files of a database have to lie in a directory below one"
	fi
done <directories
while read -r path; do mkdir -p "$path"; done <directories
properties=$home/conf/altibase.properties
if [ -e "$properties" ] && ! cmp -s altibase.properties "$properties" && [ ! -e "$properties.old" ]; then
	mv "$properties" "$properties.old"
fi
while read -r size name place; do
	mv "$name" "$place"
done <contents

# What fails from here on leaves no server behind that is in service with half a
# recovery, or holds the files for the next attempt.
recovering=yes
trap 'status=$?; [ -z "$recovering" ] || sysdba "SHUTDOWN ABORT" || :; rm -rf "$work"; exit "$status"' EXIT

# The senders of the backup's replications would go on from where they were then,
# and carry the past to the other pods. The server keeps its working directory and
# its output, and so it gets some that are not to be removed.
said=$(mktemp)
printf 'STARTUP CONTROL;\n' | (
	cd /
	ALTIBASE_REPLICATION_SENDER_AUTO_START=0 isql -s localhost -u sys -p "$password" -sysdba -silent
) >"$said" 2>&1 || :
grep -v 'idle instance' "$said" >isql.log || :
rm "$said"
said_well isql.log 'isql: STARTUP CONTROL'
grep -q 'PHASE : CONTROL' isql.log || die "STARTUP CONTROL did not say that the server is in the phase CONTROL" isql.log

of temporary >temporary
while read -r path; do
	admin "ALTER DATABASE CREATE DATAFILE '$path'"
done <temporary
# There are no logs but the backup's, so that the recovery ends where the backup did.
admin 'ALTER DATABASE RECOVER DATABASE UNTIL CANCEL'
grep -q 'Alter success' isql.log || die "ALTER DATABASE RECOVER did not say that it was a success" isql.log
admin "ALTER DATABASE $(of database) META RESETLOGS"
admin "ALTER DATABASE $(of database) SERVICE"
ask 'SELECT 1 FROM DUAL;' # which it does not answer in another phase

# The backup has aku's replications in it, as they were.
run_aku clean "the database is recovered, and "
replications_reset "they are of the backup and aku -p clean has left them: ALTER REPLICATION ... STOP, then RESET"
recovering=
rm "$mark"
start_aku "the database is restored"
