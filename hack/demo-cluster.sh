#!/bin/bash
# Tells Keepset's story where its users live: a StatefulSet of three replicating MariaDB servers on Kubernetes, an S3
# server, and Keepset as deploy/cronjob ships it. The CronJob backs the set up; a Job seeds a fourth replica; a replica
# whose volume is lost is recovered. Every command is shown as one would type it, and nothing is left behind.
#
# Without KUBECONFIG it runs on the local cluster (make cluster-up), which it starts and stops if it does not run. With
# KUBECONFIG it runs there, in a namespace of its own, and touches no other cluster. It needs kubectl, a default
# storage class, and images that this cluster can pull: DEMO_KEEPSET_IMAGE, and if you like DEMO_DATABASE_IMAGE (MariaDB
# 10.11) and DEMO_S3_IMAGE (versitygw).
#
# With --dry-run it says where it would run and with which images, and stops.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${KEEPSET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keepset}
namespace=keepset-demo-$(printf '%04x' $RANDOM)
begin=$SECONDS
started= made=
dir=$(mktemp -d)

make() { command "${MAKE:-make}" --no-print-directory "$@"; }
chapter() { printf '\n## %s\n\n' "$*"; }
die() { echo "demo-cluster: $*" >&2; exit 1; }

# show COMMAND...: prints a command as one would type it, and runs it.
show() {
	local word line='$'
	for word in "$@"; do
		case $word in
		*[!A-Za-z0-9_./:=,@%+-]*) line+=" '$word'" ;;
		*) line+=" $word" ;;
		esac
	done
	echo "$line"
	"$@"
}

finish() {
	code=$?
	trap - EXIT
	trap '' INT TERM
	if [ -n "$made" ]; then
		if [ "$code" -ne 0 ]; then
			echo "demo-cluster: what was there when it failed:" >&2
			kubectl -n "$namespace" get pods,pvc,jobs >&2 || true
			# What a half-done restore holds on to would keep the namespace forever.
			kubectl -n "$namespace" get pods,pvc -o name | while read -r object; do
				kubectl -n "$namespace" patch "$object" --type=merge -p '{"metadata":{"finalizers":null}}' >/dev/null || true
			done
		fi
		kubectl delete namespace "$namespace" --wait --timeout=5m >/dev/null || code=1
	fi
	rm -rf "$dir"
	if [ -n "$started" ]; then make cluster-down >/dev/null || code=1; fi
	if [ "$code" -eq 0 ]; then
		printf '\nmake demo-cluster: PASS in %d s\n' $((SECONDS - begin))
	else
		printf '\nmake demo-cluster: FAIL after %d s\n' $((SECONDS - begin)) >&2
	fi
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# sql ORDINAL STATEMENT: runs SQL as the administrator.
sql() {
	kubectl -n "$namespace" exec "mysql-$1" -c mysql -- \
		bash -c 'MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb -u root -N -B -e "$0"' "$2"
}

# until_true SECONDS WHAT COMMAND...: waits until the command succeeds.
until_true() {
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		[ $SECONDS -lt $deadline ] || die "$what: not in time"
		sleep 1
	done
}

# follow JOB: waits for a Job's end, shows its log, and fails if it failed.
follow() {
	local conditions
	until_true 900 "job $1" job_ended "$1"
	conditions=$(kubectl -n "$namespace" get job "$1" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}')
	echo "\$ kubectl logs job/$1"
	kubectl -n "$namespace" logs "job/$1" --tail=-1
	echo
	case " $conditions " in *" Complete "*) ;; *) die "job $1 failed" ;; esac
}
job_ended() {
	kubectl -n "$namespace" get job "$1" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}' | grep -qE '(^| )(Complete|Failed)( |$)'
}

# keepset JOB ARGUMENTS...: runs another command of the program in the cluster, in a Job made from the backup's CronJob.
keepset() {
	local name=$1 args
	shift
	args=$(printf '"%s",' "$@")
	echo "\$ kubectl create job $name --from=cronjob/keepset-backup --dry-run=client -o json |"
	local path=/spec/template/spec/containers/0/args
	args="[{\"op\":\"add\",\"path\":\"$path\",\"value\":[${args%,}]}]"
	echo "    kubectl patch --local -f - --type=json -p '$args' -o json | kubectl apply -f -"
	kubectl -n "$namespace" create job "$name" --from=cronjob/keepset-backup --dry-run=client -o json |
		kubectl -n "$namespace" patch --local -f - --type=json -p "$args" -o json |
		kubectl -n "$namespace" apply -f -
	follow "$name"
}

