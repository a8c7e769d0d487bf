#!/bin/sh
# Fills the cache with the servers and tools that the tests run: MariaDB 10.5, 10.11 and 11.8, MySQL 9.7, PostgreSQL 15
# and 18, an S3 server, the peers of the benchmark, the tools of the restore by hand, and the linter.
#
# Nothing is installed on this machine. Debian packages are downloaded by apt with a state of its own, unpacked into a
# folder of the cache without running their scripts, and their programs run there through the dynamic loader of that
# same folder, so that a MySQL linked against a newer libc than the host's runs all the same. No chroot, no mount.
#
# servers.sh PART...   fills only the parts so named, below; without a name, all of them.
#
# Each part is built in a temporary folder and renamed when it is complete; a part that is there is left alone. Two
# runs at once do not collide: the second one waits. To build everything again, remove the folder it prints.
#
# What the parts are called, and so what they are keyed by, is also in test/servers/cache.go: change both.
set -eu

cache=${KEEPSET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keepset}
mirror=${KEEPSET_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${KEEPSET_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
# Where suites go that the mirrors do not carry any more.
archive=${KEEPSET_DEBIAN_ARCHIVE:-http://archive.debian.org/debian}
archive_security=${KEEPSET_DEBIAN_SECURITY_ARCHIVE:-http://archive.debian.org/debian-security}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

versitygw=v1.8.0
golangci=v2.15.0

say() { echo "servers: $*"; }
die() { echo "servers: $*" >&2; exit 1; }

# wanted NAME: true for a part that this run shall fill.
parts=" $* " known=
wanted() {
	known="$known $1"
	[ "$parts" = "  " ] && return
	case $parts in *" $1 "*) ;; *) return 1 ;; esac
}

for tool in apt-get dpkg-deb flock go tar; do
	command -v "$tool" >/dev/null || die "$tool is missing: this needs Debian (or a derivative) with Go"
done
mkdir -p "$cache"
exec 9>"$cache/servers.lock"
flock -n 9 || { say "another run is filling $cache, waiting for it"; flock 9; }

rm -rf "$cache"/servers-tmp.* # of runs that were killed
tmp=$(mktemp -d "$cache/servers-tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# root NAME SOURCES PACKAGES PROGRAMS: unpacks the packages and all that they depend on into $cache/NAME, and writes
# into $cache/NAME/tools one small script for each program, which runs it with the folder's own loader and libraries.
root() {
	name=$1 sources=$2 packages=$3 programs=$4
	wanted "$name" || return 0
	final=$cache/$name
	if [ -d "$final" ]; then
		say "$name: there ($final)"
		return
	fi
	say "$name: downloading $packages and what they need"
	[ -f "$keyring" ] || die "$keyring is missing: run 'apt-get install debian-archive-keyring'"
	apt=$tmp/$name.apt
	new=$tmp/$name
	mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$new"
	: >"$apt/status"
	echo "$sources" >"$apt/sources.list"
	set -- -qq -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
		-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
		-o APT::Install-Recommends=false -o Acquire::Languages=none -o APT::Sandbox::User=root \
		-o Acquire::Retries=3 -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
	if ! apt-get "$@" update; then
		say "$name: not on the mirror, trying the archive"
		sed -i "s|] $security |] $archive_security |; s|] $mirror |] $archive |" "$apt/sources.list"
		set -- "$@" -o Acquire::Check-Valid-Until=false # nobody signs the archive anew
		apt-get "$@" update
	fi
	# shellcheck disable=SC2086 # a list of words
	apt-get "$@" -y --download-only install $packages

	# Both layouts of /usr end in the same place, whichever the packages use.
	for d in bin sbin lib lib64; do
		mkdir -p "$new/usr/$d"
		ln -s "usr/$d" "$new/$d"
	done
	for deb in "$apt"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" >"$apt/fs.tar"
		tar -C "$new" --keep-directory-symlink --no-same-owner \
			--exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./dev \
			-xf "$apt/fs.tar"
		dpkg-deb -f "$deb" Package Version Architecture | tr '\n' ' ' >>"$new/PACKAGES"
		echo >>"$new/PACKAGES"
	done

	loader=$(cd "$new" && ls usr/lib64/ld-linux-*.so.2 usr/lib/ld-linux-*.so.1 2>/dev/null | head -n 1)
	[ -n "$loader" ] || die "$name: the unpacked packages hold no dynamic loader"
	case $(readlink "$new/$loader") in /*) loader=$(readlink "$new/$loader") loader=${loader#/} ;; esac
	[ -x "$new/$loader" ] || die "$name: the dynamic loader $loader is missing"
	multiarch=$(cd "$new/usr/lib" && ls -d ./*-linux-gnu | head -n 1)
	lib=$final/usr/lib/${multiarch#./}
	mkdir "$new/tools"
	for program in $programs; do
		file= argv0="--argv0 '$program'" script=$new/tools/$program
		for d in sbin bin; do
			if [ -x "$new/usr/$d/$program" ]; then file=usr/$d/$program; fi
		done
		for d in "$new"/usr/lib/postgresql/*/bin; do
			[ -x "$d/$program" ] || continue
			# PostgreSQL's programs run each other, and find each other and their files by their own path: the script
			# takes the program's place.
			file=${d#"$new/"}/$program script=$d/$program
			argv0="--argv0 '$final/$file'"
			mv "$script" "$script.elf"
			ln -s "../$file" "$new/tools/$program"
			file=$file.elf
		done
		[ -n "$file" ] || die "$name: no package holds the program $program"
		grep -q -e --argv0 "$new/$loader" || argv0= # before glibc 2.33
		cat >"$script" <<-END
			#!/bin/sh
			exec '$final/$loader' $argv0 --library-path '$lib:$lib/private:$final/usr/lib/mysql/private' '$final/$file' "\$@"
		END
		chmod 755 "$script"
	done
	# sysbench looks for its scripts where the package would have installed them.
	if [ -f "$new/tools/sysbench" ]; then
		sed -i "s|^exec |LUA_PATH='$final/usr/share/sysbench/?.lua;./?.lua' exec |" "$new/tools/sysbench"
	fi
	mv "$new" "$final"
	rm -rf "$apt"
	say "$name: unpacked $(wc -l <"$final/PACKAGES") packages into $final"
}

# gotool NAME MODULE@VERSION: builds one Go program into $cache/NAME.
gotool() {
	name=$1 module=$2
	wanted "$name" || return 0
	final=$cache/$name
	if [ -d "$final" ]; then
		say "$name: there ($final)"
		return
	fi
	say "$name: building $module"
	mkdir "$tmp/$name"
	(cd "$tmp" && GOFLAGS=-mod=mod GOBIN="$tmp/$name" go install "$module")
	mv "$tmp/$name" "$final"
	say "$name: built into $final"
}

root debian-bookworm-1 \
	"deb [signed-by=$keyring] $mirror bookworm main
deb [signed-by=$keyring] $security bookworm-security main" \
	"mariadb-server mariadb-backup mydumper age jq zstd sysbench curl" \
	"mariadbd mariadb mariadb-dump mariadb-admin mariadb-backup mbstream mydumper myloader age age-keygen jq zstd sysbench curl"

root debian-trixie-1 \
	"deb [signed-by=$keyring] $mirror trixie main
deb [signed-by=$keyring] $security trixie-security main" \
	"mariadb-server" \
	"mariadbd mariadb"

root debian-bullseye-1 \
	"deb [signed-by=$keyring] $mirror bullseye main
deb [signed-by=$keyring] $security bullseye-security main" \
	"mariadb-server-10.5" \
	"mariadbd mariadb"

root debian-sid-1 \
	"deb [signed-by=$keyring] $mirror sid main" \
	"mysql-server-core mysql-client-core restic" \
	"mysqld mysql mysqldump mysqladmin restic"

root postgres-bookworm-3 \
	"deb [signed-by=$keyring] $mirror bookworm main
deb [signed-by=$keyring] $security bookworm-security main" \
	"postgresql-15" \
	"postgres initdb pg_dump pg_dumpall psql pg_basebackup pg_verifybackup pg_waldump"

root postgres-sid-3 \
	"deb [signed-by=$keyring] $mirror sid main" \
	"postgresql-18" \
	"postgres initdb pg_dump pg_dumpall psql pg_basebackup pg_verifybackup pg_waldump"

gotool versitygw-$versitygw github.com/versity/versitygw/cmd/versitygw@$versitygw
gotool golangci-lint-$golangci github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$golangci
for part in $parts; do
	case "$known " in *" $part "*) ;; *) die "no part is called $part; there are:$known" ;; esac
done
say "filled: $cache"
