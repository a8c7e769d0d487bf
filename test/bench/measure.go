package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// command is one program of a pipeline.
type command struct {
	program string
	args    []string
	env     []string // in addition to this process's own
	dir     string
}

// pipeline is a row of programs, each reading what the one before it writes. The last one's standard output is a file
// when its command line says so, else it is shown if it fails.
type pipeline []command

// measurement is what one run of a pipeline took.
type measurement struct {
	seconds float64
	rss     int64 // peak resident memory of all its programs, in bytes
	size    int64 // of what it wrote, in bytes; 0 where that is not asked
}

// measure runs a pipeline. Every program must succeed.
func measure(ctx context.Context, p pipeline) (measurement, error) {
	begin := time.Now()
	commands := make([]*exec.Cmd, len(p))
	outputs := make([]strings.Builder, len(p))
	var previous *os.File
	var failure error
	for i, c := range p {
		cmd := exec.CommandContext(ctx, c.program, c.args...)
		cmd.Env, cmd.Dir = append(os.Environ(), c.env...), c.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stderr, cmd.Stdout = &outputs[i], &outputs[i]
		read, write := previous, (*os.File)(nil)
		if read != nil {
			cmd.Stdin = read
		}
		previous = nil
		if i < len(p)-1 {
			var err error
			if previous, write, err = os.Pipe(); err != nil {
				return measurement{}, err
			}
			cmd.Stdout = write
		}
		if err := cmd.Start(); err != nil {
			failure = errors.Join(failure, fmt.Errorf("start %s: %w", c.program, err))
		} else {
			commands[i] = cmd
		}
		// The programs hold the ends of the pipe now; ours would keep them from seeing its end.
		for _, end := range []*os.File{read, write} {
			if end != nil {
				failure = errors.Join(failure, end.Close())
			}
		}
	}
	var m measurement
	for i, cmd := range commands {
		if cmd == nil {
			continue
		}
		if err := cmd.Wait(); err != nil {
			failure = errors.Join(failure, fmt.Errorf("run %s: %w\n%s", filepath.Base(p[i].program), err, outputs[i].String()))
		}
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			m.rss += usage.Maxrss << 10
		}
	}
	m.seconds = time.Since(begin).Seconds()
	return m, failure
}

// printTable prints one line for each contender; the first one's median is the 1.00 of the last column.
func printTable(job string, contenders []contender, results [][]measurement) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%s\tmin s\tmedian s\tmax s\tpeak MiB\tMB written\trelative\t\n", job)
	var base float64
	for i, c := range contenders {
		seconds := make([]float64, 0, len(results[i]))
		var rss int64
		for _, m := range results[i] {
			seconds = append(seconds, m.seconds)
			rss = max(rss, m.rss)
		}
		slices.Sort(seconds)
		middle := median(seconds)
		if i == 0 {
			base = middle
		}
		size := "-"
		if n := results[i][0].size; n > 0 {
			size = fmt.Sprintf("%.0f", float64(n)/1e6)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.0f\t%s\t%.2f\t\n", c.name, seconds[0], middle, seconds[len(seconds)-1],
			float64(rss)/(1<<20), size, middle/base)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// median returns the middle of a sorted, non-empty list.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