# restore JOB PARAMETERS: sets the ConfigMap's parameters and makes a Job from the template.
restore() {
	show kubectl -n "$namespace" patch configmap keepset-restore --type=merge -p "{\"data\":{$2}}"
	show kubectl -n "$namespace" create job "$1" --from=cronjob/keepset-restore
	follow "$1"
}

sum="SELECT CONCAT(COUNT(*), ' rows, checksum ', SUM(CRC32(CONCAT_WS('|', id, customer, note)))) FROM shop.orders"

same() { [ "$(sql "$1" "$sum" 2>/dev/null)" = "$(sql 0 "$sum")" ]; }

# compare ORDINALS...: waits until these followers hold what the primary holds.
compare() {
	local ordinal
	for ordinal in "$@"; do
		until_true 180 "replica $ordinal catches up" same "$ordinal"
		echo "replica $ordinal: $(sql "$ordinal" "$sum"), the same as the primary"
	done
}

# order CUSTOMER ROWS: writes on the primary.
order() { sql 0 "INSERT INTO shop.orders (customer, note) SELECT '$1', SHA2(seq, 512) FROM shop.seq_1_to_$2"; }

# preview says what the demo is going to use, and ends it if that was all that was asked for.
preview() {
	echo "cluster: $1"
	echo "namespace, deleted at the end: $namespace"
	echo "images: Keepset $image, database $database, S3 server $s3"
	if [ -n "$dry" ]; then
		trap - EXIT
		rm -rf "$dir"
		exit 0
	fi
}

dry=
case "$*" in
'') ;;
--dry-run) dry=1 ;;
*) die "unknown arguments $*; there is --dry-run, and the variables are described at the script's beginning" ;;
esac
if [ -z "${KUBECONFIG:-}" ]; then
	image=keepset:dev database=keepset-test/mariadb:10.11 s3=keepset-test/versitygw:v1.8.0 pull=Never
	preview "the local one (make cluster-up); set KUBECONFIG for another"
	make servers
	if ! make cluster-status >/dev/null 2>&1; then
		started=1
		make cluster-up
	fi
	make cluster-image test-images
	KUBECONFIG=$("$cache/bin/cluster" kubeconfig)
	export KUBECONFIG PATH=$cache/bin:$PATH
else
	[ -n "${DEMO_KEEPSET_IMAGE:-}" ] || die "KUBECONFIG names a cluster: set DEMO_KEEPSET_IMAGE to an image of Keepset that it can pull (make image), \
and DEMO_DATABASE_IMAGE and DEMO_S3_IMAGE if it cannot pull mariadb:10.11 and versity/versitygw:v1.8.0"
	image=$DEMO_KEEPSET_IMAGE
	database=${DEMO_DATABASE_IMAGE:-mariadb:10.11} s3=${DEMO_S3_IMAGE:-versity/versitygw:v1.8.0} pull=IfNotPresent
	preview "the one that KUBECONFIG names ($KUBECONFIG)"
	type kubectl >/dev/null || die "kubectl is not installed"
	kubectl version >/dev/null || die "the cluster of $KUBECONFIG does not answer"
fi
# The end-to-end tests run on the same set and store. The image of versitygw that its makers publish does nothing
# without arguments.
manifest() {
	sed -e "s|{{.Replicas}}|3|; s|{{.Policy}}|Parallel|; s|{{or .Size \"\(.*\)\"}}|\1|; /{{- with .Class}}/,/{{- end}}/d" \
		-e "/{{- if .MySQL}}/,/{{- \(else\|end\)}}/d; /{{- end}}/d; s|{{if .MySQL}}.*{{else}}\(.*\){{end}}|\1|" -e "s|keepset-test/mariadb:10.11|$database|" \
		-e "s|image: keepset-test/versitygw:v1.8.0|args: [--port, ':7070', posix, /data]\n      image: $s3|" \
		-e "s|imagePullPolicy: Never|imagePullPolicy: $pull|" "test/e2e/testdata/$1"
}
# An image is a name and a digest, or a name and a tag; the port of a registry is no tag.
case ${image##*/} in
*@*) image="newName: \"${image%@*}\", digest: \"${image##*@}\"" ;;
*:*) image="newName: \"${image%:*}\", newTag: \"${image##*:}\"" ;;
*) image="newName: \"$image\", newTag: latest" ;;
esac

