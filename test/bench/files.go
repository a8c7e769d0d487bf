package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// smallFiles are how many small files the tree has beside the server's.
const smallFiles = 20_000

// restic is called with its cache beside the repository, so that both go at the end.
type resticIn struct{ program, dir string }

func (r resticIn) run(args ...string) pipeline {
	return pipeline{{program: r.program, args: args, env: []string{
		"RESTIC_REPOSITORY=" + filepath.Join(r.dir, "restic"), "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=" + filepath.Join(r.dir, "cache"),
	}}}
}

// defaultLog is the size of MariaDB's redo log unless it is said, as files finds it.
const defaultLog = 96 << 20

// shrinkLog gives the source the redo log of a server that nobody has tuned. Filling it went faster with a larger one,
// which would be a quarter of the tree.
func (b *bench) shrinkLog(ctx context.Context) error {
	db, err := b.source.Open()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // the statement's own result is checked
	if _, err := db.ExecContext(ctx, fmt.Sprintf("SET GLOBAL innodb_log_file_size = %d", defaultLog)); err != nil {
		return fmt.Errorf("shrink the redo log: %w", err)
	}
	return nil
}

// files compares backups and restores of a file tree: the files of the source's server, which is stopped, and many
// small ones. Restic is what the others are measured by. Our second contender checks as little as restic's peers do.
func (b *bench) files(ctx context.Context) error {
	tree := filepath.Join(b.dir, "tree")
	if err := b.plant(ctx, tree); err != nil {
		return err
	}
	if err := b.haveBinaries(); err != nil {
		return err
	}
	t, err := tools("restic", "zstd")
	if err != nil {
		return err
	}
	if err := b.compare(ctx, "files backup", b.savers(t, tree)); err != nil {
		return err
	}
	return b.keptFiles(ctx, t, tree)
}

// plant makes the tree.
func (b *bench) plant(ctx context.Context, tree string) error {
	copied := pipeline{{program: "cp", args: []string{"-a", "--sparse=always", b.source.DataDir, tree}}}
	if _, err := measure(ctx, copied); err != nil {
		return err
	}
	// The binary log holds sysbench's rows once more, and outweighs all else.
	logs, err := filepath.Glob(filepath.Join(tree, "binlog.0*"))
	if err != nil {
		return err
	}
	for _, log := range logs {
		if err := os.Remove(log); err != nil {
			return err
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range smallFiles {
		dir := filepath.Join(tree, "small", fmt.Sprint(i/100))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		content := make([]byte, 0, 16<<10)
		for len(content) < r.IntN(15<<10) {
			content = fmt.Appendf(content, "line %d of a file\n", r.IntN(1_000_000))
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), content, 0o644); err != nil {
			return err
		}
	}
	size, err := sizeOf(tree)
	fmt.Printf("file tree of %d MB, %d of its files small ones\n", size/1e6, smallFiles)
	return err
}

// savers return the first backups, each into an empty folder.
func (b *bench) savers(t map[string]string, tree string) []contender {
	return []contender{
		b.dump("restic backup", func(dir string) []pipeline {
			r := resticIn{t["restic"], dir}
			return []pipeline{r.run("init"), r.run("backup", "--quiet", tree)}
		}),
		b.dump("tar | zstd -1 -T2", func(dir string) []pipeline { return []pipeline{packed(t, tree, dir)} }),
		b.dump("backup run --method files", func(dir string) []pipeline {
			return []pipeline{b.backupInit(dir), b.backupFiles(dir, tree)}
		}),
		b.dump("the same --no-extra-verify", func(dir string) []pipeline {
			return []pipeline{b.backupInit(dir), b.backupFiles(dir, tree, "--no-extra-verify")}
		}),
	}
}

func packed(t map[string]string, tree, dir string) pipeline {
	return pipeline{
		{program: "tar", args: []string{"-C", tree, "-cf", "-", "."}},
		{program: t["zstd"], args: []string{"-1", "-T2", "-q", "-o", filepath.Join(dir, "tree.tar.zst")}},
	}
}

func (b *bench) backupFiles(dir, tree string, extra ...string) pipeline {
	args := append([]string{"run", "--repository", "file://" + dir, "--set", setName, "--method", "files", "--source", "file://" + tree}, extra...)
	return pipeline{{program: filepath.Join(b.bin, "backup"), args: args}}
}

// keptFiles compares what is done with one backup of each: another one of the unchanged tree, and restores.
func (b *bench) keptFiles(ctx context.Context, t map[string]string, tree string) error {
	kept := filepath.Join(b.dir, "kept")
	theirs, ours := resticIn{t["restic"], kept}, filepath.Join(kept, "ours")
	for _, dir := range []string{kept, ours} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	first := []pipeline{
		theirs.run("init"), theirs.run("backup", "--quiet", tree), packed(t, tree, kept), b.backupInit(ours), b.backupFiles(ours, tree),
	}
	if _, err := lastOf(ctx, first); err != nil {
		return err
	}
	if err := b.compare(ctx, "files unchanged", []contender{
		again("restic backup", theirs.run("backup", "--quiet", tree)),
		again("backup run --method files", b.backupFiles(ours, tree)),
	}); err != nil {
		return err
	}
	restic := func(to string) pipeline { return theirs.run("restore", "latest", "--quiet", "--target", to) }
	tar := func(to string) pipeline {
		return pipeline{
			{program: t["zstd"], args: []string{"-d", "-q", "-c", filepath.Join(kept, "tree.tar.zst")}},
			{program: "tar", args: []string{"-C", to, "-xpf", "-"}},
		}
	}
	load := func(to string) pipeline {
		return pipeline{{program: filepath.Join(b.bin, "restore"), args: []string{
			"load", "--repository", "file://" + ours, "--set", setName, "--ordinal", "0", "--target", "file://" + to,
		}}}
	}
	// Ours ends when the tree is on the disk, theirs when it is in memory.
	return b.compare(ctx, "files restore", []contender{
		b.unpack("restic restore", tree, tree, false, restic),
		b.unpack("the same, and sync", tree, tree, true, restic),
		b.unpack("zstd -d | tar", tree, "", false, tar),
		b.unpack("restore load", tree, "", false, load),
	})
}

// again is a contender that leaves nothing to clean up.
func again(name string, p pipeline) contender {
	return contender{name: name, run: func(ctx context.Context) (measurement, error) { return measure(ctx, p) }}
}

// unpack makes a contender of a pipeline that restores into a new folder, and perhaps has it written to the disk. What
// is then below it, in a folder of it that may be named, is compared with the tree.
//
// What was restored is emptied, and goes when the comparison ends: ext4 passes over every inode that was freed in the
// last minutes, one by one, whenever it makes a file near them, and whoever comes next would pay for it.
func (b *bench) unpack(name, tree, below string, synced bool, restore func(to string) pipeline) contender {
	return contender{name: name, run: func(ctx context.Context) (measurement, error) {
		to, err := os.MkdirTemp(b.dir, "restore-")
		if err != nil {
			return measurement{}, err
		}
		m, err := measure(ctx, restore(to))
		if err != nil {
			return m, err
		}
		if synced {
			more, err := measure(ctx, pipeline{{program: "sync", args: []string{"--file-system", to}}})
			if err != nil {
				return m, err
			}
			m.seconds += more.seconds
		}
		same := pipeline{{program: "diff", args: []string{"--recursive", "--no-dereference", tree, filepath.Join(to, below)}}}
		if _, err := measure(ctx, same); err != nil {
			return m, err
		}
		return m, empty(to)
	}}
}

// empty takes the content of all files of a tree.
func empty(tree string) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return os.Truncate(path, 0)
	})
}
