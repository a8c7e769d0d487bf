package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/postgres"
	"keepset/internal/filetree"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
	"keepset/test/servers"
)

// postgresSet is a set whose container has its claim at the mounts, by subpath.
func postgresSet(t *testing.T, mounts map[string]string) statefulset.Set {
	t.Helper()
	db := corev1.Container{Name: "db", Ports: []corev1.ContainerPort{{ContainerPort: 5432}}}
	for at, sub := range mounts {
		db.VolumeMounts = append(db.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: at, SubPath: sub})
	}
	replicas := int32(1)
	kube := fake.NewClientset(&appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Template:             corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{db}}},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		},
	})
	set, err := statefulset.New(kube, "shop", nil).Discover(t.Context(), "db", endpointOf(enginePostgres, "", 0))
	require.NoError(t, err)
	return set
}

// baseReport is of a base backup with tablespaces at these places.
func baseReport(version string, spaces ...string) record.Report {
	r := record.Report{Engine: enginePostgres, Layout: "postgres-base/1", Version: version, Objects: []record.Object{{Kind: filetree.KindTree, Attributes: map[string]string{}}}}
	for _, at := range spaces {
		r.Objects = append(r.Objects, record.Object{Kind: filetree.KindTree, Attributes: map[string]string{"oid": "16400", "name": "fast", "location": at}})
	}
	return r
}

// Where a server of PostgreSQL is in a claim follows from its version, and where
// its tablespaces are from where they were; what is not on the claim is refused
// with what to do about it, before anything is touched.
func TestPlaceOfAServer(t *testing.T) {
	const root = "/var/lib/postgresql"
	for name, c := range map[string]struct {
		mounts  map[string]string
		report  record.Report
		args    []string
		want    statefulset.DataPlace
		refused []string
	}{
		"15":                  {map[string]string{root + "/data": ""}, baseReport("15.20"), nil, statefulset.DataPlace{Path: "."}, nil},
		"18":                  {map[string]string{root: ""}, baseReport("18.1"), nil, statefulset.DataPlace{Path: "18/docker"}, nil},
		"19, a first one":     {map[string]string{root: "pg"}, baseReport("19beta1"), nil, statefulset.DataPlace{Path: "pg/19/docker"}, nil},
		"18 as 15 was":        {map[string]string{root + "/data": ""}, baseReport("18.1"), nil, statefulset.DataPlace{}, []string{root + "/18/docker is on no claim", "--data-directory"}},
		"18, and it is said":  {map[string]string{root + "/data": ""}, baseReport("18.1"), []string{"--data-directory=" + root + "/data/pg"}, statefulset.DataPlace{Path: "pg"}, nil},
		"a tablespace beside": {map[string]string{root: ""}, baseReport("18.1", root+"/ts1"), nil, statefulset.DataPlace{Path: "18/docker", Apart: []statefulset.ApartPlace{{Was: root + "/ts1", Seen: root + "/ts1", Path: "ts1"}}}, nil},
		"a tablespace moved": {
			map[string]string{root: "", "/fast": "f"},
			baseReport("15.20", "/mnt/ts1"),
			[]string{"--tablespace=/mnt/ts1=/fast/ts1"},
			statefulset.DataPlace{Path: "data", Apart: []statefulset.ApartPlace{{Was: "/mnt/ts1", Seen: "/fast/ts1", Path: "f/ts1"}}},
			nil,
		},
		"a tablespace elsewhere": {
			map[string]string{root: ""},
			baseReport("18.1", "/mnt/ts1"), nil,
			statefulset.DataPlace{},
			[]string{`tablespace "fast" (16400)`, "was in /mnt/ts1", "has at " + root, "--tablespace /mnt/ts1=/dir", "restore load"},
		},
		"moved elsewhere": {map[string]string{root: ""}, baseReport("18.1", "/mnt/ts1"), []string{"--tablespace=/mnt/ts1=/etc"}, statefulset.DataPlace{}, []string{"/etc is not on the claim"}},
		"within":          {map[string]string{root: ""}, baseReport("18.1", root+"/18/docker/ts1"), nil, statefulset.DataPlace{}, []string{"within the data directory"}},
		"above":           {map[string]string{root: ""}, baseReport("18.1", root+"/18"), nil, statefulset.DataPlace{}, []string{"holds the data directory"}},
		"twice":           {map[string]string{root: ""}, baseReport("18.1", root+"/a", root+"/a/b"), nil, statefulset.DataPlace{}, []string{"are not apart"}},
		"none such":       {map[string]string{root: ""}, baseReport("18.1"), []string{"--tablespace=/a=/b"}, statefulset.DataPlace{}, []string{"no tablespace that was in /a"}},
		"a strange name":  {map[string]string{root: ""}, baseReport("18.1", root+"/a=b"), nil, statefulset.DataPlace{}, []string{"cannot be told a seed pod"}},
		"another engine":  {map[string]string{root: ""}, record.Report{Layout: "mariadb-copy/1"}, nil, statefulset.DataPlace{}, []string{"no files of a server of PostgreSQL"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, fs := &RestoreFlags{}, pflag.NewFlagSet("run", pflag.ContinueOnError)
			f.Add(fs)
			require.NoError(t, fs.Parse(append([]string{"--method=physical", "--engine=postgres"}, c.args...)))
			a, r := &App{Log: slog.New(slog.DiscardHandler), Environ: func() []string { return nil }}, &job.Restore{}
			require.NoError(t, f.files(a, r))
			got, err := r.Files.Place(postgresSet(t, c.mounts), c.report)
			if c.refused != nil {
				require.Error(t, err)
				require.Equal(t, ExitUsage, ExitCode(err), "%v", err)
				for _, part := range c.refused {
					require.ErrorContains(t, err, part)
				}
				return
			}
			require.NoError(t, err)
			c.want.Template = "data"
			require.Equal(t, c.want, got)
		})
	}
}

