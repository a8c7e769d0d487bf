#!/bin/bash
# Checks on the running cluster what the end-to-end tests build on. Needs
# kubectl and KUBECONFIG. Everything happens in one namespace, which it removes.
# With --cron it also waits until a second run of a CronJob was due, which
# takes up to two minutes.
set -euo pipefail
cd "$(dirname "$0")"

ns=cluster-smoke-$$
k() { kubectl --namespace "$ns" "$@"; }
finish() {
	code=$?
	trap - EXIT
	if [ $code -ne 0 ]; then
		echo "cluster-smoke: FAILED; what is there:" >&2
		k get pods,pvc,jobs,events >&2 || true
	fi
	kubectl delete namespace "$ns" --wait --timeout 120s >/dev/null || code=1
	[ $code -ne 0 ] || echo "cluster-smoke: PASS"
	exit $code
}
trap finish EXIT
ok() { echo "ok: $*"; }
fail() { echo "cluster-smoke: $*" >&2; exit 1; }
sql() { k exec "$1" -c mysql -- bash -c "MYSQL_PWD=\$MYSQL_ROOT_PASSWORD mysql -u root -N -h ${2:-127.0.0.1} -e \"$3\""; }

kubectl create namespace "$ns" >/dev/null
# Nothing here breaks the rules of a careful namespace but the database, which starts as root.
kubectl label namespace "$ns" pod-security.kubernetes.io/enforce=baseline >/dev/null
k apply -f smoke.yaml >/dev/null

k rollout status statefulset mysql --timeout 300s >/dev/null
ok "two MariaDB servers run on volumes of the default class"
[ "$(sql mysql-1 mysql-0.mysql 'SELECT @@hostname')" = mysql-0 ] || fail "mysql-0.mysql is not the first pod"
ok "a pod reaches another by its own name, mysql-0.mysql"
sql mysql-0 mysql-read 'SELECT 1' >/dev/null
ok "and through a Service with an address"
sql mysql-0 '' 'CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (42)'
k delete pod mysql-0 >/dev/null
k rollout status statefulset mysql --timeout 300s >/dev/null
[ "$(sql mysql-0 '' 'SELECT a FROM d.t')" = 42 ] || fail "the row is gone with its pod"
ok "rows outlive their pod"
[ "$(k exec mysql-0 -- getent hosts deb.debian.org | wc -l)" -eq 1 ] || fail "names outside the cluster do not resolve"
ok "names outside the cluster resolve"

k wait --for=condition=complete job/api --timeout 180s >/dev/null || { k logs job/api >&2 || true; fail "the Job failed"; }
ok "an unprivileged pod of restricted pod security reaches the API server and writes to its volume"
k auth can-i get statefulsets --as "system:serviceaccount:$ns:reader" >/dev/null || fail "the Role does not work"
! k auth can-i delete pods --as "system:serviceaccount:$ns:reader" >/dev/null || fail "rights are not enforced"
ok "a Role gives what it names and no more"
if k run forbidden --image keepset-test/pause:1 --privileged 2>/dev/null; then fail "a privileged pod was let in"; fi
ok "pod security is enforced"

k create job by-hand --from=cronjob/slow >/dev/null
k patch cronjob slow -p '{"spec":{"suspend":true}}' >/dev/null
k patch cronjob slow -p '{"spec":{"suspend":false}}' >/dev/null
ok "a CronJob is run by hand, suspended and resumed"
if [ "${1:-}" = --cron ]; then
	scheduled() { k get jobs -o jsonpath='{range .items[*]}{.metadata.annotations.batch\.kubernetes\.io/cronjob-scheduled-timestamp}{"\n"}{end}' | grep -c . || true; }
	for _ in $(seq 130); do [ "$(scheduled)" -eq 0 ] || break; sleep 1; done
	[ "$(scheduled)" -eq 1 ] || fail "the CronJob did not start at its minute"
	sleep 65 # not a wait for something to happen, but for nothing to happen
	[ "$(scheduled)" -eq 1 ] || fail "Forbid did not hold the second run back"
	ok "a slow run of a CronJob is not joined by a second one"
fi
