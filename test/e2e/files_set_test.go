package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// filesSet is the StatefulSet www, whose files the test writes and reads where the
// cluster's volumes are: on this machine.
type filesSet struct {
	*shopSet
	// folder is the kustomization's.
	folder string
}

// filesOptions shape the set. UID 0 leaves open as whom its pods run, FSGroup 0
// whose new volumes are.
type filesOptions struct {
	Replicas, UID, FSGroup int
	Mode, Class            string
	Size                   string
	// component beside files.
	component string
	// settings of the ConfigMap keepset.
	settings map[string]string
}

// newFilesSet installs the set, and the overlay files as it is shipped, in a
// namespace with the given pod security beside that of the store.
func newFilesSet(t *testing.T, security string, o filesOptions) *filesSet {
	t.Helper()
	store := bareShop(t)
	store.startS3()
	s := &filesSet{shopSet: store.beside("pod-security.kubernetes.io/enforce=" + security)}
	s.apply(render(t, "testdata/files.yaml", o))
	s.apply(s.secrets())
	settings := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keepset}\ndata:\n  KEEPSET_SET: www\n"
	for k, v := range o.settings {
		settings += fmt.Sprintf("  %s: %q\n", k, v)
	}
	s.folder = s.overlay(shopOptions{shipped: "files", component: o.component, patches: []string{settings, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: keepset-seed}
spec:
  egress:
    - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}, {port: 7070, protocol: TCP}]
