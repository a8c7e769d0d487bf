# Prints a logical backup of an Altibase database as a tar archive.
properties=${ALTIBASE_HOME:?is not set}/conf/aexport.properties
[ -r "$properties" ] || die "aexport reads $properties, which is not there: copy the sample beside it"
for want in OPERATION=OUT EXECUTE=OFF TWO_PHASE_SCRIPT=OFF; do
	grep -Eiq "^[[:space:]]*${want%=*}[[:space:]]*=[[:space:]]*${want#*=}[[:space:]]*(#.*)?\$" "$properties" ||
		die "$properties has to say $want"
done
workplace export

# It prompts for what it does not know, such as users' passwords (USER_PASSWORD).
aexport -s 127.0.0.1 -port "$port" -u sys -p "$password" -NLS_USE UTF8 </dev/null >aexport.log 2>&1 ||
	die "aexport ended with status $?" aexport.log
said_well aexport.log aexport
grep -q 'script files were generated' aexport.log || die "aexport ended with status 0 and did not say that the scripts were generated" aexport.log
[ -s run_il_out.sh ] || die "aexport made no run_il_out.sh, or an empty one" aexport.log

sh -e ./run_il_out.sh </dev/null >iloader.log 2>&1 || die "iloader ended with status $?" iloader.log
said_well iloader.log iloader
tables=$(grep -c '[[:space:]]out[[:space:]]' run_il_out.sh || :)
files=$(find . -name '*.dat' | wc -l)
[ "$tables" -gt 0 ] || die "the export has no table"
[ "$files" -eq "$tables" ] || die "the export has $tables tables, and iloader wrote $((files)) files with rows" iloader.log
bad=$(find . -name '*.bad' -size +0)
[ -z "$bad" ] || die "iloader rejected rows: $bad" iloader.log

tar cf - .
