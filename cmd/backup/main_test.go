package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"keepset/internal/cli/clitest"
)

var program = clitest.Program{Name: "backup", Root: newRoot}

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"backup": main}) }

func TestScripts(t *testing.T) { program.Scripts(t) }

func TestReference(t *testing.T) { program.Reference(t, "../../docs/commands/backup.md") }