chapter "A StatefulSet of three MariaDB servers, and an S3 server"
kubectl create namespace "$namespace"
made=1
manifest s3.yaml >"$dir/s3.yaml"
manifest shop.yaml >"$dir/mysql.yaml"
show kubectl -n "$namespace" apply -f "$dir/s3.yaml" -f "$dir/mysql.yaml"
show kubectl -n "$namespace" rollout status statefulset/mysql --timeout=10m
kubectl -n "$namespace" wait --for=condition=Ready pod/s3 --timeout=5m
sql 0 "CREATE USER replication@'%' IDENTIFIED BY 'repl-secret'; GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO replication@'%';
CREATE USER keepset_backup@'%' IDENTIFIED BY 'backup-secret';
GRANT SELECT, RELOAD, PROCESS, LOCK TABLES, SHOW VIEW, EVENT, TRIGGER, BINLOG MONITOR, REPLICA MONITOR ON *.* TO keepset_backup@'%';
CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, customer VARCHAR(40), note TEXT, KEY (customer))"
for ordinal in 1 2; do
	sql $ordinal "CHANGE MASTER TO MASTER_HOST='mysql-0.mysql', MASTER_USER='replication', MASTER_PASSWORD='repl-secret', MASTER_USE_GTID=slave_pos;
RESET MASTER; SET GLOBAL gtid_slave_pos=''; START SLAVE"
done
order first 50000
compare 1 2

chapter "Keepset is installed: two CronJobs, their accounts and rights, no operator"
store=(--from-literal=AWS_ACCESS_KEY_ID=keepset --from-literal=AWS_SECRET_ACCESS_KEY=keepset-secret)
kubectl -n "$namespace" create secret generic keepset-backup --from-literal=KEEPSET_SOURCE_PASSWORD=backup-secret "${store[@]}"
kubectl -n "$namespace" create secret generic keepset-restore --from-literal=KEEPSET_TARGET_PASSWORD=root-secret \
	--from-literal=KEEPSET_REPLICATION_PASSWORD=repl-secret "${store[@]}"
mkdir "$dir/overlay"
cat >"$dir/overlay/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: $namespace
resources: [$(realpath --relative-to="$dir/overlay" deploy/cronjob/base)]
images: [{name: keepset, $image}]
patches:
  - {path: config.yaml}
  - {path: restore.yaml}
  - target: {kind: NetworkPolicy, name: keepset}
    patch: | # the S3 server's port
      - {op: add, path: /spec/egress/0/ports/-, value: {port: 7070, protocol: TCP}}
END
cat >"$dir/overlay/config.yaml" <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset}
data: {KEEPSET_SET: mysql, KEEPSET_REPOSITORY: s3://backups/shop, AWS_ENDPOINT_URL_S3: "http://s3:7070"}
END
cat >"$dir/overlay/restore.yaml" <<'END'
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-restore}
data:
  KEEPSET_REPLICATION_USER: replication
  KEEPSET_SEED_PATCH: |
    spec:
      containers:
        - name: mysql
          args: [--skip-slave-start, --read-only=0, --event-scheduler=OFF, --innodb-buffer-pool-size=64M]
          env:
            - name: MARIADB_ROOT_PASSWORD
              valueFrom: {secretKeyRef: {name: keepset-restore, key: KEEPSET_TARGET_PASSWORD}}
END
show kubectl apply -k "$dir/overlay"
keepset init init

chapter "The CronJob backs up every replica"
show kubectl -n "$namespace" patch cronjob keepset-backup -p '{"spec":{"schedule":"* * * * *"}}'
scheduled() {
	kubectl -n "$namespace" get jobs -o name --sort-by=.metadata.creationTimestamp | grep -m 1 -oE 'keepset-backup-[0-9]+' >"$dir/job"
}
until_true 150 "the CronJob fires" scheduled
show kubectl -n "$namespace" patch cronjob keepset-backup -p '{"spec":{"schedule":"0 2 * * *"}}'
follow "$(cat "$dir/job")"
keepset list list

chapter "Life goes on: rows are written after the backup"
order second 5000
compare 1 2

chapter "3 -> 4: a new replica is filled from the backup before its pod first starts"
restore grow-to-4 '"KEEPSET_REPLICAS":"4"'
show kubectl -n "$namespace" rollout status statefulset/mysql --timeout=10m
show kubectl -n "$namespace" get pods -l app=mysql
compare 1 2 3

chapter "Disaster: the volume of replica 2 is lost, with its pod"
show kubectl -n "$namespace" delete pvc data-mysql-2 --wait=false
show kubectl -n "$namespace" delete pod mysql-2 --grace-period=0 --force
order third 5000

chapter "Replica 2 is recovered from the backup"
restore recover-2 '"KEEPSET_REPLICAS":"","KEEPSET_ORDINAL":"2","KEEPSET_REPLACE":"true"'
show kubectl -n "$namespace" rollout status statefulset/mysql --timeout=10m
compare 1 2 3
keepset list-again list
