#!/bin/bash
# Runs everything that decides whether a change is good: the linter, go vet, and every test, against real servers and a
# real Kubernetes. What it needs it sets up first, and a cluster that it started it stops again, however it ends.
#
# The long trials take most of the time. Of each line of hack/trials.txt one is run (of lines that begin with "soak", none),
# chosen by a seed, which is printed and can be given as KEEPSET_SEED. KEEPSET_SOAK=1 runs them all, and the long versions of the tests: bigger databases, more killed
# pods.
set -euo pipefail
cd "$(dirname "$0")/.."

make() { command "${MAKE:-make}" --no-print-directory "$@"; }
started=
failed=()
begin=$SECONDS
bin=$(mktemp -d)

say() { printf '\n=== %s (at %d s)\n' "$*" $((SECONDS - begin)); }

finish() {
	code=$?
	trap - EXIT
	trap '' INT TERM
	rm -rf "$bin"
	if [ -n "$started" ]; then
		say "cluster-down"
		make cluster-down || failed+=("cluster-down")
	fi
	if [ ${#failed[@]} -gt 0 ]; then code=1; fi
	if [ "$code" -eq 0 ]; then
		printf '\nmake test: PASS in %d s\n' $((SECONDS - begin))
	else
		printf '\nmake test: FAIL after %d s: %s\n' $((SECONDS - begin)) "$(IFS=,; echo "${failed[*]:-see above}")"
	fi
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# step NAME COMMAND...: runs the command. The steps after a failed one still run, for a whole picture.
step() {
	say "$1"
	"${@:2}" || failed+=("$1")
}

# demo_there tells the story of make demo-cluster on this cluster as on a foreign one: KUBECONFIG names it.
demo_there() {
	local cache=${KEEPSET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keepset}
	KUBECONFIG=$("$cache/bin/cluster" kubeconfig) PATH=$cache/bin:$PATH DEMO_KEEPSET_IMAGE=keepset:dev \
		DEMO_DATABASE_IMAGE=keepset-test/mariadb:10.11 DEMO_S3_IMAGE=keepset-test/versitygw:v1.8.0 hack/demo-cluster.sh
}

# left_out prints a pattern with the trials that this run leaves out; none is the pattern ^$, with KEEPSET_TRIALS=all too. It is
# the same for all stages.
seed=${KEEPSET_SEED:-$RANDOM}
left_out() {
	if [ -n "${KEEPSET_SOAK:-}" ] || [ "${KEEPSET_TRIALS:-}" = all ]; then
		echo '^$'
		return
	fi
	awk -v seed="$seed" 'BEGIN { srand(seed) } /^Test/ { run = 1 + int(rand() * NF) } /^soak / { run = 1 }
		/^(Test|soak )/ { for (i = 1; i <= NF; i++) if (i != run) out = out "|^" $i "$" }
		END { print substr(out, 2) }' hack/trials.txt
}

[ -n "${KEEPSET_SOAK:-}" ] || echo "KEEPSET_SEED=$seed leaves out $(left_out | tr -d '^$' | tr '|' ' ')"
say "servers and tools"
make servers
go build -o "$bin" ./hack/gotest

step "lint" make lint
step "test cluster's own module" make cluster-test
# Tests wait more than they work, so that there are more of them at once than cores. The race detector is left out where the
# time goes into other programs, or into bulk data. A program that has it sleeps for a second before it ends, unless it is told
# not to, and many tests run themselves again as other programs.
export GORACE=atexit_sleep_ms=0
step "unit and integration tests, with the race detector" \
	"$bin/gotest" -race -p 3 -timeout 15m $(go list ./... | grep -vE '^keepset/(test/|internal/dbdump/(mysql|postgres))')
# Its long stories, which make soak tells, go without it, in the step after.
step "faults, a sample with the race detector" env -u KEEPSET_SOAK "$bin/gotest" -race -timeout 12m ./test/faults
if [ -n "${KEEPSET_SOAK:-}" ]; then step "fuzz targets, 20 s each" go run ./hack/fuzz -time 20s ./...; fi
step "database engine, servers and demo" \
	"$bin/gotest" -p 3 -parallel 5 -timeout 50m -skip "$(left_out)" $(go list ./... | grep -E '^keepset/(test/|internal/dbdump/(mysql|postgres))' | grep -v '^keepset/test/e2e')

# The first time this builds Kubernetes, which the question after it would do in silence.
say "the test cluster's programs"
make cluster-tools || failed+=("cluster-tools")
if make cluster-status >/dev/null 2>&1; then
	say "cluster: running already, and left running"
else
	say "cluster-up"
	started=1
	make cluster-up || failed+=("cluster-up")
fi
# Tests of an older image would prove nothing.
say "images"
make cluster-image test-images || failed+=("images")
case " ${failed[*]} " in
*" cluster-up "* | *" images "*) failed+=("end to end: not run") ;;
*)
	step "end to end" "$bin/gotest" -count=1 -parallel 5 -timeout 120m -skip "$(left_out)" ./test/e2e/...
	if [ -n "${KEEPSET_SOAK:-}" ]; then step "demo-cluster, on the cluster that KUBECONFIG names" demo_there; fi
	;;
esac

[ ${#failed[@]} -eq 0 ]
