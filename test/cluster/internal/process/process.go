// Package process starts the daemons of the cluster so that they outlive the
// command that started them, and stops exactly those.
//
// A [Set] is a directory of records, one per process. A process is known by
// its PID, the time it started and the boot it started in: a PID alone may
// long belong to somebody else. Nothing is ever found, or killed, by its name.
package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Set is the processes recorded in one directory, with their logs in another.
type Set struct {
	Records string // directory of NAME.json
	Logs    string // directory of NAME.log
}

// Spec says what to run.
type Spec struct {
	Name string   // unique in the set
	Path string   // the program's file
	Args []string // without the program's own name

	Env []string // KEY=value, added to the caller's environment
}

// Record identifies one started process.
type Record struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, field 22 of /proc/PID/stat
	Boot  string `json:"boot"`  // /proc/sys/kernel/random/boot_id
}

// Start runs the program in a session of its own, both outputs appended to its
// log, and records it. It returns as soon as the program runs.
func (s Set) Start(spec Spec) (Record, error) {
	for _, dir := range []string{s.Records, s.Logs} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return Record{}, fmt.Errorf("create directory for %s: %w", spec.Name, err)
		}
	}
	log, err := os.OpenFile(s.LogFile(spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Record{}, fmt.Errorf("open log of %s: %w", spec.Name, err)
	}
	defer func() { _ = log.Close() }() // the child holds its own descriptor

	cmd := exec.Command(spec.Path, spec.Args...) //nolint:noctx // the process must outlive this one
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	record, err := identify(spec.Name, cmd.Process.Pid)
	if err == nil {
		err = s.save(record)
	}
	if err != nil {
		// An unrecorded process could never be stopped again.
		return Record{}, errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	go func() { _ = cmd.Wait() }() // reap it, should it end before we do; Alive reports that
	return record, nil
}

// LogFile is where the named process writes.
func (s Set) LogFile(name string) string { return filepath.Join(s.Logs, name+".log") }

// All returns the recorded processes, dead or alive, in the order of their start.
func (s Set) All() ([]Record, error) {
	files, err := filepath.Glob(filepath.Join(s.Records, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list process records: %w", err)
	}
	var records []Record
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read process record: %w", err)
		}
		var r Record
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("read process record %s: %w", file, err)
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b Record) int {
		if a.Start != b.Start {
			return int(int64(a.Start) - int64(b.Start))
		}
		return a.PID - b.PID
	})
	return records, nil
}

// Stop ends the process, with SIGKILL if SIGTERM has not within grace, and
// forgets it. A process that is gone is no error.
func (s Set) Stop(r Record, grace time.Duration) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 10 * time.Second}} {
		if r.ended() {
			break
		}
		if err := syscall.Kill(r.PID, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("send %s to %s (pid %d): %w", step.signal, r.Name, r.PID, err)
		}
		for deadline := time.Now().Add(step.wait); !r.ended() && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if !r.ended() {
		return fmt.Errorf("stop %s: pid %d survives SIGKILL", r.Name, r.PID)
	}
	if err := os.Remove(s.file(r.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of %s: %w", r.Name, err)
	}
	return nil
}

// Tail returns the last lines of the named process's log, for error messages.
func (s Set) Tail(name string, lines int) string {
	data, err := os.ReadFile(s.LogFile(name))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (s Set) file(name string) string { return filepath.Join(s.Records, name+".json") }

// save writes the record so that a reader sees all of it or nothing.
func (s Set) save(r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of %s: %w", r.Name, err)
	}
	temp := s.file(r.Name) + ".tmp"
	if err := os.WriteFile(temp, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write record of %s: %w", r.Name, err)
	}
	return os.Rename(temp, s.file(r.Name))
}

// Alive tells whether the very process that was recorded still runs. A zombie
// does not.
func (r Record) Alive() bool {
	state, ours := r.state()
	return ours && state != "Z" && state != "X"
}

// ended tells whether the process is gone with all it held open. A process
// that is killed turns zombie with its first thread; the others, which still
// hold its sockets, end a little later.
func (r Record) ended() bool {
	state, ours := r.state()
	if !ours {
		return true
	}
	if state != "Z" && state != "X" {
		return false
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.PID))
	return err != nil || len(threads) <= 1
}

// state returns the letter of the process's state, and whether the process of
// that PID is the one that was recorded.
func (r Record) state() (state string, ours bool) {
	state, start, err := stat(r.PID)
	if err != nil || start != r.Start {
		return "", false
	}
	boot, err := bootID()
	return state, err == nil && boot == r.Boot
}

func identify(name string, pid int) (Record, error) {
	_, start, err := stat(pid)
	if err != nil {
		return Record{}, fmt.Errorf("identify %s: %w", name, err)
	}
	boot, err := bootID()
	if err != nil {
		return Record{}, fmt.Errorf("identify %s: %w", name, err)
	}
	return Record{Name: name, PID: pid, Start: start, Boot: boot}, nil
}

// stat returns state and start time of a process, see proc_pid_stat(5). The
// second field, the program's name in parentheses, may hold anything.
func stat(pid int) (state string, start uint64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	_, rest, ok := strings.Cut(string(data[bytes.LastIndexByte(data, ')')+1:]), " ")
	fields := strings.Fields(rest)
	const stateField, startField = 0, 19 // fields 3 and 22, counted from field 3
	if !ok || len(fields) <= startField {
		return "", 0, fmt.Errorf("parse /proc/%d/stat: too few fields", pid)
	}
	start, err = strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("parse /proc/%d/stat: %w", pid, err)
	}
	return fields[stateField], start, nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// ignoreExit drops the error that says how a process we killed ended.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}
