package trust

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/test/programs"
	"keepset/test/servers"
)

const (
	bucket, prefix = "backups", "prod"
	set            = "shop"
	day            = 24 * time.Hour
)

// policies of each account, which are those that deploy/ has for its role.
var policies = map[string]string{
	"init": "store-init", "backup": "store-backup", "prune": "store-prune", "restore": "store-restore",
	"keys": "store-keys", "status": "store-status",
}

func secretOf(account string) string { return account + "-secret" }

func TestMain(m *testing.M) {
	os.Exit(programs.Main(m))
}

// world is a bucket with Object Lock, an account for each role, and a directory that is backed up.
type world struct {
	t      *testing.T
	server *servers.S3Server
	// endpoint is that of the server, or of what stands before it.
	endpoint string
	bin      string
	dir      string
	// now is when the test began; the backups were taken in the days before.
	now time.Time
	// notEnforced are the statements of the policies that this server does not know.
	notEnforced []string
	// days are the backups, by how many days ago they were taken, and trees what they hold.
	days  []string
	trees map[string]map[string]string
}

func newWorld(t *testing.T, days int) *world {
	t.Helper()
	bin, err := programs.Build()
	require.NoError(t, err)
	options := []servers.S3Option{servers.WithVersioning(), servers.WithLongPolicies()}
	files := map[string]string{}
	for account, policy := range policies {
		options = append(options, servers.WithAccount(account, secretOf(account), "user"))
		files[account] = "../../deploy/iam/" + policy + ".json"
	}
	w := &world{t: t, server: servers.S3(t, options...), bin: bin, dir: t.TempDir(), now: time.Now().UTC(), trees: map[string]map[string]string{}}
	w.endpoint = w.server.Endpoint
	w.server.LockedBucket(t, bucket)
	w.notEnforced = w.server.Grant(t, bucket, prefix, files)
	require.NoError(t, os.Mkdir(w.path("source"), 0o700))
	w.run("", 0, "backup", "keygen", "--format", "env", "--out", "keys")
	w.run("init", 0, "backup", "init")
	for ago := range days {
		w.take(days - 1 - ago)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// env is all that a process of the role is given: its account of the store, and its keys.
func (w *world) env(role string) []string {
	env := []string{
		"PATH=" + w.bin + ":/usr/bin:/bin", "HOME=" + w.dir, "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=" + w.server.Region,
		"AWS_ENDPOINT_URL_S3=" + w.endpoint, "KEEPSET_REPOSITORY=s3://" + bucket + "/" + prefix,
		"AWS_ACCESS_KEY_ID=" + role, "AWS_SECRET_ACCESS_KEY=" + secretOf(role),
	}
	locks := []string{"KEEPSET_S3_OBJECT_LOCK_MODE=compliance", "KEEPSET_S3_OBJECT_LOCK_DAYS=30"}
	switch role {
	case "init", "backup":
		return append(append(env, locks...), w.keys("writer.env")...)
	case "keys":
		return append(append(env, locks...), w.keys("restore.env")...)
	case "restore":
		return append(env, w.keys("restore.env")...)
	case "prune", "status":
		return append(env, slices.DeleteFunc(w.keys("restore.env"), func(kv string) bool { return !strings.HasPrefix(kv, "KEEPSET_TRUSTED_WRITERS=") })...)
	}
	return env
}

// keys reads a file of `backup keygen --format env` as a shell does.
func (w *world) keys(file string) []string {
	w.t.Helper()
	script := "env -i bash -c 'set -a; . \"$0\"; env -0' " + w.path("keys/"+file)
	out, err := exec.CommandContext(w.t.Context(), "bash", "-c", script).Output()
	require.NoError(w.t, err)
	var list []string
	for kv := range strings.SplitSeq(string(out), "\x00") {
		if strings.HasPrefix(kv, "KEEPSET_") {
			list = append(list, kv)
		}
	}
	require.NotEmpty(w.t, list, file)
	return list
}

// run runs a program in a role and returns what it says.
func (w *world) run(role string, code int, program string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), filepath.Join(w.bin, program), args...)
	cmd.Dir, cmd.Env = w.dir, w.env(role)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(w.t, err)
	}
	require.Equal(w.t, code, cmd.ProcessState.ExitCode(), "%s %s\n%s", program, strings.Join(args, " "), out)
	return string(out)
}

// change changes some of the files that are backed up.
func (w *world) change(seed int) {
	w.t.Helper()
	r := rand.New(rand.NewPCG(uint64(seed), 7))
	for i := range 6 {
		if i > 1 && i != 2+seed%4 {
			if _, err := os.Stat(w.path(fmt.Sprintf("source/%d", i))); err == nil {
				continue // as the backup before
			}
		}
		body := make([]byte, 100_000+r.IntN(300_000))
		for j := range body {
			body[j] = byte(r.Uint32())
		}
		require.NoError(w.t, os.WriteFile(w.path(fmt.Sprintf("source/%d", i)), body, 0o600))
	}
}

// id is that of a backup begun so long before the test.
func (w *world) id(ago time.Duration, n int) string {
	return fmt.Sprintf("%s-%08d", w.now.Add(-ago).Format("20060102T150405Z"), n)
}

// take takes the backup of a day in the past. The server's clock cannot be set, so that what it stores meanwhile
// is said to be that old, and is made so afterwards: it takes the time of its files for that of the objects.
func (w *world) take(ago int) {
	w.t.Helper()
	before := w.objects()
	w.change(ago)
	id := w.id(time.Duration(ago)*day, ago)
	w.runInThePast(time.Duration(ago)*day, "run", "--set", set, "--method", "files", "--source", "file://"+w.path("source"), "--id", id)
	for _, key := range w.objects() {
		if !slices.Contains(before, key) {
			w.age(key, time.Duration(ago)*day)
		}
	}
	w.days = append(w.days, id)
	w.trees[id] = tree(w.t, w.path("source"))
}

