# Prints a physical backup of an Altibase database that runs as a tar archive: what
# the server writes into a directory, the logs that make it consistent, the
# properties, and a list of all that with where it belongs, keepset-altibase.

# archiving reads where the logs are: mode, oldest, next to archive, current.
archiving() {
	# shellcheck disable=SC2016
	ask 'SELECT ARCHIVE_MODE, OLDEST_ACTIVE_LOGFILE, NEXTLOGFILE_TO_ARCH, CURRENT_LOGFILE FROM V$ARCHIVE;'
	# shellcheck disable=SC2046
	set -- $(rows)
	[ $# -eq 4 ] || die "V\$ARCHIVE has no row of four numbers" isql.log
	mode=$1 oldest=$2 next=$3 current=$4
}

workplace backup
archiving
[ "$mode" = 1 ] || die "the server is in noarchivelog mode, in which it makes no backup while it runs: stop it, and in isql -sysdba: STARTUP CONTROL; ALTER DATABASE ARCHIVELOG; STARTUP SERVICE"
first=$oldest before=$current

mkdir files
# shellcheck disable=SC2016
{
	column 'SELECT MEM_DATA_FILE FROM V$STABLE_MEM_DATAFILES' >memory
	column 'SELECT D.NAME FROM V$DATAFILES D, V$TABLESPACES T WHERE D.SPACEID = T.ID AND T.TYPE NOT IN (5, 6)' >disk
	column 'SELECT D.NAME FROM V$DATAFILES D, V$TABLESPACES T WHERE D.SPACEID = T.ID AND T.TYPE IN (5, 6)' >temporary
	column 'SELECT DB_NAME FROM V$DATABASE' >name
	column 'SELECT ARCHIVE_DEST FROM V$ARCHIVE' >archive
	column "SELECT VALUE1 FROM V\$PROPERTY WHERE NAME = 'LOG_DIR'" >logs
	column "SELECT VALUE1 FROM V\$PROPERTY WHERE NAME = 'DEFAULT_DISK_DB_DIR'" >disks
	for n in 1 2 3; do column "SELECT VALUE$n FROM V\$PROPERTY WHERE NAME = 'LOGANCHOR_DIR'" >"anchors$n"; done
}
for what in memory disk name archive logs disks anchors1 anchors2 anchors3; do
	[ -s "$what" ] || die "the server does not say where its files are ($what)" isql.log
done
cat memory disk >expected
bytes=0
while read -r path; do
	[ -f "$path" ] || die "the server names a file $path, which is not there"
	bytes=$((bytes + $(wc -c <"$path")))
done <expected
twice=$(sed 's|.*/||' expected | sort | uniq -d)
[ -z "$twice" ] || die "the server would write files of one name over one another, from several directories: $twice"
read -r archive <archive
read -r log <logs
{
	sed 's|/[^/]*$||' expected temporary
	echo "$archive"
	echo "$log"
	cat anchors1 anchors2 anchors3
} | sort -u >directories
while read -r path; do movable "$path"; done <directories
free=$(df -Pk "$work" | awk 'END { print $4 }')
[ "$free" -gt $((bytes / 1024)) ] || die "$directory has $free KiB free, and the server's files need $((bytes / 1024)) there while they are printed"

admin "ALTER DATABASE BACKUP DATABASE TO '$work/files'"
archiving
# The server closes the log that it was writing, and waits until it is archived. What
# was written meanwhile is in the files, so that all logs up to there are needed.
end=$current waited=0
while [ "$next" -lt "$end" ] && [ "$waited" -lt 10 ]; do
	sleep 1
	waited=$((waited + 1))
	archiving
done
[ "$end" -gt "$before" ] && [ "$next" -ge "$end" ] ||
	die "the server said nothing of an error, and has not archived the log of the backup (log $before; then log $end, next to archive $next)"

# entry adds a file to the list: where it is here, its name in the archive, and its place.
entry() {
	[ -s "$1" ] || die "the server said nothing of an error, and there is no ${1##*/}, or an empty one"
	echo "file $(($(wc -c <"$1"))) $2 $3" >>keepset-altibase
}
{
	echo "keepset-altibase 1"
	echo "home $home"
	echo "database $(cat name)"
	sed 's/^/directory /' directories
} >keepset-altibase
while read -r path; do
	# The manual's way is a name without its directory where that is the default one.
	[ "${path%/*}" != "$(cat disks)" ] || path=${path##*/}
	echo "temporary $path" >>keepset-altibase
done <temporary
while read -r path; do entry "files/${path##*/}" "files/${path##*/}" "$path"; done <disk
# Of the two images of a memory file, NAME-0-N and NAME-1-N, the server writes the
# one that is good, and that may have become the other since it was asked.
while read -r path; do
	number=${path##*-} stem=${path%-*-*}
	set -- files/"${stem##*/}"-[01]-"$number"
	[ $# -eq 1 ] || die "the server wrote two images of one memory file: $*"
	entry "$1" "$1" "${path%/*}/${1##*/}"
done <memory
for n in 0 1 2; do entry "files/loganchor$n" "files/loganchor$n" "$(cat anchors$((n + 1)))/loganchor$n"; done
[ "$(find files -type f | wc -l)" -eq "$(grep -c '^file [0-9]* files/' keepset-altibase)" ] ||
	die "the server wrote other files than it had named before, as when a tablespace is changed meanwhile: run the backup again. It wrote: $(ls files)"
set --
n=$first
while [ "$n" -lt "$next" ]; do
	[ -e "$archive/logfile$n" ] || die "there is no logfile$n in $archive, which the backup needs: logs that are younger than the last checkpoint have to stay there"
	entry "$archive/logfile$n" "logfile$n" "$log/logfile$n"
	set -- "$@" "logfile$n"
	n=$((n + 1))
done
cp "$home/conf/altibase.properties" altibase.properties
entry altibase.properties altibase.properties "$home/conf/altibase.properties"
echo end >>keepset-altibase

# The last word: as isql has them, the logs are not copied, and one may be gone by now.
tar cf - keepset-altibase altibase.properties files -C "$archive" "$@"
