// Command standins is what runs in containers of tests in the place of products
// that cannot run there. By its name it is one of their programs.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"keepset/test/standins/altibase"
	"keepset/test/standins/timesten"
	"keepset/test/standins/xtrabackup"
)

func main() {
	name := filepath.Base(os.Args[0])
	switch {
	case name == "ttenv":
		os.Exit(timesten.Programs(filepath.Dir(filepath.Dir(os.Args[0])), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case len(os.Args) == 3 && os.Args[1] == "timesten":
		fail(timesten.Serve(":8443", os.Args[2]))
	case name == xtrabackup.Name:
		os.Exit(xtrabackup.Run(os.Args[1:], os.Stdout, os.Stderr))
	case altibase.Has(name):
		os.Exit(altibase.Run(name, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	default:
		fail(fmt.Errorf("usage: standins timesten INSTANCE, or a program's name"))
	}
}

func fail(err error) {
	_, _ = fmt.Fprintf(os.Stderr, "standins: %v\n", err)
	os.Exit(1)
}
