package cli

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// TestLineWriter: a line comes whole, whoever writes beside it.
func TestLineWriter(t *testing.T) {
	var out bytes.Buffer
	w := &lineWriter{to: &out}
	for _, part := range []string{"one\ntw", "o\nthr", "ee"} {
		n, err := w.Write([]byte(part))
		require.NoError(t, err)
		require.Equal(t, len(part), n)
		require.True(t, out.Len() == 0 || out.Bytes()[out.Len()-1] == '\n')
	}
	require.Equal(t, "one\ntwo\n", out.String())
}

// TestWorkerFlags: who is root is no other user besides.
func TestWorkerFlags(t *testing.T) {
	f := WorkerFlags{UID: 33, GID: 34}
	spec, err := f.spec("data")
	require.NoError(t, err)
	require.Equal(t, statefulset.WorkerSpec{Template: "data", UID: 33, GID: 34}, spec)
	f = WorkerFlags{FromSnapshot: true, Class: "fast"}
	spec, err = f.spec("data")
	require.NoError(t, err)
	require.Equal(t, statefulset.WorkerSpec{Template: "data", Temporary: true, Class: "fast"}, spec)
	for _, wrong := range []WorkerFlags{{UID: -1}, {GID: -1}, {Root: true, UID: 33}, {Root: true, GID: 33}, {Class: "fast"}} {
		_, err := wrong.spec("")
		require.Error(t, err)
	}
}

// TestSeedPodArguments: a seed pod that loads files by itself is told what to load
// and where to, and of the repository what is not in its environment, which it has
// from the restore's own Job.
func TestSeedPodArguments(t *testing.T) {
	restore := func(args ...string) (*job.Restore, error) {
		f, fs := &RestoreFlags{}, pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.Add(fs)
		require.NoError(t, fs.Parse(args))
		a := &App{Log: slog.New(slog.DiscardHandler), Environ: func() []string { return []string{"KEEPSET_STORE_TIMEOUT=1m0s", "KEEPSET_REPLICATION_PASSWORD=secret"} }}
		r := &job.Restore{}
		return r, f.files(a, r)
	}
	plan := &job.RestorePlan{From: record.SetID{Namespace: "shop", Name: "db"}, Backup: "20261120T131730Z-abc", Suspect: true}
	item := job.RestoreItem{Ordinal: 2, Base: 1, Follow: "db-0.db:5432"}

	r, err := restore("--method=files", "--repository=s3://b/p", "--store-timeout=1m", "--limit-download=7", "--no-devices")
	require.NoError(t, err)
	require.Equal(t, []string{
		"load", "--target=file:///claim", "--set=shop/db", "--backup=20261120T131730Z-abc", "--ordinal=1", "--replace=false",
		"--allow-incomplete=false", "--allow-suspect=true", "--allow-filtered=false", "--limit-download=7", "--repository=s3://b/p",
		"--no-owner=false", "--no-devices=true", "--no-xattrs=false",
	}, r.Files.Args(plan, item, "/claim"))
	require.Equal(t, "none", r.Request.Follow)
	require.Nil(t, r.Files.Base)

	const user = "--replication-user=copy"
	r, err = restore("--method=physical", "--engine=postgres", user, "--replication-tls")
	require.NoError(t, err)
	args := r.Files.Args(plan, item, "/claim/pg")
	require.Subset(t, args, []string{"--target=file:///claim/pg", "--as-follower-of=db-0.db:5432", user, "--replication-tls=true", "--no-owner=true"})
	require.NotContains(t, strings.Join(args, " "), "secret")
	require.Contains(t, args, "--replication-slot=")
	require.NotContains(t, strings.Join(args, " "), "--tablespace")
	item.Slot, item.Place = "db_2", &statefulset.DataPlace{Template: "data", Path: "pg", Apart: []statefulset.ApartPlace{{Was: "/old", Seen: "/pg/ts1", Path: "sub/ts1"}}}
	require.Subset(t, r.Files.Args(plan, item, "/claim/pg"), []string{"--replication-slot=db_2", "--tablespace=/old=/keepset-files/sub/ts1=/pg/ts1"})
	item.Follow, item.Slot = "", ""
	require.Contains(t, r.Files.Args(plan, item, "/claim"), "--as-follower-of=none")

	r, err = restore("--method=physical", "--engine=postgres", "--worker-root")
	require.NoError(t, err)
	require.Contains(t, r.Files.Args(plan, item, "/claim"), "--no-owner=false", "root gives the files back to whom they belonged")
	_, err = r.Files.Base(item)
	require.NoError(t, err, "a primary needs no account")
	item.Follow = "db-0.db:5432"
	_, err = r.Files.Base(item)
	require.ErrorContains(t, err, "--replication-user is required")

	r, err = restore("--method=physical", "--engine=postgres", "--replication-slot=db_{ordinal}")
	require.NoError(t, err)
	require.Equal(t, "db_{ordinal}", r.Request.Slot)

	_, err = restore("--method=physical", "--engine=postgres", "--no-xattrs")
	require.ErrorContains(t, err, "--no-xattrs")

	// A MariaDB comes up in the seed pod, which prepares its files first.
	r, err = restore("--method=physical", "--target-user=root", user)
	require.NoError(t, err)
	require.Contains(t, r.Files.Adopt.Script, "--prepare --target-dir")
	require.Contains(t, r.Files.Adopt.Script, "auto.cnf")
	require.Equal(t, "--target=file:///claim", r.Files.Args(plan, item, "/claim")[1])
	require.NotContains(t, strings.Join(r.Files.Args(plan, item, "/claim"), " "), "as-follower-of", "the restore sets that up itself")
	_, err = restore("--method=physical", "--target-user=root", "--no-owner")
	require.ErrorContains(t, err, "--no-owner")
	require.Empty(t, r.Files.Adopt.Container)
	r, err = restore("--method=physical", "--target-user=root", user, "--copy-container=xtrabackup")
	require.NoError(t, err)
	require.Equal(t, "xtrabackup", r.Files.Adopt.Container)
}

