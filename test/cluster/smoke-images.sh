#!/bin/bash
# Checks on the running cluster that the database images start as their
# official models do, and that a start that is cut off leaves no volume that
# only looks initialised. Needs kubectl and KUBECONFIG.
set -euo pipefail

ns=cluster-images-$$
k() { kubectl --namespace "$ns" "$@"; }
finish() {
	code=$?
	trap - EXIT
	if [ $code -ne 0 ]; then
		echo "smoke-images: FAILED; what is there:" >&2
		k get pods >&2 || true
		for pod in $(k get pods -o name); do echo "--- $pod" >&2; k logs --tail 20 "$pod" >&2 || true; done
	fi
	kubectl delete namespace "$ns" --wait --timeout 120s >/dev/null || code=1
	[ $code -ne 0 ] || echo "smoke-images: PASS"
	exit $code
}
trap finish EXIT
ok() { echo "ok: $*"; }
fail() { echo "smoke-images: $*" >&2; exit 1; }

# claim NAME: makes a volume.
claim() {
	k apply -f - >/dev/null <<-YAML
	apiVersion: v1
	kind: PersistentVolumeClaim
	metadata: {name: $1}
	spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
	YAML
}

environment='[{name: MYSQL_ROOT_PASSWORD_FILE, value: /secret/password}, {name: MYSQL_DATABASE, value: shop}, {name: MYSQL_USER, value: app}, {name: MYSQL_PASSWORD, value: apppass}, {name: MYSQL_INITDB_SKIP_TZINFO, value: "1"}]'

# pod NAME IMAGE CLAIM UID [ENV]: starts a server on the claim; ENV is a YAML list.
pod() {
	k apply -f - >/dev/null <<-YAML
	apiVersion: v1
	kind: Pod
	metadata: {name: $1}
	spec:
	  restartPolicy: Never
	  terminationGracePeriodSeconds: 20
	  securityContext: {runAsUser: $4}
	  volumes:
	  - {name: data, persistentVolumeClaim: {claimName: $3}}
	  - {name: password, secret: {secretName: password}}
	  - {name: scripts, configMap: {name: scripts-$1, optional: true}}
	  containers:
	  - name: db
	    image: $2
	    imagePullPolicy: Never
	    env: ${5-$environment}
	    args: [--log-bin=binlog, --server-id=7]
	    readinessProbe: {exec: {command: [bash, -c, 'MYSQL_PWD=s3cret mysql -h 127.0.0.1 -u root -e "SELECT 1"']}, periodSeconds: 1}
	    volumeMounts:
	    - {name: data, mountPath: /var/lib/mysql, subPath: data}
	    - {name: password, mountPath: /secret}
	    - {name: scripts, mountPath: /docker-entrypoint-initdb.d}
	YAML
}
sql() { k exec "$1" -- bash -c "MYSQL_PWD=${3:-s3cret} mysql -h 127.0.0.1 -u ${4:-root} -N -e \"$2\""; }
remove() { k delete pod "$1" --wait >/dev/null; }
ready() { # POD: within five minutes, which only a busy machine takes, or until it has failed
	for _ in $(seq 600); do
		case "$(k get pod "$1" -o jsonpath='{.status.phase} {.status.conditions[?(@.type=="Ready")].status}')" in
			*True) return ;;
			Failed*) break ;;
		esac
		sleep 0.5
	done
	fail "$1 does not get ready"
}
ended_badly() { # POD TEXT
	k wait --for=jsonpath='{.status.phase}'=Failed "pod/$1" --timeout 300s >/dev/null || fail "$1 should have failed"
	local log
	log=$(k logs "$1") # whole: a pipe that grep -q closes early makes kubectl fail
	[[ "$log" == *"$2"* ]] || fail "the log of $1 does not say: $2"
}

check() { # NAME IMAGE
	local name=$1 image=$2
	claim "$name"
	k create configmap "scripts-$name" --from-literal='1.sql=CREATE TABLE t (a INT); INSERT INTO t VALUES (1);' \
		--from-literal='2.sh=echo "INSERT INTO t VALUES (2);" | sql --database=shop' >/dev/null
	pod "$name" "$image" "$name" 0
	ready "$name"
	[ "$(sql "$name" 'SELECT SUM(a) FROM shop.t')" = 3 ] || fail "$name: the scripts did not run once each"
	[ "$(sql "$name" 'SELECT COUNT(*) FROM shop.t' apppass app)" = 2 ] || fail "$name: the user cannot read the database"
	if sql "$name" 'SELECT 1' wrong >/dev/null 2>&1; then fail "$name: any password opens root"; fi
	[ "$(sql "$name" "SELECT COUNT(*) FROM mysql.user WHERE user IN ('root', '') AND host NOT IN ('localhost', '%')")" = 0 ] || fail "$name: accounts of root left over"
	ok "$name: started as root, initialised from environment, file and scripts"
	remove "$name"
	pod "$name" "$image" "$name" 999
	ready "$name"
	[ "$(sql "$name" 'SELECT SUM(a) FROM shop.t')" = 3 ] || fail "$name: initialised again"
	ok "$name: started again on its volume as user 999, initialised no second time"
	remove "$name"

	claim "$name-bare"
	pod "$name-bare" "$image" "$name-bare" 999 '[]'
	ended_badly "$name-bare" "no root password is given"
	remove "$name-bare"
	k create configmap "scripts-$name-bare" --from-literal='1.sql=CREATE TABLE t (a INT); SELECT nonsense;' >/dev/null
	pod "$name-bare" "$image" "$name-bare" 999
	ended_badly "$name-bare" nonsense
	remove "$name-bare"
	ok "$name: fails without password, and with a script that fails"
	k delete configmap "scripts-$name-bare" >/dev/null
	k create configmap "scripts-$name-bare" --from-literal='1.sh=touch /var/lib/mysql/#initialising/here; sleep 1000' >/dev/null
	pod "$name-bare" "$image" "$name-bare" 999
	for _ in $(seq 600); do ! k exec "$name-bare" -- test -e /var/lib/mysql/#initialising/here 2>/dev/null || break; sleep 0.5; done
	k delete pod "$name-bare" --grace-period 0 --force >/dev/null 2>&1
	k delete configmap "scripts-$name-bare" >/dev/null
	for _ in $(seq 100); do k get pod "$name-bare" >/dev/null 2>&1 || break; sleep 0.2; done
	pod "$name-bare" "$image" "$name-bare" 999
	ready "$name-bare"
	[ "$(sql "$name-bare" 'SHOW DATABASES' | grep -c shop)" = 1 ] || fail "$name: the database is missing after a start that was cut off"
	ok "$name: a start that was killed is made good by the next"
	remove "$name-bare"
}

kubectl create namespace "$ns" >/dev/null
k create secret generic password --from-literal=password=s3cret >/dev/null
check mariadb keepset-test/mariadb:10.11
check mysql keepset-test/mysql:9.7

k run s3 --image keepset-test/versitygw:v1.8.0 --image-pull-policy Never --env ROOT_ACCESS_KEY_ID=user --env ROOT_SECRET_ACCESS_KEY=secretsecret >/dev/null
ready s3
address=$(k get pod s3 -o jsonpath='{.status.podIP}')
for _ in $(seq 50); do ! (exec 3<>"/dev/tcp/$address/7070") 2>/dev/null || break; sleep 0.2; done
exec 3<>"/dev/tcp/$address/7070"
printf 'GET / HTTP/1.0\r\n\r\n' >&3
grep -q AccessDenied <&3 || fail "the S3 server does not answer"
ok "the S3 server answers"