// What is for servers of PostgreSQL is not dropped silently elsewhere.
func TestFlagsOfBasesAlone(t *testing.T) {
	for _, args := range [][]string{
		{"--replication-slot=a", "--target-user=root"},
		{"--replication-slot=a", "--target-user=root", "--method=physical"},
		{"--tablespace=/a=/b", "--method=files"},
		{"--tablespace=/a=/b", "--target-user=root", "--method=physical"},
	} {
		f, fs := &RestoreFlags{}, pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.Add(fs)
		require.NoError(t, fs.Parse(args))
		require.ErrorContains(t, f.checkMethod(), "--tablespace and --replication-slot", "%q", args)
	}
	f, fs := &RestoreFlags{}, pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.Add(fs)
	require.NoError(t, fs.Parse([]string{"--tablespace=/a=/b=/c", "--method=physical", "--engine=postgres"}))
	require.NoError(t, f.checkMethod())
	err := f.files(&App{Environ: func() []string { return nil }}, &job.Restore{})
	require.ErrorContains(t, err, "want /old=/new")
	require.Equal(t, ExitUsage, ExitCode(err))
}

// A slot that is in use is refused for a new standby, is taken for the old one's where
// that is replaced, and is waited for by whoever fills its place.
func TestSlotInUse(t *testing.T) {
	s := servers.Postgres15(t)
	s.Exec(t, "postgres", "SELECT pg_create_physical_replication_slot('spare', true)")
	now := strings.Split(s.Value(t, "postgres", "SELECT system_identifier, l - '0/0'::pg_lsn, pg_walfile_name(l), l FROM pg_control_system(), pg_current_wal_lsn() AS l"), "|")
	report := baseReport("15")
	report.Coordinates.Server, report.Coordinates.File = now[0], now[2]
	_, err := fmt.Sscan(now[1], &report.Coordinates.Position)
	require.NoError(t, err)

	holds, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s password=%s sslmode=disable replication=true", s.Host, s.Port, s.User, s.Password))
	require.NoError(t, err)
	holds.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT spare PHYSICAL " + now[3]})
	require.NoError(t, holds.Frontend().Flush())
	require.Eventually(t, func() bool {
		return s.Value(t, "postgres", "SELECT active FROM pg_replication_slots") == "t"
	}, time.Minute, 50*time.Millisecond)

	var log bytes.Buffer
	a := &App{Log: slog.New(slog.NewTextHandler(&log, nil)), Clock: time.Now, Environ: func() []string { return []string{"KEEPSET_REPLICATION_PASSWORD=" + s.Password} }}
	load := LoadFlags{Upstream: UpstreamFlags{Follow: s.Addr, User: s.User, Slot: "spare"}, Server: ServerFlags{ConnectTimeout: time.Minute}}
	base, err := load.base(a, filepath.Join(t.TempDir(), "data"), 1)
	require.NoError(t, err)
	base.patience = 0
	err = claimBase{base, false}.Check(t.Context(), report)
	require.ErrorIs(t, err, postgres.ErrSlotInUse)
	require.Equal(t, ExitUsage, ExitCode(err))
	require.NoError(t, claimBase{base, true}.Check(t.Context(), report))
	require.NotContains(t, log.String(), "waiting")

	base.patience = time.Hour
	asked := 0
	a.Clock = func() time.Time { // at the beginning, and whenever the slot was in use
		if asked++; asked == 2 {
			require.NoError(t, holds.Close(context.Background()))
		}
		return time.Unix(0, 0)
	}
	require.NoError(t, base.Check(t.Context(), report))
	require.GreaterOrEqual(t, asked, 2)
	require.Contains(t, log.String(), "waiting")
}

