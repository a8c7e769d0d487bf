// Package byhand runs the commands of docs/restore-by-hand.md, word for word,
// on a backup of a real server: what that page promises must stay true.
package byhand

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
	"keepset/internal/storage/dir"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

// block is one code block of the page; only says for whom it is.
type block struct{ only, code string }

// blocks reads the code blocks of the page: "```sh" or "```sh word".
func blocks(t *testing.T) []block {
	t.Helper()
	page, err := os.ReadFile("../../docs/restore-by-hand.md")
	require.NoError(t, err)
	var list []block
	inside := false
	for line := range strings.Lines(string(page)) {
		switch {
		case !inside && strings.HasPrefix(line, "```sh"):
			inside = true
			list = append(list, block{only: strings.TrimSpace(strings.TrimPrefix(line, "```sh"))})
		case inside && strings.HasPrefix(line, "```"):
			inside = false
		case inside:
			list[len(list)-1].code += line
		}
	}
	require.Greater(t, len(list), 8)
	return list
}

// script is what a user would type in a situation named by words.
func script(t *testing.T, words ...string) string {
	t.Helper()
	var b strings.Builder
	for _, k := range blocks(t) {
		if k.only == "" || slices.Contains(words, k.only) {
			b.WriteString(k.code)
		}
	}
	return b.String()
}

