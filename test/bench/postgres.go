package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"keepset/test/servers"
)

// postgresConfig is how durable PostgreSQL is by default, with memory for the data.
func postgresConfig() servers.PostgresOption {
	return servers.WithPostgresConfig("fsync=on", "full_page_writes=on", "shared_buffers=2GB", "max_wal_size=4GB", "maintenance_work_mem=256MB")
}

// postgres compares dumps, loads and base backups of a PostgreSQL server, whose tables are like sysbench's.
func (b *bench) postgres(ctx context.Context) (err error) {
	s, err := servers.StartPostgres15(ctx, filepath.Join(b.dir, "postgres"), postgresConfig())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	size, err := b.fillPostgres(ctx, s)
	if err != nil {
		return err
	}
	fmt.Printf("filled PostgreSQL 15: %d tables of %d rows, %d MB with their indexes\n", b.tables, b.rows, size/1e6)
	if err := b.haveBinaries(); err != nil {
		return err
	}
	t, err := tools("zstd")
	if err != nil {
		return err
	}
	p := &postgresBench{bench: b, source: s, zstd: t["zstd"]}
	if err := b.compare(ctx, "postgres dump", p.dumps()); err != nil {
		return err
	}
	if err := b.compare(ctx, "postgres files", p.bases()); err != nil || b.dumpOnly {
		return err
	}
	contenders, err := p.loads(ctx)
	if err != nil {
		return err
	}
	return b.compare(ctx, "postgres load", contenders)
}