// Without an account nobody is asked, and that is said.
func TestNobodyToAskAs(t *testing.T) {
	a := &App{Log: slog.New(slog.DiscardHandler), Environ: func() []string { return nil }}
	ask, err := (&RestoreFlags{}).asker(a)
	require.NoError(t, err)
	unasked, err := ask(job.RestoreItem{})(t.Context(), "127.0.0.1:1")
	require.NoError(t, err)
	require.Contains(t, unasked, "--replication-user")
	item := job.RestoreItem{Coordinates: &record.Coordinates{}}
	for _, f := range []*RestoreFlags{{Upstream: UpstreamFlags{User: "copy", TLS: true}}, {Server: ServerFlags{User: "postgres", TLS: "preferred"}}} {
		ask, err := f.asker(a)
		require.NoError(t, err)
		_, err = ask(item)(t.Context(), "127.0.0.1:1")
		require.ErrorIs(t, err, dbdump.ErrUnreachable)
		require.ErrorContains(t, err, "as "+f.Upstream.User+f.Server.User)
	}
}

// How a server will be asked is wrong before the first claim is taken away, not when its pod is Ready.
func TestAskedWithWhatIsMissing(t *testing.T) {
	a := &App{Log: slog.New(slog.DiscardHandler), Environ: func() []string { return nil }}
	_, err := (&RestoreFlags{Server: ServerFlags{User: "postgres", TLS: "verify", TLSCA: "/nowhere/ca.pem"}}).asker(a)
	require.ErrorContains(t, err, "/nowhere/ca.pem")
}

// A server whose certificate has its name is asked at its pod's address, and one of another authority is not.
func TestAskedAtAnAddress(t *testing.T) {
	s, other := servers.Postgres15(t, servers.WithPostgresTLS()), servers.Postgres15(t, servers.WithPostgresTLS())
	pod := elsewhere(t, s.Addr)
	a := &App{Log: slog.New(slog.DiscardHandler), Environ: func() []string { return []string{"KEEPSET_TARGET_PASSWORD=" + s.Password} }}
	for ca, want := range map[string]error{s.TLS.CA: dbdump.ErrMismatch, other.TLS.CA: dbdump.ErrUntrusted} {
		f := &RestoreFlags{Server: ServerFlags{User: s.User, TLS: "verify", TLSCA: ca, ConnectTimeout: time.Minute, side: "target"}}
		ask, err := f.asker(a)
		require.NoError(t, err)
		_, err = ask(job.RestoreItem{Coordinates: &record.Coordinates{Server: "1"}})(t.Context(), pod)
		require.ErrorIs(t, err, want)
	}
}

// elsewhere is an address of a server's that is not in its certificate.
func elsewhere(t *testing.T, server string) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.2:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		all.Wait()
	})
	hand := func(from, to net.Conn) {
		_, _ = io.Copy(to, from)
		_, _ = to.Close(), from.Close()
	}
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { hand(client, conn) })
			all.Go(func() { hand(conn, client) })
		}
	})
	return listener.Addr().String()
}

// The directories above a server's are made in the claim, and nowhere else.
func TestDirectoriesAbove(t *testing.T) {
	claim, elsewhere := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(claim, "out")))
	require.NoError(t, makeAbove(claim, []string{claim + "/18/docker", claim + "/ts1", claim, elsewhere + "/a/b"}))
	require.DirExists(t, claim+"/18")
	require.Equal(t, []string{"18", "out"}, names(t, claim))
	require.Empty(t, names(t, elsewhere))
	require.Error(t, makeAbove(claim, []string{claim + "/out/of/it"}))
	require.Empty(t, names(t, elsewhere))
	require.NoError(t, makeAbove(claim+"/none", []string{claim + "/none/a/b"}), "where there is no claim")
	require.NoDirExists(t, claim+"/none")
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	slices.Sort(all)
	return all
}