// run runs the page's commands in a fresh directory, with no program of ours
// in reach.
func run(t *testing.T, code string, env ...string) {
	t.Helper()
	work := t.TempDir()
	path := filepath.Join(work, "page.sh")
	require.NoError(t, os.WriteFile(path, []byte(code), 0o600))
	tools := make(map[string]bool)
	for _, name := range []string{"age", "jq", "zstd", "curl", "mariadb"} {
		tools[filepath.Dir(servers.Tool(t, name))] = true
	}
	search := "/usr/bin:/bin"
	for folder := range tools {
		search = folder + ":" + search
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", path)
	cmd.Dir = work
	cmd.Env = append([]string{"PATH=" + search, "HOME=" + work}, env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// sink hands an engine's streams to the repository.
type sink struct{ w *repository.MemberWriter }

func (s sink) Create(ctx context.Context, name string, o dbdump.StreamOptions) (dbdump.Stream, error) {
	return s.w.Create(ctx, name, repository.StreamOptions{Secret: o.Secret})
}

// backup dumps a server into a repository.
func backup(t *testing.T, store storage.Store, keys repository.Keys, server *servers.MySQL) {
	t.Helper()
	_, err := repository.Init(t.Context(), store, repository.InitOptions{Keys: keys})
	require.NoError(t, err)
	r, err := repository.Open(t.Context(), store, keys, repository.Options{})
	require.NoError(t, err)
	now := time.Now().UTC()
	b, err := r.Begin(t.Context(), record.Plan{
		ID: record.NewBackupID(now, ""), Set: record.SetID{Namespace: "shop", Name: "mysql"}, CreatedAt: now,
		Method: record.MethodDump, Engine: "mysql", Members: []record.PlannedMember{{Ordinal: 0, Name: server.Addr}},
	}, record.NewAttemptID())
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	engine, err := mysql.New(mysql.Options{Address: server.Addr, User: server.User, Password: server.Password})
	require.NoError(t, err)
	report, err := engine.Dump(t.Context(), sink{w})
	require.NoError(t, err)
	require.NoError(t, engine.Close())
	_, err = w.Commit(t.Context(), report, repository.CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

// table fills a server with a table of a few megabytes, awkward values among them.
const table = `CREATE DATABASE shop;
CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, customer VARCHAR(200) CHARACTER SET utf8mb4, note TEXT, paid DECIMAL(20,6), at DATETIME(6));
INSERT INTO shop.orders (customer, note, paid, at) SELECT CONCAT('Zoë ', seq, '\t\\', seq), REPEAT(MD5(seq), 5), seq / 7, '2026-11-20 12:00:00.123456' + INTERVAL seq SECOND FROM shop.seq_1_to_30000;
INSERT INTO shop.orders (customer) VALUES (NULL), (''), ('\\N'), ('line\nbreak');`

func fill(t *testing.T, server *servers.MySQL) {
	t.Helper()
	server.Exec(t, table)
}

const fingerprint = "SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(CONCAT_WS('|', id, IFNULL(HEX(customer), 'null'), HEX(note), paid, at)))) FROM shop.orders"

func newKeys(t *testing.T) (keys repository.Keys, identity string) {
	t.Helper()
	restore, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	set, err := repository.Keygen([]age.Recipient{restore.Recipient()})
	require.NoError(t, err)
	keys, err = repository.LoadKeys(func(name string) string {
		for _, v := range set.Writer {
			if v.Name == name {
				return v.Value
			}
		}
		return ""
	})
	require.NoError(t, err)
	identity = filepath.Join(t.TempDir(), "restore.key")
	require.NoError(t, os.WriteFile(identity, []byte(restore.String()+"\n"), 0o600))
	return keys, identity
}

func TestRestoreByHand(t *testing.T) {
	source, target := servers.MariaDB(t), servers.MariaDB(t)
	fill(t, source)
	want := source.Value(t, fingerprint)
	require.True(t, strings.HasPrefix(want, "30004 "), want)
	keys, identity := newKeys(t)
	server := []string{
		"MYSQL_HOST=" + target.Host, fmt.Sprintf("MYSQL_TCP_PORT=%d", target.Port), "MYSQL_PWD=" + target.Password, "DBUSER=" + target.User,
	}
	for _, c := range []struct {
		name  string
		keys  repository.Keys
		words []string
		env   []string
	}{
		{"plain", repository.Keys{}, []string{"plain", "mysql"}, nil},
		{"encrypted", keys, []string{"encrypted", "mysql"}, []string{"IDENTITY=" + identity}},
	} {
		t.Run("directory/"+c.name, func(t *testing.T) {
			path := t.TempDir()
			store, err := dir.New(dir.Options{Path: path})
			require.NoError(t, err)
			backup(t, store, c.keys, source)
			target.Exec(t, "DROP DATABASE IF EXISTS shop")
			run(t, script(t, append(c.words, "dir")...), slices.Concat(server, c.env, []string{"REPO=" + path})...)
			require.Equal(t, want, target.Value(t, fingerprint))
		})
		t.Run("s3/"+c.name, func(t *testing.T) {
			bucket := servers.S3(t, servers.WithBuckets("backups"))
			t.Setenv("AWS_ACCESS_KEY_ID", bucket.AccessKey)
			t.Setenv("AWS_SECRET_ACCESS_KEY", bucket.SecretKey)
			store, err := s3.New(t.Context(), s3.Options{Bucket: "backups", Prefix: "keepset", Endpoint: bucket.Endpoint, Region: bucket.Region})
			require.NoError(t, err)
			backup(t, store, c.keys, source)
			target.Exec(t, "DROP DATABASE IF EXISTS shop")
			run(t, script(t, append(c.words, "curl")...), slices.Concat(server, c.env, []string{
				"REPO=" + bucket.Endpoint + "/backups/keepset", "BUCKET=" + bucket.Endpoint + "/backups", "PREFIX=keepset/",
				"AWS_ACCESS_KEY_ID=" + bucket.AccessKey, "AWS_SECRET_ACCESS_KEY=" + bucket.SecretKey, "AWS_REGION=" + bucket.Region,
			})...)
			require.Equal(t, want, target.Value(t, fingerprint))
		})
	}
}

// TestDamageByHand: the page's commands notice a changed byte in any object.
func TestDamageByHand(t *testing.T) {
	source := servers.MariaDB(t)
	fill(t, source)
	path := t.TempDir()
	store, err := dir.New(dir.Options{Path: path})
	require.NoError(t, err)
	backup(t, store, repository.Keys{}, source)
	code := script(t, "plain", "dir")
	run(t, code, "REPO="+path)
	for _, kind := range []string{"packs", "maps", "refs"} {
		for object, err := range store.List(t.Context(), "sets/shop/mysql/"+kind+"/") {
			require.NoError(t, err)
			file := filepath.Join(path, object.Key)
			whole, err := os.ReadFile(file)
			require.NoError(t, err)
			broken := slices.Clone(whole)
			broken[len(broken)/2] ^= 1
			require.NoError(t, os.Chmod(file, 0o600))
			require.NoError(t, os.WriteFile(file, broken, 0o600))
			work := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "bash", "-c", code)
			cmd.Dir, cmd.Env = work, []string{"PATH=" + filepath.Dir(servers.Tool(t, "jq")) + ":/usr/bin:/bin", "HOME=" + work, "REPO=" + path}
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "%s was broken:\n%s", object.Key, out)
			require.Contains(t, string(out), "FAILED")
			require.NoError(t, os.WriteFile(file, whole, 0o600))
		}
	}
}