// runInThePast is `backup` in the role of the backup, in this process, by a clock that is so much behind.
func (w *world) runInThePast(ago time.Duration, args ...string) {
	w.t.Helper()
	w.endpoint = w.inThePast(ago)
	env := w.env("backup")
	w.endpoint = w.server.Endpoint
	for _, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			w.t.Setenv(name, value)
		}
	}
	var said bytes.Buffer
	a := &cli.App{
		Name: "backup", In: strings.NewReader(""), Out: &said, Err: &said, Environ: func() []string { return env },
		Clock: func() time.Time { return time.Now().Add(-ago) }, Log: slog.New(slog.DiscardHandler),
	}
	var f cli.BackupFlags
	run := &cobra.Command{Use: "run", RunE: func(cmd *cobra.Command, _ []string) error {
		b, done, err := f.Job(cmd.Context(), a)
		if err != nil {
			return err
		}
		defer done()
		_, err = b.Run(cmd.Context())
		return err
	}}
	f.Add(run.Flags())
	require.Zero(w.t, a.Run(w.t.Context(), cli.NewRoot(a, "", "", run), args), &said)
}

var lastModified = regexp.MustCompile(`<LastModified>([^<]*)</LastModified>`)

// inThePast is the server, whose listings show what is newer than the test so much older.
func (w *world) inThePast(ago time.Duration) (endpoint string) {
	w.t.Helper()
	target, err := url.Parse(w.server.Endpoint)
	require.NoError(w.t, err)
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: func(r *http.Response) error {
			if !r.Request.URL.Query().Has("list-type") {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body = lastModified.ReplaceAllFunc(body, func(found []byte) []byte {
				at, err := time.Parse(time.RFC3339, string(lastModified.FindSubmatch(found)[1]))
				if err != nil || at.Before(w.now.Add(-time.Minute)) {
					return found
				}
				return fmt.Appendf(nil, "<LastModified>%s</LastModified>", at.Add(-ago).Format(time.RFC3339))
			})
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
	})
	w.t.Cleanup(front.Close)
	return front.URL
}

// age lets an object be that old for the server.
func (w *world) age(key string, ago time.Duration) {
	w.t.Helper()
	at := w.now.Add(-ago)
	require.NoError(w.t, os.Chtimes(filepath.Join(w.server.Dir, bucket, prefix, key), at, at))
}

// stored is when the server says that an object was stored.
func (w *world) stored(key string) time.Time {
	w.t.Helper()
	info, err := os.Stat(filepath.Join(w.server.Dir, bucket, prefix, key))
	require.NoError(w.t, err)
	return info.ModTime()
}

// objects are the keys below the prefix that a listing shows.
func (w *world) objects() []string {
	w.t.Helper()
	var keys []string
	for _, v := range w.versions("") {
		if v.IsLatest && v.XMLName.Local == "Version" {
			keys = append(keys, v.Key)
		}
	}
	return keys
}

// version is an older or the newest version of an object, or a marker that hides it.
type version struct {
	XMLName   xml.Name
	Key       string
	VersionID string `xml:"VersionId"`
	IsLatest  bool
}

// versions are all that the bucket's owner sees below a key.
func (w *world) versions(below string) []version {
	w.t.Helper()
	var list []version
	query := "versions=&prefix=" + url.QueryEscape(prefix+"/"+below)
	for next := ""; ; {
		answer := w.server.Must(w.t, w.server.Root(http.MethodGet, "/"+bucket, query+next, ""))
		var page struct {
			Versions            []version `xml:"Version"`
			Markers             []version `xml:"DeleteMarker"`
			IsTruncated         bool
			NextKeyMarker       string
			NextVersionIDMarker string `xml:"NextVersionIdMarker"`
		}
		require.NoError(w.t, xml.Unmarshal([]byte(answer.Body), &page))
		list = append(append(list, page.Versions...), page.Markers...)
		if !page.IsTruncated {
			break
		}
		next = "&key-marker=" + url.QueryEscape(page.NextKeyMarker) + "&version-id-marker=" + url.QueryEscape(page.NextVersionIDMarker)
	}
	for i := range list {
		list[i].Key = strings.TrimPrefix(list[i].Key, prefix+"/")
	}
	return list
}

// as is a request of an account for an object.
func (w *world) as(account, method, key, query, body string) servers.S3Request {
	return servers.S3Request{
		Access: account, Secret: secretOf(account), Method: method, Path: "/" + bucket + "/" + prefix + "/" + key, Query: query, Body: body,
	}
}

// below are the keys of the set's folder.
func (w *world) below(folder string) []string {
	w.t.Helper()
	var keys []string
	for _, key := range w.objects() {
		if strings.HasPrefix(key, "sets/_/"+set+"/"+folder) {
			keys = append(keys, key)
		}
	}
	require.NotEmpty(w.t, keys, folder)
	return keys
}

// restores loads a backup in the role of the restore and compares it with what was backed up.
func (w *world) restores(id string, more ...string) {
	w.t.Helper()
	to := w.t.TempDir()
	w.run("restore", 0, "restore", append([]string{"load", "--set", set, "--ordinal", "0", "--backup", id, "--target", "file://" + to}, more...)...)
	require.Equal(w.t, w.trees[id], tree(w.t, to), id)
}

// tree is the files of a directory.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(root, path))
		files[path] = string(data)
		return err
	}))
	return files
}
