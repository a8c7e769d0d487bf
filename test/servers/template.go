package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// rootPassword is the administrator's password of every database server that the package starts.
const rootPassword = "keepset-root"

// accounts gives the administrator a password and lets him in over TCP.
const accounts = `ALTER USER root@localhost IDENTIFIED BY '` + rootPassword + `';
CREATE USER root@'%' IDENTIFIED BY '` + rootPassword + `';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
`

// product is one of the database servers that the package can start.
type product struct {
	name     string // for messages
	packages string // the part of the cache that holds it
	program  string // the server's name among the tools of that part
	share    string // folder of messages and system tables, below the packages' root
	template string // the part of the cache that holds its empty database; its number grows with every change to it
	config   string // settings of its own, as lines of my.cnf
	build    func(ctx context.Context, p product, root, dir string) error
}

// mariadbConfig are settings that all versions of MariaDB know.
const mariadbConfig = "innodb_log_file_size=16M\nskip_innodb_doublewrite\nlocal_infile=ON\nbinlog_format=ROW\naria_pagecache_buffer_size=16M\n"

// mariadb returns the MariaDB of Debian 12.
func mariadb() product {
	return product{
		name: "MariaDB", packages: bookworm, program: "mariadbd", share: "usr/share/mysql",
		template: "template-mariadb-" + bookworm + "-2", config: mariadbConfig, build: buildMariaDB,
	}
}

// mariadb105 returns the MariaDB of Debian 11.
func mariadb105() product {
	return product{
		name: "MariaDB 10.5", packages: bullseye, program: "mariadbd", share: "usr/share/mysql",
		template: "template-mariadb-" + bullseye + "-1", config: mariadbConfig, build: buildMariaDB,
	}
}

// mariadb118 returns the MariaDB of Debian 13.
func mariadb118() product {
	return product{
		name: "MariaDB 11.8", packages: trixie, program: "mariadbd", share: "usr/share/mariadb",
		template: "template-mariadb-" + trixie + "-1", config: mariadbConfig, build: buildMariaDB,
	}
}

// mysql returns the MySQL of Debian's unstable suite. It keeps the server's own defaults where MariaDB's differ.
func mysql() product {
	return product{
		name: "MySQL", packages: sid, program: "mysqld", share: "usr/share/mysql",
		template: "template-mysql-" + sid + "-1",
		config:   "innodb_redo_log_capacity=32M\ninnodb_doublewrite=OFF\nmysqlx=OFF\nsecure_file_priv=NULL\n",
		build:    buildMySQL,
	}
}

// places returns the settings that tell the server where its unpacked package lies.
func (p product) places(root string) string {
	return fmt.Sprintf("basedir=%[1]s/usr\nlc_messages_dir=%[1]s/%[2]s\n"+
		"character_sets_dir=%[1]s/%[2]s/charsets\nplugin_dir=%[1]s/usr/lib/mysql/plugin\n", root, p.share)
}

// binary returns the path of the server's program.
func (p product) binary() (string, error) {
	root, err := packageRoot(p.packages)
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "tools", p.program), nil
}

// emptyDatabase copies the product's empty database to dir, and builds it first when the cache does not hold it.
func (p product) emptyDatabase(ctx context.Context, dir string) error {
	template, err := once(ctx, p.template, func(ctx context.Context, dir string) error {
		root, err := packageRoot(p.packages)
		if err != nil {
			return err
		}
		return p.build(ctx, p, root, dir)
	})
	if err != nil {
		return err
	}
	return copyTree(dir, filepath.Join(template, "data"))
}

// buildMariaDB does what mariadb-install-db does, with a password for the administrator and no anonymous account.
func buildMariaDB(ctx context.Context, p product, root, dir string) error {
	script := bytes.NewBufferString("create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n" +
		"SET @skip_auth_anonymous=1;\nSET @current_hostname='localhost';\n")
	// The files' names as of 10.11 begin with mysql, those of 11 with mariadb; 10.5 has no sys schema.
	for _, pattern := range []string{
		"m*_system_tables.sql", "m*_performance_tables.sql", "m*_system_tables_data.sql",
		"maria_add_gis_sp_bootstrap.sql", "m*_sys_schema.sql",
	} {
		files, err := filepath.Glob(filepath.Join(root, p.share, pattern))
		if err != nil || len(files) > 1 || len(files) == 0 && pattern != "m*_sys_schema.sql" {
			return fmt.Errorf("read the system tables: %s is %d files in %s: %w", pattern, len(files), p.share, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("read the system tables: %w", err)
			}
			script.Write(data)
			script.WriteByte('\n')
		}
	}
	// The script above makes one administrator for each name of this machine, which would win over root@'%'.
	script.WriteString("DELETE FROM global_priv WHERE Host <> 'localhost';\nDELETE FROM proxies_priv WHERE Host <> 'localhost';\n" +
		// Without it root@'%' could not create the accounts of a dump, which give root@localhost the same.
		"INSERT INTO proxies_priv VALUES ('%', 'root', '', '', TRUE, '', NOW());\n" +
		"FLUSH PRIVILEGES;\n" + accounts)
	return p.initialise(ctx, root, dir, script, "--bootstrap", "--innodb-flush-log-at-trx-commit=0")
}

// buildMySQL runs the server's own initialisation. auto.cnf goes: it holds the identity that each copy must make for itself.
func buildMySQL(ctx context.Context, p product, root, dir string) error {
	script := filepath.Join(dir, "accounts.sql")
	sql := accounts + "GRANT PROXY ON ''@'' TO root@'%' WITH GRANT OPTION;\n"
	if err := os.WriteFile(script, []byte(sql), 0o600); err != nil {
		return err
	}
	if err := p.initialise(ctx, root, dir, nil, "--initialize-insecure", "--init-file="+script,
		"--innodb-flush-log-at-trx-commit=0"); err != nil {
		return err
	}
	return os.Remove(filepath.Join(dir, "data", "auto.cnf"))
}

// initialise runs the server once, to make its system tables in dir/data.
func (p product) initialise(ctx context.Context, root, dir string, stdin io.Reader, args ...string) error {
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	config := filepath.Join(dir, "my.cnf")
	text := "[mysqld]\nuser=root\ninnodb_buffer_pool_size=64M\ndatadir=" + data + "\n" + p.places(root) + p.config
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	program, err := p.binary()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--defaults-file=" + config}, args...)...)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initialise %s: %w\n%s", p.name, err, out)
	}
	return nil
}

// copyTree copies a folder of plain files. Holes are not kept: the files are small.
func copyTree(target, source string) error {
	return filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		to := filepath.Join(target, relative)
		if entry.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		return copyFile(to, path)
	})
}

func copyFile(target, source string) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
