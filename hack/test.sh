#!/bin/bash
# Runs everything that decides whether a change is good: the linter, go vet, and every test, against real servers and a
# real Kubernetes. What it needs it sets up first, and a cluster that it started it stops again, however it ends.
#
# KEEPSET_SOAK=1 runs the long versions of the tests: bigger databases, more killed pods, other seeds.
set -euo pipefail
cd "$(dirname "$0")/.."

make=${MAKE:-make}
started=
failed=()
begin=$SECONDS

say() { printf '\n=== %s (%d s)\n' "$*" $((SECONDS - begin)); }

finish() {
	code=$?
	trap - EXIT INT TERM
	if [ -n "$started" ]; then
		say "cluster-down"
		"$make" --no-print-directory cluster-down || code=1
	fi
	if [ "$code" -eq 0 ]; then
		printf '\nmake test: PASS, everything, in %d s\n' $((SECONDS - begin))
	else
		printf '\nmake test: FAIL after %d s: %s\n' $((SECONDS - begin)) "${failed[*]:-see the output above}"
	fi
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# step NAME COMMAND...: runs the command. The steps after a failed one still run, for a whole picture.
step() {
	local name=$1
	shift
	say "$name"
	"$@" || failed+=("$name")
}

say "servers"
"$make" --no-print-directory servers

# The cluster is built while the first tests run; nothing needs it before the end-to-end tests.
if "$make" --no-print-directory cluster-status >/dev/null 2>&1; then
	say "cluster: running already, it is left running"
else
	say "cluster-up"
	started=1
	"$make" --no-print-directory cluster-up
fi

step "lint" "$make" --no-print-directory lint

# The packages without the race detector are those whose time goes into other programs.
step "unit and integration tests, race detector on" go test -race -timeout 20m $(go list ./internal/... ./cmd/... | grep -v internal/dbdump/mysql)
step "database engine" go test -timeout 30m ./internal/dbdump/mysql/... ./test/servers/...
step "end to end" go test -timeout 60m ./test/e2e/...

if [ ${#failed[@]} -gt 0 ]; then exit 1; fi