// TestWorkerIsToldOfASnapshot: a worker knows of which moment its files are, to the
// nanosecond, and does not guess.
func TestWorkerIsToldOfASnapshot(t *testing.T) {
	told := job.FromSnapshot{Name: "keepset-1", CutAt: time.Date(2026, 11, 28, 9, 0, 0, 123456789, time.UTC)}
	env := workerEnv("20261128T090000Z-0000", 3, &told)
	require.Equal(t, "3", env[envWorker])
	a := &App{Environ: func() (list []string) {
		for k, v := range env {
			list = append(list, k+"="+v)
		}
		return list
	}}
	got, err := toldSnapshot(a)
	require.NoError(t, err)
	require.Equal(t, &told, got)
	env[envWorkerCutAt] = "yesterday"
	_, err = toldSnapshot(a)
	require.ErrorContains(t, err, "KEEPSET_WORKER_CUT_AT")
	env = workerEnv("20261128T090000Z-0000", 3, nil)
	got, err = toldSnapshot(a)
	require.NoError(t, err)
	require.Nil(t, got)
}

// TestSeedPodsVariables: what the environment of a restore says of `restore load`, into
// a server perhaps, does not make a seed pod refuse when the claims are gone already.
func TestSeedPodsVariables(t *testing.T) {
	variables := notForLoad()
	load, run := pflag.NewFlagSet("load", pflag.ContinueOnError), pflag.NewFlagSet("run", pflag.ContinueOnError)
	new(LoadFlags).Add(load)
	new(RestoreFlags).Add(run)
	said := (&RestoreFlags{given: run}).loadArgs(&App{Environ: func() []string { return nil }}, &job.RestorePlan{}, job.RestoreItem{}, "/claim")
	load.VisitAll(func(f *pflag.Flag) {
		if run.Lookup(f.Name) != nil || slices.ContainsFunc(said, func(arg string) bool { return strings.HasPrefix(arg, "--"+f.Name+"=") }) {
			return
		}
		if strings.HasPrefix(f.Name, "command") || strings.HasPrefix(f.Name, "timesten") || strings.HasPrefix(f.Name, "altibase") || f.Name == "rows" {
			return // of other engines, which a directory does not look at
		}
		_, emptied := variables[EnvName(f.Name)]
		assert.True(t, emptied, "--%s of restore load is neither emptied nor said", f.Name)
	})
}
