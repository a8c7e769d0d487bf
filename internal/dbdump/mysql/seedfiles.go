package mysql

// A server that starts on a copy of another one's files would at once go on as that one: follow its upstream from where
// the files stand, run its events, join its group. It would also bear its name: MySQL keeps server_uuid in auto.cnf. So
// these things happen before it starts, and Adopt does the rest over SQL.

// PrepareFiles returns what a seed pod does before its server starts on adopted files: a POSIX shell script, to be run
// once with the paths where the claims are mounted as its arguments ("$@"), by the user that the server runs as and in
// the image of the database, of which it needs sh and rm alone; and the arguments that the server is started with in
// addition to its own. All versions accept them: those that one does not know begin with "loose-". What SET PERSIST has
// written into MySQL's mysqld-auto.cnf wins over arguments; Adopt refuses what came of that.
//
// The script looks for the data directory in each mount and down to two levels below it. It removes auto.cnf, so that
// the server makes itself a new server_uuid, and what a stopped server has left of its process: a socket's lock may name
// a process that exists in the new container. It leaves alone what Adopt reads, as the state of replication, and fails,
// saying why, where no mount holds a database, or one holds a member of a Galera cluster.
func PrepareFiles() (script string, arguments []string) {
	return prepareScript, []string{
		"--loose-skip-slave-start", "--loose-skip-replica-start",
		"--event-scheduler=OFF",
		"--loose-group-replication-start-on-boot=OFF",
		"--loose-wsrep-on=OFF", "--loose-wsrep-provider=none",
	}
}

// PrepareCopy is PrepareFiles for files that Copy has written and CopyRestore has brought back: they are made those of a
// server first, by the mariadb-backup or xtrabackup of the image, whose last words have to be that it completed. Which of
// them it is, and for xtrabackup of which version, the files say. What it has said of the copy in files of its own goes
// then: another run must not take the files for a copy again.
func PrepareCopy() (script string, arguments []string) {
	script, arguments = PrepareFiles()
	return copyScript + script, arguments
}

const copyScript = `set -eu
refuse() { echo "keepset: $*" >&2; exit 1; }
[ $# -gt 0 ] || refuse "no mount was named"
copy=
for mount do
	for directory in "$mount" "$mount"/* "$mount"/*/*; do
		if [ -d "$directory" ] && [ ! -L "$directory" ] && { [ -e "$directory/xtrabackup_checkpoints" ] || [ -e "$directory/mariadb_backup_checkpoints" ]; }; then
			[ -z "$copy" ] || refuse "two copies of a server: $copy and $directory"
			copy=$directory
		fi
	done
done
[ -n "$copy" ] || refuse "no copy of a server, which mariadb-backup or xtrabackup could prepare, in $* or below"
program=mariadb-backup
[ ! -e "$copy/xtrabackup_logfile" ] || program=xtrabackup
command -v "$program" >/dev/null || refuse "this image has no $program, which has to prepare the files: name the container that has it by --copy-container, or take an image of the database that has it"
# series of the version that stands behind some words: its first two numbers.
series() { rest=${1#*"$2"}; major=${rest%%.*}; rest=${rest#*.}; echo "$major.${rest%%.*}"; }
if [ "$program" = xtrabackup ]; then
	was=
	while IFS= read -r line; do case "$line" in "server_version = "*) was=$(series "$line" "server_version = ") ;; esac; done <"$copy/xtrabackup_info"
	is=$(series "$(xtrabackup --version 2>&1)" "based on MySQL server ")
	[ "$was" = "$is" ] || refuse "the files are those of a MySQL $was, and xtrabackup is made for MySQL $is: name a container whose image has the one for $was"
fi
"$program" --prepare --target-dir="$copy" --tmpdir="$copy" 2>&1 | {
	last=
	while IFS= read -r line; do echo "$line"; last=$line; done
	case "$last" in *"completed OK!") ;; *) refuse "$program did not say that it completed" ;; esac
}
rm -f -- "$copy"/xtrabackup_* "$copy"/mariadb_backup_* "$copy/backup-my.cnf"
`

const prepareScript = `set -eu
fail() { echo "keepset: $*" >&2; exit 1; }
found=
# prepare takes one directory, which may be the data directory.
prepare() {
	[ -d "$1" ] && [ ! -L "$1" ] || return 0
	[ -e "$1/ibdata1" ] || [ -e "$1/mysql.ibd" ] || [ -e "$1/auto.cnf" ] || return 0
	if [ -e "$1/ibdata1" ] || [ -e "$1/mysql.ibd" ]; then found=yes; fi
	[ ! -e "$1/grastate.dat" ] || fail "$1 holds the files of a member of a Galera cluster (grastate.dat), which joins it by a state transfer of its own"
	echo "keepset: preparing $1"
	rm -f -- "$1/auto.cnf" "$1"/*.pid "$1"/*.sock "$1"/*.sock.lock
}
[ $# -gt 0 ] || fail "no mount was named"
for mount do
	[ -d "$mount" ] || fail "$mount is no directory"
	for directory in "$mount" "$mount"/* "$mount"/*/*; do prepare "$directory"; done
done
[ -n "$found" ] || fail "not a database: no ibdata1 or mysql.ibd in $* or below"
`
