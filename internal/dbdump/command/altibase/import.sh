# Restores a logical backup of an Altibase database, the tar archive that comes
# on standard input, into pod 0, and brings aku up again.
only_pod_0
workplace import
unpack
[ ! -e keepset-altibase ] || die "this is a physical backup: restore it with the preset altibase-physical"
[ -s run_il_in.sh ] || die "the archive has no run_il_in.sh: it is no export of aexport"

end_aku
run_aku clean

# The manual's order; replication's own script (run_is_repl.sh) is aku's business.
for script in run_is.sh run_il_in.sh run_is_refresh_mview.sh run_is_index.sh run_is_fk.sh run_is_alt_tbl.sh; do
	[ -e "$script" ] || continue
	sh -e "./$script" </dev/null >script.log 2>&1 || die "$script ended with status $?" script.log
	said_well script.log "$script"
done
bad=$(find . -name '*.bad' -size +0)
[ -z "$bad" ] || die "iloader rejected rows: $bad"

start_aku "the rows are there"
