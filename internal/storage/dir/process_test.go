package dir_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

// child starts this test binary again to run one test, in which inChild is then true, with
// the base directory in its environment.
func child(t *testing.T, base string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), "KEEPSET_TEST_BASE="+base)
	return cmd
}

func inChild() (base string, ok bool) {
	base = os.Getenv("KEEPSET_TEST_BASE")
	return base, base != ""
}

// runInOwnMounts runs the child where mounts are its own and end with it.
func runInOwnMounts(t *testing.T, base string) {
	t.Helper()
	cmd := child(t, base)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func mountTmpfs(t *testing.T, base, options string) {
	t.Helper()
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	require.NoError(t, syscall.Mount("tmpfs", base, "tmpfs", 0, options))
}

func TestFullFileSystem(t *testing.T) {
	base, ok := inChild()
	if !ok {
		runInOwnMounts(t, t.TempDir())
		return
	}
	mountTmpfs(t, base, "size=1m")
	s := open(t, base)
	put(t, s, "small")
	err := s.Put(t.Context(), "packs/large", bytes.NewReader(make([]byte, 2<<20)))
	require.ErrorIs(t, err, storage.ErrFull)
	require.ErrorContains(t, err, `put object "packs/large"`)
	require.ErrorContains(t, err, "enlarge the volume or prune")
	require.Equal(t, []string{"small"}, keys(t, s))
	require.Empty(t, temporaries(t, base), "the half-written file gives its room back")
	put(t, s, "small too")
}

func TestNoInodesLeft(t *testing.T) {
	base, ok := inChild()
	if !ok {
		runInOwnMounts(t, t.TempDir())
		return
	}
	mountTmpfs(t, base, "nr_inodes=4")
	s := open(t, base)
	put(t, s, "a")
	err := s.Put(t.Context(), "b/c/d/e", strings.NewReader("x"))
	require.ErrorIs(t, err, storage.ErrFull)
	require.Equal(t, []string{"a"}, keys(t, s))
}

func TestReadOnlyFileSystem(t *testing.T) {
	base, ok := inChild()
	if !ok {
		runInOwnMounts(t, t.TempDir())
		return
	}
	mountTmpfs(t, base, "")
	s := open(t, base)
	put(t, s, "k")
	require.NoError(t, syscall.Mount("", base, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	err := s.Put(t.Context(), "new", strings.NewReader("x"))
	require.ErrorIs(t, err, storage.ErrDenied)
	require.ErrorContains(t, err, "mount the volume writable")
	require.ErrorIs(t, s.Delete(t.Context(), "k"), storage.ErrDenied)
	require.Equal(t, []string{"k"}, keys(t, s))
}

func TestOtherUsersFiles(t *testing.T) {
	base, ok := inChild()
	if !ok {
		base = t.TempDir()
		put(t, open(t, base), "packs/ab")
		// A user other than root has to get to the base to be refused there.
		for d := base; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			require.NoError(t, os.Chmod(d, 0o755))
		}
		if os.Geteuid() != 0 {
			require.NoError(t, os.Chmod(filepath.Join(base, "packs"), 0))
			t.Cleanup(func() { require.NoError(t, os.Chmod(filepath.Join(base, "packs"), 0o700)) })
		}
		out, err := child(t, base).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	if os.Geteuid() == 0 {
		require.NoError(t, syscall.Setreuid(65534, 65534))
	}
	s := open(t, base)
	_, err := s.Get(t.Context(), "packs/ab", 0, -1)
	require.ErrorIs(t, err, storage.ErrDenied)
	require.ErrorContains(t, err, "run as the owner of the files")
	require.ErrorIs(t, s.Put(t.Context(), "packs/new", strings.NewReader("x")), storage.ErrDenied)
	_, err = s.Stat(t.Context(), "packs/ab")
	require.ErrorIs(t, err, storage.ErrDenied)
	require.ErrorIs(t, s.Delete(t.Context(), "packs/ab"), storage.ErrDenied)
	yields := 0
	for _, err := range s.List(t.Context(), "packs/") {
		require.ErrorIs(t, err, storage.ErrDenied)
		yields++
	}
	require.Equal(t, 1, yields, "what cannot be read is not passed over")
}

// killedBody says that half of it was read, and then waits for the end.
type killedBody struct{ io.ReadSeeker }

func (k killedBody) Read(p []byte) (int, error) {
	n, err := k.ReadSeeker.Read(p)
	if pos, _ := k.Seek(0, io.SeekCurrent); pos > 1<<20 {
		fmt.Println("half") //nolint:forbidigo // to the parent process
		select {}
	}
	return n, err
}

func TestKilledWriter(t *testing.T) {
	base, ok := inChild()
	if ok {
		t.Error(open(t, base).Put(t.Context(), "packs/ab", killedBody{bytes.NewReader(make([]byte, 4<<20))}))
		return
	}
	base = t.TempDir()
	cmd := child(t, base)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "half\n", line)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())

	left := temporaries(t, base)
	require.Len(t, left, 1, "the test must have caught the writer in the middle")
	s := open(t, base)
	require.Empty(t, keys(t, s))
	put(t, s, "packs/ab")
	require.Equal(t, left, temporaries(t, base), "it may be a living writer's")

	old := time.Now().Add(-25 * time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(base, ".keepset-tmp", left[0]), old, old))
	put(t, s, "packs/cd")
	put(t, open(t, base), "packs/ef")
	require.Empty(t, temporaries(t, base), "a later writer takes it away once it is a day old")
	require.Equal(t, []string{"packs/ab", "packs/cd", "packs/ef"}, keys(t, s))
}

func TestOneOfSeveralProcessesWins(t *testing.T) {
	const rounds, processes = 20, 4
	base, ok := inChild()
	if ok {
		s := open(t, base)
		for i := range rounds {
			body := fmt.Sprintf("process %d", os.Getpid())
			if err := s.Put(t.Context(), fmt.Sprintf("race/%d", i), strings.NewReader(body)); err == nil {
				fmt.Println("won", i) //nolint:forbidigo // to the parent process
			} else {
				require.ErrorIs(t, err, storage.ErrExists)
			}
		}
		return
	}
	base = t.TempDir()
	outputs := make([]bytes.Buffer, processes)
	var wg sync.WaitGroup
	for i := range outputs {
		cmd := child(t, base)
		cmd.Stdout = &outputs[i]
		wg.Go(func() {
			if err := cmd.Run(); err != nil {
				t.Errorf("%v: %s", err, outputs[i].String())
			}
		})
	}
	wg.Wait()
	wins := 0
	for i := range outputs {
		wins += strings.Count(outputs[i].String(), "won ")
	}
	require.Equal(t, rounds, wins)
}
