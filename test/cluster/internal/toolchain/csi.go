package toolchain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Versions of what serves volumes beside the driver, from the go.mod files in csi.
const (
	ProvisionerVersion = "v5.3.0" // github.com/kubernetes-csi/external-provisioner
	SnapshotterVersion = "v8.6.0" // github.com/kubernetes-csi/external-snapshotter
)

// csi builds the programs that serve volumes: the driver of this project, and
// the sidecars and the controller that work with every driver. Each sidecar has
// a go.mod of its own, because its versions of Kubernetes's libraries are its own.
func (t Toolchain) csi(ctx context.Context) (map[string]string, error) {
	dir := func(module string) string { return filepath.Join(t.Source, "csi", module) }
	const provisioner, snapshotter = "github.com/kubernetes-csi/external-provisioner/v5/cmd/", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/"
	built := map[string]string{}
	for _, b := range []Binary{
		{Name: "csi-driver", Dir: dir("driver"), Package: ".", Whole: true},
		{Name: "csi-provisioner", Dir: dir("provisioner"), Package: provisioner + "csi-provisioner", LinkerFlags: "-X main.version=" + ProvisionerVersion},
		{Name: "snapshot-controller", Dir: dir("snapshotter"), Package: snapshotter + "snapshot-controller", LinkerFlags: "-X main.version=" + SnapshotterVersion},
		{Name: "csi-snapshotter", Dir: dir("snapshotter"), Package: snapshotter + "csi-snapshotter", LinkerFlags: "-X main.version=" + SnapshotterVersion},
	} {
		b.Arch = runtime.GOARCH
		file, err := t.Build(ctx, b)
		if err != nil {
			return nil, err
		}
		built[b.Name] = file
	}
	return built, nil
}

// snapshotCRDs returns the directory of the definitions of VolumeSnapshots,
// which the module of their clients ships.
func (t Toolchain) snapshotCRDs(ctx context.Context) (string, error) {
	dest := filepath.Join(t.Cache, "build", "snapshot-crds-"+SnapshotterVersion)
	if _, err := os.Stat(dest); err == nil {
		return dest, nil
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "github.com/kubernetes-csi/external-snapshotter/client/v8@"+SnapshotterVersion)
	cmd.Dir = filepath.Join(t.Source, "csi", "snapshotter")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("get the definitions of VolumeSnapshots: %w: %s", err, tail(out))
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("get the definitions of VolumeSnapshots: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(module.Dir, "config", "crd", "snapshot.storage.k8s.io_*.yaml"))
	if err == nil && len(files) != 3 {
		err = fmt.Errorf("%s has %d files for them, and 3 were expected", module.Dir, len(files))
	}
	if err != nil {
		return "", fmt.Errorf("get the definitions of VolumeSnapshots: %w", err)
	}
	temp := dest + ".tmp"
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return "", fmt.Errorf("keep the definitions of VolumeSnapshots: %w", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(temp, filepath.Base(file)), data, 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("keep the definitions of VolumeSnapshots: %w", err)
		}
	}
	if err := os.Rename(temp, dest); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keep the definitions of VolumeSnapshots: %w", err)
	}
	return dest, nil
}

// EBSFake builds the fake EC2 of the project's tests from its sources as they
// are, every time, and adds it to the programs.
func (t Toolchain) EBSFake(ctx context.Context, tools Tools) error {
	dest := filepath.Join(t.Cache, "bin", "ebsfake")
	temp := fmt.Sprintf("%s.%d", dest, os.Getpid()) // the one that runs is not written over
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", temp, "./test/ebsfake")
	cmd.Dir = filepath.Join(t.Source, "..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build ebsfake: %w: %s", err, tail(out))
	}
	tools.Programs["ebsfake"] = dest
	return os.Rename(temp, dest)
}
