package testimages

import (
	"context"
	"io/fs"
	"path/filepath"
	"runtime"

	"keepset/test/cluster/internal/image"
	"keepset/test/cluster/internal/toolchain"
)

// StandIns is an image for containers of products that cannot run here: Debian,
// whose layer is the one of Postgres, and the program of test/standins under the
// names of theirs, with the account of TimesTen.
func (b Builder) StandIns(ctx context.Context) (Archive, error) {
	const name = "keepset-test/standins:1"
	binary, err := b.Toolchain.Build(ctx, toolchain.Binary{
		Name: "standins", Dir: filepath.Join(b.Toolchain.Source, "..", ".."), Package: "./test/standins", Tree: true, Arch: runtime.GOARCH,
	})
	if err != nil {
		return Archive{}, err
	}
	return b.cached(name, "2 "+binary, func(work, dest string) error {
		base, err := b.root(ctx, work, postgres())
		if err != nil {
			return err
		}
		content := map[string]image.File{
			"usr/local/bin/standins": {Source: binary, Mode: 0o755},
			"tt":                     {Mode: fs.ModeDir | 0o755},
			"etc/passwd":             {Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/bash\noracle:x:333:333::/tt/home/oracle:/bin/bash\n")},
			"etc/group":              {Mode: 0o644, Data: []byte("root:x:0:\noracle:x:333:\n")},
		}
		for _, program := range []string{"server", "isql", "is", "aexport", "iloader", "aku"} {
			content["opt/altibase/bin/"+program] = image.File{Mode: fs.ModeSymlink, Link: "/usr/local/bin/standins"}
		}
		content["usr/local/bin/xtrabackup"] = image.File{Mode: fs.ModeSymlink, Link: "/usr/local/bin/standins"}
		own, err := image.FilesLayer(filepath.Join(work, "own.tar"), false, content)
		if err != nil {
			return err
		}
		return image.WriteFile(dest, name, image.Image{
			Architecture: runtime.GOARCH,
			Layers:       []image.Layer{base, own},
			Config:       image.Config{Cmd: []string{"bash"}, Env: []string{"PATH=" + systemPath, "LANG=C.UTF-8"}},
		})
	})
}
