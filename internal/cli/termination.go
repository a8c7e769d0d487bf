package cli

import (
	"os"
	"path/filepath"
	"strings"
)

// terminationLimit is what the kubelet keeps of a termination message.
const terminationLimit = 4096

// SetMessage sets what the pod leaves as its termination message when the
// command succeeds; a failure leaves its error.
func (a *App) SetMessage(text string) { a.message = text }

// writeTermination leaves the message where the kubelet looks for it, so that
// `kubectl describe pod` shows the outcome without the log. Losing it loses
// nothing but convenience, hence only a warning.
func (a *App) writeTermination(err error) {
	path := a.Getenv("TERMINATION_LOG")
	if path == "" {
		if !a.InPod() {
			return
		}
		path = "/dev/termination-log"
	}
	text := a.message
	if err != nil {
		text = oneLine(err.Error())
	}
	if text == "" {
		return
	}
	if len(text) > terminationLimit {
		text = strings.ToValidUTF8(text[:terminationLimit], "")
	}
	if err := os.WriteFile(filepath.Clean(path), []byte(text), 0o600); err != nil {
		a.Log.Warn("termination message not written", "path", path, "error", err)
	}
}
