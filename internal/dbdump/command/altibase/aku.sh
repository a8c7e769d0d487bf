# aku around a restore of either kind.

only_pod_0() {
	case $(hostname) in
	*-0) ;;
	*) die "this is not pod 0: aku fills the others from there" ;;
	esac
}

# run_aku: what it was told, and what is to be said first when it fails. That may
# be with status 0.
run_aku() {
	aku -p "$1" >aku.log 2>&1 || die "${2:-}aku -p $1 ended with status $?" aku.log
	said_well aku.log "${2:-}aku -p $1"
	if grep -q 'AKU failed' aku.log; then die "${2:-}aku -p $1 said that it failed" aku.log; fi
}

# replications_reset refuses when a replication still knows where it was. $1 is the remedy.
replications_reset() {
	# shellcheck disable=SC2016
	ask 'SELECT REPLICATION_NAME, XSN FROM SYSTEM_.SYS_REPLICATIONS_;'
	open=$(awk '$1 ~ /^AKU_REP_/ && $2 != -1 { printf " %s", $1 }' isql.log)
	[ -z "$open" ] || die "replications are not reset (XSN is not -1):$open; $1"
}

# end_aku before the database is touched: what it replicates would carry the
# restored rows to pods that are about to be filled, or flush old changes over them.
end_aku() {
	[ ! -e /tmp/aku_start_completed ] || run_aku end
	replications_reset "scale the set to one pod, and let aku end in each of the others"
}

# start_aku after it. $1 says what there is when it fails.
start_aku() {
	run_aku start "$1, and "
	grep -q 'AKU run successfully' aku.log || die "$1, and aku -p start did not say that it ran successfully" aku.log
}
