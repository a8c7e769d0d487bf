package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"keepset/test/servers"
)

// contender is one tool, ready to do the job once and to clean up behind itself.
type contender struct {
	name string
	run  func(ctx context.Context) (measurement, error)
}

// setName is what our backups of the source are called.
const setName = "bench"

// tools finds programs of the cache by name.
func tools(names ...string) (map[string]string, error) {
	paths := map[string]string{}
	for _, name := range names {
		path, err := servers.FindTool(name)
		if err != nil {
			return nil, err
		}
		paths[name] = path
	}
	return paths, nil
}

// dumpContenders returns the dumps, the vendor's pipe first: it is what the others are measured by.
func (b *bench) dumpContenders() ([]contender, error) {
	t, err := tools("mariadb-dump", "zstd", "mydumper")
	if err != nil {
		return nil, err
	}
	contenders := []contender{
		b.dump("mariadb-dump | zstd -1", func(dir string) []pipeline {
			return []pipeline{b.dumpPipe(t, filepath.Join(dir, "dump.sql.zst"))}
		}),
		b.dump("mydumper -c", func(dir string) []pipeline { return []pipeline{b.mydumper(t, dir)} }),
	}
	if b.peersOnly {
		return contenders, nil
	}
	if err := b.haveBinaries(); err != nil {
		return nil, err
	}
	return append(contenders,
		b.dump("backup run", func(dir string) []pipeline {
			return []pipeline{b.backupInit(dir), b.backupRun(dir)}
		}),
		b.dump("backup run --no-extra-verify", func(dir string) []pipeline {
			return []pipeline{b.backupInit(dir), b.backupRun(dir, "--no-extra-verify")}
		}),
	), nil
}

// dump makes a contender of the pipelines that dump into an empty folder. The last pipeline is the one that counts.
func (b *bench) dump(name string, pipelines func(dir string) []pipeline) contender {
	return contender{name: name, run: func(ctx context.Context) (m measurement, err error) {
		dir, err := os.MkdirTemp(b.dir, "dump-")
		if err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if m, err = lastOf(ctx, pipelines(dir)); err != nil {
			return m, err
		}
		m.size, err = sizeOf(dir)
		return m, err
	}}
}

// lastOf runs pipelines one after the other and returns what the last one took.
func lastOf(ctx context.Context, pipelines []pipeline) (m measurement, err error) {
	for _, p := range pipelines {
		if m, err = measure(ctx, p); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (b *bench) dumpPipe(t map[string]string, file string) pipeline {
	return pipeline{
		{
			program: t["mariadb-dump"], env: []string{"MYSQL_PWD=" + b.source.Password},
			args: append(login(b.source), "--single-transaction", "--quick", "--routines", "--events", "--databases", database),
		},
		{program: t["zstd"], args: []string{"-1", "-q", "-o", file}},
	}
}

func (b *bench) mydumper(t map[string]string, dir string) pipeline {
	args := append(login(b.source), "--password="+b.source.Password, "--database="+database, "--outputdir="+dir,
		"--threads="+strconv.Itoa(b.threads), "--compress", "--routines", "--events", "--triggers", "--rows=100000")
	return pipeline{{program: t["mydumper"], args: args}}
}

// login returns the arguments by which the vendors' tools reach a server.
func login(s *servers.MySQL) []string {
	return []string{"--host=" + s.Host, "--port=" + strconv.Itoa(s.Port), "--user=" + s.User}
}

// haveBinaries fails when ours are not built.
func (b *bench) haveBinaries() error {
	for _, name := range []string{"backup", "restore"} {
		if _, err := os.Stat(filepath.Join(b.bin, name)); err != nil {
			return fmt.Errorf("find our binaries: %w: run 'make build', or give -peers-only", err)
		}
	}
	return nil
}

func (b *bench) backupInit(dir string) pipeline {
	return pipeline{{program: filepath.Join(b.bin, "backup"), args: []string{"init", "--repository", "file://" + dir}}}
}

func (b *bench) backupRun(dir string, extra ...string) pipeline {
	args := append([]string{
		"run", "--repository", "file://" + dir, "--set", setName, "--database", database,
		"--source", "mysql://" + b.source.User + "@" + b.source.Addr, "--connections", strconv.Itoa(b.threads),
	}, extra...)
	return pipeline{{
		program: filepath.Join(b.bin, "backup"), args: args,
		env: []string{"KEEPSET_SOURCE_PASSWORD=" + b.source.Password},
	}}
}

// loadContenders dumps the source once with each tool and returns the loads of these dumps, myloader first.
func (b *bench) loadContenders(ctx context.Context) ([]contender, error) {
	t, err := tools("mariadb", "mariadb-dump", "zstd", "mydumper", "myloader")
	if err != nil {
		return nil, err
	}
	theirs, ours, pipe := filepath.Join(b.dir, "mydumper"), filepath.Join(b.dir, "repository"), filepath.Join(b.dir, "dump.sql.zst")
	if _, err := measure(ctx, b.mydumper(t, theirs)); err != nil {
		return nil, err
	}
	contenders := []contender{b.load("myloader", func(s *servers.MySQL) pipeline {
		args := append(login(s), "--password="+s.Password, "--directory="+theirs, "--threads="+strconv.Itoa(b.threads))
		return pipeline{{program: t["myloader"], args: args}}
	})}
	if b.slow {
		if _, err := measure(ctx, b.dumpPipe(t, pipe)); err != nil {
			return nil, err
		}
		contenders = append(contenders, b.load("zstd -d | mariadb", func(s *servers.MySQL) pipeline {
			return pipeline{
				{program: t["zstd"], args: []string{"-d", "-q", "-c", pipe}},
				{program: t["mariadb"], args: login(s), env: []string{"MYSQL_PWD=" + s.Password}},
			}
		}))
	}
	if b.peersOnly {
		return contenders, nil
	}
	if _, err := lastOf(ctx, []pipeline{b.backupInit(ours), b.backupRun(ours)}); err != nil {
		return nil, err
	}
	return append(contenders, b.load("restore load", func(s *servers.MySQL) pipeline {
		return pipeline{{
			program: filepath.Join(b.bin, "restore"),
			args: []string{
				"load", "--repository", "file://" + ours, "--set", setName, "--ordinal", "0", "--database", database,
				"--target", "mysql://" + s.User + "@" + s.Addr,
			},
			env: []string{"KEEPSET_TARGET_PASSWORD=" + s.Password},
		}}
	})), nil
}

// load makes a contender of a pipeline that loads into a server, each time into a new one.
func (b *bench) load(name string, load func(*servers.MySQL) pipeline) contender {
	return contender{name: name, run: func(ctx context.Context) (m measurement, err error) {
		dir, err := os.MkdirTemp(b.dir, "load-")
		if err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		s, err := servers.StartMariaDB(ctx, dir, serverConfig())
		if err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		syscall.Sync()
		if m, err = measure(ctx, load(s)); err != nil {
			return m, err
		}
		return m, b.compareWithSource(ctx, s)
	}}
}
