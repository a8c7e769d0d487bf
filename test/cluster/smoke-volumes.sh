#!/bin/bash
# Checks on the running cluster that volumes with snapshots are what the tests
# build on: of the plain CSI driver, of ebs.csi.aws.com over the fake EC2, and
# of the class that still names the provisioner of old. Needs kubectl and
# KUBECONFIG. Everything happens in one namespace, which it removes.
set -euo pipefail

ns=cluster-volumes-$$
k() { kubectl --namespace "$ns" "$@"; }
finish() {
	code=$?
	trap - EXIT
	if [ $code -ne 0 ]; then
		echo "cluster-volumes: FAILED; what is there:" >&2
		k get pods,pvc,volumesnapshots,events >&2 || true
	fi
	kubectl delete namespace "$ns" --wait --timeout 120s >/dev/null || code=1
	[ $code -ne 0 ] || echo "cluster-volumes: PASS"
	exit $code
}
trap finish EXIT
ok() { echo "ok: $*"; }
fail() { echo "cluster-volumes: $*" >&2; exit 1; }
get() { k get "$1" -o "jsonpath={$2}"; }
sh() { k exec "$1" -- bash -c "$2"; }
# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
	local end=$((SECONDS + $1)) what=$2
	until "${@:3}"; do
		[ $SECONDS -lt $end ] || fail "$what"
		sleep 0.5
	done
}
# fake PATH: what the fake EC2 answers at its control interface.
fake() {
	exec 3<>/dev/tcp/10.245.0.1/4566
	printf 'GET /control/%s HTTP/1.0\r\n\r\n' "$1" >&3
	sed '1,/^\r$/d' <&3
	exec 3>&-
}
in_fake() { fake volumes | grep -q "$1"; }
not() { ! "$@"; }

# claim NAME CLASS SIZE [SNAPSHOT]: a claim, and a pod of the same name that mounts it at /data under a user of its own.
claim() {
	local source=
	[ -z "${4:-}" ] || source="dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: $4}"
	k apply -f - >/dev/null <<-YAML
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: $1}
		spec:
		  storageClassName: $2
		  accessModes: [ReadWriteOnce]
		  resources: {requests: {storage: $3}}
		  $source
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: $1}
		spec:
		  terminationGracePeriodSeconds: 0
		  securityContext: {runAsUser: 999, fsGroup: 999}
		  volumes: [{name: data, persistentVolumeClaim: {claimName: $1}}]
		  containers:
		  - name: c
		    image: keepset-test/mariadb:10.11
		    imagePullPolicy: Never
		    command: [sleep, infinity]
		    volumeMounts: [{name: data, mountPath: /data}]
	YAML
	k wait --for condition=Ready "pod/$1" --timeout 120s >/dev/null
}
# snapshot NAME CLAIM CLASS
snapshot() {
	k apply -f - >/dev/null <<-YAML
		apiVersion: snapshot.storage.k8s.io/v1
		kind: VolumeSnapshot
		metadata: {name: $1}
		spec: {volumeSnapshotClassName: $3, source: {persistentVolumeClaimName: $2}}
	YAML
}
ready() { k wait --for jsonpath='{.status.readyToUse}'=true "volumesnapshot/$1" --timeout 60s >/dev/null; }
pv() { get "pvc/$1" .spec.volumeName; }
zone() { kubectl get pv "$1" -o jsonpath='{.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0]}'; }

kubectl create namespace "$ns" >/dev/null
[ "$(kubectl get node -o jsonpath='{.items[0].metadata.labels.topology\.kubernetes\.io/zone}')" = us-east-1a ] || fail "the node is in no zone"