func (b *bench) fillPostgres(ctx context.Context, s *servers.Postgres) (size int64, err error) {
	if _, err := s.Ask(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return 0, err
	}
	for i := range b.tables {
		name := "sbtest" + strconv.Itoa(i+1)
		for _, sql := range []string{
			"CREATE TABLE " + name + " (id int PRIMARY KEY, k int NOT NULL, c text NOT NULL, pad text NOT NULL)",
			fmt.Sprintf("INSERT INTO %s SELECT g, (random() * %d)::int, c.c, left(c.c, 59) FROM generate_series(1, %d) g, LATERAL (SELECT string_agg(lpad((random() * 99999999999)::bigint::text, 11, '0'), '-') AS c "+
				"FROM generate_series(g * 0 + 1, 10)) c", name, b.rows, b.rows),
			"CREATE INDEX ON " + name + " (k)",
		} {
			if _, err := s.Ask(ctx, database, sql); err != nil {
				return 0, err
			}
		}
	}
	for _, sql := range []string{"VACUUM ANALYZE", "CHECKPOINT"} {
		if _, err := s.Ask(ctx, database, sql); err != nil {
			return 0, err
		}
	}
	text, err := s.Ask(ctx, database, "SELECT pg_database_size('"+database+"')")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// postgresBench are the contenders for one server.
type postgresBench struct {
	*bench
	source *servers.Postgres
	zstd   string
}

// vendor is one of the server's own programs.
func (p *postgresBench) vendor(s *servers.Postgres, program string, args ...string) command {
	args = append([]string{"--host=" + s.Host, "--port=" + strconv.Itoa(s.Port), "--username=" + s.User}, args...)
	return command{program: filepath.Join(s.Programs, program), args: args, env: []string{"PGPASSWORD=" + s.Password}}
}

func (p *postgresBench) pgDump(dir string) pipeline {
	return pipeline{p.vendor(p.source, "pg_dump", "--format=directory", "--jobs="+strconv.Itoa(p.threads), "--compress=1", "--file="+filepath.Join(dir, "dump"), database)}
}

func (p *postgresBench) backup(dir string, extra ...string) pipeline {
	args := append([]string{
		"run", "--repository", "file://" + dir, "--set", setName, "--source", "postgres://" + p.source.User + "@" + p.source.Addr,
		"--connections", strconv.Itoa(p.threads), "--postgres-programs", p.source.Programs,
	}, extra...)
	return pipeline{{program: filepath.Join(p.bin, "backup"), args: args, env: []string{"KEEPSET_SOURCE_PASSWORD=" + p.source.Password}}}
}

func (p *postgresBench) dumps() []contender {
	return []contender{
		p.dump("pg_dump -Fd -j2 -Z1", func(dir string) []pipeline { return []pipeline{p.pgDump(dir)} }),
		p.dump("backup run", func(dir string) []pipeline {
			return []pipeline{p.backupInit(dir), p.backup(dir, "--database", database)}
		}),
		p.dump("backup run --no-extra-verify", func(dir string) []pipeline {
			return []pipeline{p.backupInit(dir), p.backup(dir, "--database", database, "--no-extra-verify")}
		}),
	}
}

func (p *postgresBench) bases() []contender {
	return []contender{
		p.dump("pg_basebackup | zstd -1 -T2", func(dir string) []pipeline {
			return []pipeline{{
				p.vendor(p.source, "pg_basebackup", "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast"),
				{program: p.zstd, args: []string{"-1", "-T2", "-q", "-o", filepath.Join(dir, "base.tar.zst")}},
			}}
		}),
		p.dump("backup run --method physical", func(dir string) []pipeline {
			return []pipeline{p.backupInit(dir), p.backup(dir, "--method", "physical")}
		}),
		p.dump("the same --no-extra-verify", func(dir string) []pipeline {
			return []pipeline{p.backupInit(dir), p.backup(dir, "--method", "physical", "--no-extra-verify")}
		}),
	}
}

// loads dumps the source once with each tool and returns the loads of these dumps.
func (p *postgresBench) loads(ctx context.Context) ([]contender, error) {
	kept := filepath.Join(p.dir, "postgres-kept")
	ours := filepath.Join(kept, "ours")
	if err := os.MkdirAll(ours, 0o700); err != nil {
		return nil, err
	}
	if _, err := lastOf(ctx, []pipeline{p.pgDump(kept), p.backupInit(ours), p.backup(ours, "--database", database)}); err != nil {
		return nil, err
	}
	return []contender{
		p.into("pg_restore -j2", func(s *servers.Postgres) pipeline {
			return pipeline{p.vendor(s, "pg_restore", "--create", "--dbname=postgres", "--jobs="+strconv.Itoa(p.threads), filepath.Join(kept, "dump"))}
		}),
		p.into("restore load", func(s *servers.Postgres) pipeline {
			return pipeline{{program: filepath.Join(p.bin, "restore"), args: []string{
				"load", "--repository", "file://" + ours, "--set", setName, "--ordinal", "0", "--database", database,
				"--target", "postgres://" + s.User + "@" + s.Addr, "--connections", strconv.Itoa(p.threads),
			}, env: []string{"KEEPSET_TARGET_PASSWORD=" + s.Password}}}
		}),
	}, nil
}

// into makes a contender of a pipeline that loads into a server, each time into a new one, and compares it.
func (p *postgresBench) into(name string, load func(*servers.Postgres) pipeline) contender {
	return contender{name: name, run: func(ctx context.Context) (m measurement, err error) {
		dir, err := os.MkdirTemp(p.dir, "load-")
		if err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		s, err := servers.StartPostgres15(ctx, dir, postgresConfig())
		if err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		if m, err = measure(ctx, load(s)); err != nil {
			return m, err
		}
		for i := range p.tables {
			const sum = "SELECT count(*) || ' ' || coalesce(sum(hashtext(t::text)::bigint), 0) FROM sbtest%d t"
			want, err := p.source.Ask(ctx, database, fmt.Sprintf(sum, i+1))
			if err != nil {
				return m, err
			}
			got, err := s.Ask(ctx, database, fmt.Sprintf(sum, i+1))
			if err != nil {
				return m, err
			}
			if got != want {
				return m, fmt.Errorf("compare sbtest%d: %s, the source has %s", i+1, got, want)
			}
		}
		return m, nil
	}}
}
