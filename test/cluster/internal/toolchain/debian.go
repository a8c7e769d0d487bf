package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are what a node needs of Debian, with the libraries that a minimal
// system lacks.
var packages = []string{
	"etcd-server", "containerd", "crun", "libyajl2", "containernetworking-plugins", "debootstrap",
	"ipset", "libipset13", "iptables", "libip4tc2", "libip6tc2", "libxtables12", "libnftnl11", "libmnl0",
	"libnetfilter-conntrack3", "libnfnetlink0", "libseccomp2",
	"e2fsprogs", "libext2fs2", "libss2", "libcom-err2",
}

// debian unpacks the packages and returns their root directory.
func (t Toolchain) debian(ctx context.Context) (string, error) {
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	root := filepath.Join(t.Cache, "debian-node-"+hex.EncodeToString(sum[:])[:12])
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	t.Log.Info("downloading packages of Debian", "packages", packages)
	if err := os.MkdirAll(t.Cache, 0o755); err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	work, err := os.MkdirTemp(t.Cache, "tmp.debian-")
	if err != nil {
		return "", fmt.Errorf("create directory for packages: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // what stays behind does no harm
	debs := filepath.Join(work, "debs")
	if err := t.download(ctx, debs); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(work, "root")
	for _, file := range files {
		if err := run(ctx, "", "dpkg", "-x", file, unpacked); err != nil {
			return "", fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
	}
	if err := linkIPTables(ctx, unpacked); err != nil {
		return "", err
	}
	if err := os.Chmod(unpacked, 0o755); err != nil {
		return "", fmt.Errorf("set mode of unpacked packages: %w", err)
	}
	if err := os.Rename(unpacked, root); err != nil {
		return "", err
	}
	return root, keepNewest(filepath.Join(t.Cache, "debian-node-????????????"))
}

// download gets the packages into dir. Lists that are missing or out of date
// make the first try fail; they are fetched only then.
func (t Toolchain) download(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory for packages: %w", err)
	}
	get := append([]string{"-o", "APT::Sandbox::User=root", "download"}, packages...)
	if err := run(ctx, dir, "apt-get", get...); err == nil {
		return nil
	}
	if err := run(ctx, dir, "apt-get", "update"); err != nil {
		return fmt.Errorf("update package lists: %w", err)
	}
	if err := run(ctx, dir, "apt-get", get...); err != nil {
		return fmt.Errorf("download packages %s: %w", strings.Join(packages, " "), err)
	}
	return nil
}

// linkIPTables gives iptables its plain names, which on an installed system
// the alternatives do: on top of nftables, or of the old interface on a kernel
// without them.
func linkIPTables(ctx context.Context, root string) error {
	links := filepath.Join(root, "links")
	if err := os.MkdirAll(links, 0o755); err != nil {
		return fmt.Errorf("link iptables: %w", err)
	}
	tools := Tools{Debian: root}
	binary := filepath.Join(root, "usr/sbin/xtables-nft-multi")
	probe := exec.CommandContext(ctx, binary, "iptables", "-w", "-t", "nat", "-S")
	probe.Env = append(os.Environ(), tools.Env()...)
	if err := probe.Run(); err != nil {
		binary = filepath.Join(root, "usr/sbin/xtables-legacy-multi")
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			target := filepath.Join("..", "usr/sbin", filepath.Base(binary))
			if err := os.Symlink(target, filepath.Join(links, family+suffix)); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("link %s: %w", family+suffix, err)
			}
		}
	}
	return nil
}

// run runs a command; its output is in the error.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, args[0], err, tail(out))
	}
	return nil
}