# story CLASS SNAPSHOTCLASS TOPOLOGYKEY: a volume, its snapshot, a larger volume made from that.
story() {
	local name=$1 class=$1 snapshots=$2 key=$3 volume
	claim "$name" "$class" 1Gi
	volume=$(pv "$name")
	[ "$(zone "$volume")" = "{\"key\":\"$key\",\"operator\":\"In\",\"values\":[\"us-east-1a\"]}" ] || fail "$class: the volume's zone is $(zone "$volume")"
	sh "$name" 'echo 42 >/data/row'
	snapshot "$name" "$name" "$snapshots"
	ready "$name"
	sh "$name" 'echo 43 >/data/row'
	claim "$name-restored" "$class" 2Gi "$name"
	[ "$(sh "$name-restored" 'cat /data/row')" = 42 ] || fail "$class: the restored volume has not what the snapshot had"
	[ "$(sh "$name-restored" 'df --output=size -m /data | tail -1')" -gt 1800 ] || fail "$class: the larger volume has a file system of the old size"
	ok "$class: a volume, its snapshot, and a larger volume made from that"
}
story csi-standard csi-snapshots topology.csi.keepset.test/zone
story mysql-gp2 ebs-snapshots topology.ebs.csi.aws.com/zone

handle=$(kubectl get pv "$(pv mysql-gp2)" -o jsonpath='{.spec.csi.volumeHandle}')
[[ $handle == vol-* ]] || fail "the handle of an EBS volume is $handle"
in_fake "$handle" || fail "the fake has no volume $handle"
fake "volumes/$handle" | grep -q '"encrypted":true.*"state":"in-use"' || fail "the fake has $(fake "volumes/$handle")"
kubectl get pv "$(pv mysql-gp2)" -o jsonpath='{.spec.mountOptions}' | grep -q debug || fail "the mount option is lost"
ok "an EBS volume is the fake's volume of that handle, encrypted and attached"
claim gp2-in-tree gp2-in-tree 1Gi
sh gp2-in-tree 'echo 42 >/data/row'
[[ $(zone "$(pv gp2-in-tree)") == *us-east-1a* ]] || fail "gp2-in-tree: the volume's zone is $(zone "$(pv gp2-in-tree)")"
old=$(kubectl get pv "$(pv gp2-in-tree)" -o jsonpath='{.spec.awsElasticBlockStore.volumeID}')
in_fake "${old##*/}" || fail "the fake has no volume $old"
ok "a volume of the old provisioner's class looks as it always did: awsElasticBlockStore $old"

k delete pod mysql-gp2 >/dev/null
await 60 "$handle is still attached" eval "fake volumes/$handle | grep -q '\"state\":\"available\"'"
ok "without its pod it is detached"
k delete pvc mysql-gp2 >/dev/null
await 60 "$handle is still there" not in_fake "$handle"
ok "without its claim it is gone"

snapshot slow csi-standard csi-snapshots-slow
snapshot broken csi-standard csi-snapshots-broken
await 30 "a broken provider's message is nowhere" eval 'get volumesnapshot/broken .status.error.message | grep -q "on fire"'
k delete volumesnapshot broken >/dev/null
ready slow
at=$(k get events --field-selector involvedObject.name=slow,reason=SnapshotReady -o jsonpath='{.items[0].lastTimestamp}')
[ $(($(date -d "$at" +%s) - $(date -d "$(get volumesnapshot/slow .status.creationTime)" +%s))) -ge 3 ] || fail "a slow snapshot was ready at $at"
ok "snapshots that take time, and those that fail, say so"

k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: raw}
spec: {storageClassName: csi-immediate, volumeMode: Block, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: raw}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: data, persistentVolumeClaim: {claimName: raw}}]
  containers:
  - {name: c, image: "keepset-test/mariadb:10.11", imagePullPolicy: Never, command: [sleep, infinity], volumeDevices: [{name: data, devicePath: /dev/data}]}
YAML
k wait --for condition=Ready pod/raw --timeout 120s >/dev/null
[ "$(sh raw 'echo hello | dd of=/dev/data conv=fsync status=none && head -c 5 /dev/data')" = hello ] || fail "the raw device does not keep what is written"
ok "a raw device"
