package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes a command's result: value as one JSON document with --json,
// otherwise whatever text writes.
func (a *App) Print(value any, text func(w io.Writer) error) error {
	if a.global.json {
		enc := json.NewEncoder(a.Out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(value); err != nil {
			return fmt.Errorf("write result to standard output: %w", err)
		}
		return nil
	}
	if err := text(a.Out); err != nil {
		return fmt.Errorf("write result to standard output: %w", err)
	}
	return nil
}

// Table writes rows under a header, in columns. A cell is one line.
func Table(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		if _, err := fmt.Fprintln(tw, strings.TrimRight(strings.Join(row, "\t"), "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// Bytes writes a size as people read it: 1.5 GiB.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, exponent := float64(n), -1
	for value >= unit && exponent < 5 {
		value /= unit
		exponent++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[exponent])
}

// Count writes a number with its digits in groups: 1,234,567.
func Count(n int64) string {
	s := fmt.Sprintf("%d", n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Time writes a point in time in UTC, to the second.
func Time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// Age writes how long ago something was, to one or two units.
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// jsonError is the form of an error with --json.
type jsonError struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
}

// printError writes the one line (or one JSON document) that says why.
func (a *App) printError(err error, code int) {
	text := oneLine(err.Error())
	if a.global.json {
		doc, encErr := json.Marshal(jsonError{Error: text, Code: code})
		if encErr == nil {
			text = string(doc)
		}
		_, _ = fmt.Fprintln(a.Err, text) // nowhere left to say that standard error is gone
		return
	}
	_, _ = fmt.Fprintf(a.Err, "%s: %s\n", a.Name, text)
}

// oneLine joins the lines of a joined error, so that an error stays one line
// in a log and in a termination message.
func oneLine(s string) string {
	fields := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(fields, "; ")
}