`}})
	s.reader().follow(filesPage, "Install")
	s.keepset("backup", "init", "--repository", s.repository)
	s.running(o.Replicas)
	return s
}

// reader follows the page in the test's namespace.
func (s *filesSet) reader() *reader {
	s.t.Helper()
	r := s.readerOf("files", s.folder, "")
	r.names = strings.NewReplacer("-n default ", "-n "+s.ns+" ", "deploy/cronjob/overlays/files", s.folder)
	return r
}

// running waits until exactly so many replicas are there, and Ready.
func (s *filesSet) running(replicas int) {
	s.t.Helper()
	s.until(5*time.Minute, fmt.Sprintf("%d replicas", replicas), func() bool {
		list, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=www"})
		return err == nil && len(list.Items) == replicas && !slices.ContainsFunc(list.Items, func(p corev1.Pod) bool { return !ready(&p) })
	})
}

// scale scales the set and waits.
func (s *filesSet) scale(replicas int) {
	s.t.Helper()
	s.kubectl("scale", "statefulset", "www", fmt.Sprintf("--replicas=%d", replicas))
	s.running(replicas)
}

// fuzzy consents to files of pods that run.
func (s *filesSet) fuzzy() {
	s.t.Helper()
	s.kubectl("patch", "configmap", "keepset-backup", "--type=merge", "-p", `{"data":{"KEEPSET_FUZZY":"true"}}`)
}

// dir is where an ordinal's files are on this machine.
func (s *filesSet) dir(ordinal int) string {
	s.t.Helper()
	volume := s.claim(fmt.Sprintf("data-www-%d", ordinal)).volume
	pv, err := s.kube.CoreV1().PersistentVolumes().Get(s.t.Context(), volume, metav1.GetOptions{})
	require.NoError(s.t, err)
	require.NotNil(s.t, pv.Spec.HostPath)
	return pv.Spec.HostPath.Path
}

// plant fills an ordinal's claim with so many small files and one of every kind
// that its owner can make; as root, also those that only root can.
func (s *filesSet) plant(ordinal, files int, uid int) {
	t, root := s.t, s.dir(ordinal)
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(ordinal), 5))
	asRoot := uid == 0
	owner := func(i int) int {
		if asRoot {
			return 1000 + i%3
		}
		return uid
	}
	for i := range files {
		dir := fmt.Sprintf("%s/%d", root, i/50)
		if i%50 == 0 {
			require.NoError(t, os.Mkdir(dir, 0o750))
			require.NoError(t, os.Chown(dir, owner(i), owner(i)))
		}
		path := fmt.Sprintf("%s/%d", dir, i)
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat(fmt.Sprintf("file %d of %d\n", i, ordinal), r.IntN(200))), 0o640))
		require.NoError(t, os.Chown(path, owner(i), owner(i)))
	}
	odd := root + "/odd\nname\xff"
	require.NoError(t, os.Mkdir(odd, 0o700))
	require.NoError(t, os.WriteFile(odd+"/executable", []byte("#!/bin/sh\n"), 0o755))
	require.NoError(t, os.Link(odd+"/executable", odd+"/hard link"))
	require.NoError(t, os.Symlink("/etc/passwd", odd+"/symbolic link"))
	require.NoError(t, os.WriteFile(odd+"/sparse", []byte("begin"), 0o600))
	f, err := os.OpenFile(odd+"/sparse", os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("end"), 64<<20)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, unix.Setxattr(odd+"/executable", "user.keepset", []byte("\x00value"), 0))
	require.NoError(t, unix.Mkfifo(odd+"/fifo", 0o620))
	require.NoError(t, os.Mkdir(odd+"/empty", 0o555))
	if asRoot {
		require.NoError(t, unix.Mknod(odd+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	}
	require.NoError(t, filepath.WalkDir(odd, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, owner(len(path)), owner(0))
	}))
	if asRoot {
		require.NoError(t, unix.Chmod(odd+"/executable", 0o6755))
		require.NoError(t, os.Chown(root, 1000, 1001))
		require.NoError(t, unix.Chmod(root, 0o3770))
	}
	s.age(root)
}

// age sets all times into the past: a file that was written a moment ago is read
// again next time.
func (s *filesSet) age(root string) {
	s.t.Helper()
	past := unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano())
	require.NoError(s.t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{past, past}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// tree is an ordinal's tree, everything that a backup holds of it, a line each.
// The root's time is left out: its owner may be another.
func (s *filesSet) tree(ordinal int) []string { return s.treeAt(s.dir(ordinal)) }

func (s *filesSet) treeAt(root string) []string {
	t := s.t
	t.Helper()
	var lines []string
	names := map[uint64]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q mode %o owner %d:%d links %d", strings.TrimPrefix(path, root), st.Mode, st.Uid, st.Gid, st.Nlink)
		if path != root {
			line += fmt.Sprintf(" time %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		if first, ok := names[st.Ino]; ok && !d.IsDir() {
			line += fmt.Sprintf(" is %q", first)
		}
		names[st.Ino] = strings.TrimPrefix(path, root)
		attributes := make([]byte, 4096)
		n, err := unix.Llistxattr(path, attributes)
		if err != nil {
			return err
		}
		for name := range strings.SplitSeq(strings.Trim(string(attributes[:n]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			if n, err := unix.Lgetxattr(path, name, value); err == nil && name != "" {
				line += fmt.Sprintf(" %s=%q", name, value[:n])
			}
		}
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to " + target
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d sha256 %x sparse %t", st.Size, sha256.Sum256(data), st.Blocks*512 < st.Size-1<<20)
		default:
			line += fmt.Sprintf(" device %d", st.Rdev)
		}
		lines = append(lines, line)
		return nil
	}))
	slices.Sort(lines)
	return lines
}

// same compares an ordinal's tree with what it was.
func (s *filesSet) same(want []string, ordinal int) {
	s.t.Helper()
	got := s.tree(ordinal)
	if !slices.Equal(want, got) {
		a, b := difference(want, got), difference(got, want)
		require.Fail(s.t, "trees differ", "%d of %d lines are missing, such as %.600q; %d are new, such as %.600q", len(a), len(want), a, len(b), b)
	}
}

// difference is what is in a and not in b.
func difference(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return slices.Contains(b, line) })
}

// replaced reports whether a claim is there, and another one than it was.
func (s *filesSet) replaced(name string, old claimed) bool {
	c, err := s.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
	return err == nil && c.DeletionTimestamp == nil && string(c.UID) != old.uid
}

// workers are the worker Jobs that are there.
func (s *filesSet) workers() string {
	s.t.Helper()
	return s.kubectl("get", "jobs,pods", "-l", "keepset/worker", "-o", "name")
}

// refused runs a backup that has to end with 64, at its first try, in these words.
func (s *filesSet) refused(job string, words ...string) {
	s.t.Helper()
	s.jobFrom("keepset-backup", job)
	require.False(s.t, s.waitJob(job, 5*time.Minute), s.logs(job))
	code, message, pods := s.ended(job)
	s.t.Logf("%d  %s", code, message)
	assert.EqualValues(s.t, 64, code)
	assert.Equal(s.t, 1, pods)
	for _, w := range words {
		assert.Contains(s.t, message, w)
	}
}
