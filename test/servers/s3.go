package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// S3Server is an S3 server (versitygw over a folder). Its fields do not change while it is stopped and started again.
//
// Its traps, for those who read a failing test: it ignores requests for server-side encryption silently, and a bucket's
// default retention does not show in HEAD.
type S3Server struct {
	Endpoint  string // http://127.0.0.1:PORT, with https under WithS3TLS
	AccessKey string // of the owner of everything
	SecretKey string
	Region    string
	Dir       string // a bucket is a folder in it, an object a file
	LogFile   string
	CAFile    string // PEM; empty without WithS3TLS

	args    []string
	health  string // URL of the health check, which no other server answers
	client  *http.Client
	process *process
}

// s3Options is what the options of an S3 server set.
type s3Options struct {
	tls        bool
	versioning bool
	sidecar    bool
	buckets    []string
	accounts   []account
}

type account struct{ access, secret, role string }

// S3Option changes how an S3 server is started.
type S3Option func(*s3Options)

// WithBuckets creates buckets, owned by the server's AccessKey.
func WithBuckets(names ...string) S3Option {
	return func(o *s3Options) { o.buckets = append(o.buckets, names...) }
}

// WithS3TLS makes the server speak HTTPS only, with a certificate for 127.0.0.1 and localhost from an authority of its own.
func WithS3TLS() S3Option { return func(o *s3Options) { o.tls = true } }

// WithVersioning lets buckets keep versions, which object lock needs too. Each bucket still has to be told to.
func WithVersioning() S3Option { return func(o *s3Options) { o.versioning = true } }

// WithLongPolicies lets the server keep what it knows of buckets and objects in files. In extended attributes, as it does by itself, a policy
// of more than about 4 KB does not fit: those of two roles together.
func WithLongPolicies() S3Option { return func(o *s3Options) { o.sidecar = true } }

// WithAccount adds an account that owns nothing. The role is one of versitygw's: user (needs a bucket policy or ACL for
// everything), userplus (may create buckets too) or admin.
func WithAccount(access, secret, role string) S3Option {
	return func(o *s3Options) { o.accounts = append(o.accounts, account{access, secret, role}) }
}

// S3 starts an S3 server for the test, without buckets unless WithBuckets names some.
func S3(t testing.TB, options ...S3Option) *S3Server {
	t.Helper()
	s, err := StartS3(t.Context(), t.TempDir(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the log of the S3 server at %s:\n%s", s.Endpoint, tail(s.LogFile))
		}
	})
	return s
}

// StartS3 starts an S3 server with everything that it keeps in dir, which must be empty.
func StartS3(ctx context.Context, dir string, options ...S3Option) (*S3Server, error) {
	var o s3Options
	for _, option := range options {
		option(&o)
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	health := fmt.Sprintf("/health-%d-%d", os.Getpid(), port)
	s := &S3Server{
		Endpoint: "http://" + address, AccessKey: "keepset-root", SecretKey: "keepset-root-secret", Region: "us-east-1",
		Dir: filepath.Join(dir, "buckets"), LogFile: filepath.Join(dir, "server.log"),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	iam, versions, sidecar := filepath.Join(dir, "accounts"), filepath.Join(dir, "versions"), filepath.Join(dir, "sidecar")
	for _, d := range []string{s.Dir, iam, versions, sidecar} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, fmt.Errorf("start the S3 server: %w", err)
		}
	}
	s.args = []string{"--port", address, "--region", s.Region, "--iam-dir", iam, "--iam-cache-disable", "--health", health}
	if o.tls {
		if err := s.useTLS(dir, address); err != nil {
			return nil, err
		}
	}
	s.health = s.Endpoint + health
	s.args = append(s.args, "posix")
	if o.versioning {
		s.args = append(s.args, "--versioning-dir", versions)
	}
	if o.sidecar {
		s.args = append(s.args, "--sidecar", sidecar)
	}
	s.args = append(s.args, s.Dir)
	if err := s.StartServer(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.fill(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// useTLS makes the server's certificates and switches its address to HTTPS.
func (s *S3Server) useTLS(dir, address string) error {
	files, err := writeTLS(dir)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("read %s: no certificate in it", files.CA)
	}
	s.Endpoint, s.CAFile = "https://"+address, files.CA
	s.args = append(s.args, "--cert", files.Cert, "--key", files.Key)
	s.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}
	return nil
}

// fill creates the accounts and the buckets that the options ask for.
func (s *S3Server) fill(ctx context.Context, o s3Options) error {
	for _, a := range o.accounts {
		if err := s.admin(ctx, "create-user", "--access", a.access, "--secret", a.secret, "--role", a.role); err != nil {
			return err
		}
	}
	for _, name := range o.buckets {
		if err := s.admin(ctx, "create-bucket", "--owner", s.AccessKey, "--bucket", name); err != nil {
			return err
		}
	}
	return nil
}

// admin runs one of the server's own administration commands against it.
func (s *S3Server) admin(ctx context.Context, args ...string) error {
	program, err := FindTool("versitygw")
	if err != nil {
		return err
	}
	full := append([]string{"admin", "--endpoint-url", s.Endpoint, "--region", s.Region, "--allow-insecure"}, args...)
	cmd := exec.CommandContext(ctx, program, full...)
	cmd.Env = append(os.Environ(), "ADMIN_ACCESS_KEY="+s.AccessKey, "ADMIN_SECRET_KEY="+s.SecretKey)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run versitygw admin %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// StartServer starts the server again after StopServer, on the same address, and waits until it answers.
func (s *S3Server) StartServer(ctx context.Context) error {
	program, err := FindTool("versitygw")
	if err != nil {
		return err
	}
	env := []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	if s.process, err = startProcess(ctx, underUs(), s.LogFile, env, program, s.args...); err != nil {
		return err
	}
	if err := s.process.waitReady(ctx, s.ping); err != nil {
		return fmt.Errorf("start the S3 server at %s: %w\n%s", s.Endpoint, err, tail(s.LogFile))
	}
	return nil
}

// ping reports whether the server answers its health check.
func (s *S3Server) ping(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.health, http.NoBody)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		err = fmt.Errorf("health check: %s", response.Status)
	}
	return errors.Join(err, response.Body.Close())
}

// StopServer kills the server: it keeps nothing in memory that a tidy end would save.
func (s *S3Server) StopServer() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.stop(syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop the S3 server at %s: %w", s.Endpoint, err)
	}
	s.process = nil
	return nil
}

// Close ends the server for good. What it stored stays for whoever owns the folder.
func (s *S3Server) Close() error { return s.StopServer() }

// Stop ends the server; connections to it are refused from then on.
func (s *S3Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.StopServer(); err != nil {
		t.Fatal(err)
	}
}

// Start starts the server again after Stop, on the same address.
func (s *S3Server) Start(t testing.TB) {
	t.Helper()
	if err := s.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
}
