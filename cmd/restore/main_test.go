package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"keepset/internal/cli/clitest"
)

var program = clitest.Program{Name: "restore", Root: newRoot}

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"restore": main}) }

func TestScripts(t *testing.T) { program.Scripts(t) }

func TestReference(t *testing.T) { program.Reference(t, "../../docs/commands/restore.md") }
