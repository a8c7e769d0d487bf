package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWarningsComeOnce(t *testing.T) {
	var out bytes.Buffer
	log := onceLogger(slog.New(slog.NewTextHandler(&out, nil)))
	for range 3 {
		log.Warn("the account may not look", "server", "db0")
		log.With("ordinal", 1).Warn("the account may not look", "server", "db0")
		log.Info("table loaded")
	}
	log.Warn("the account may not look", "server", "db1")
	assert.Equal(t, 3, strings.Count(out.String(), "level=WARN"), out.String())
	assert.Equal(t, 3, strings.Count(out.String(), "table loaded"), "only warnings")
}
