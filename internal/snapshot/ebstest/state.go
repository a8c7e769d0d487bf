package ebstest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keepset/internal/snapshot/ebstest/control"
)

// state is all that outlives the process. It is guarded by Server.mu.
type state struct {
	Volumes   map[string]*volume   `json:"volumes"`
	Snapshots map[string]*snapshot `json:"snapshots"`
	Instances map[string]*instance `json:"instances"`
	// Tokens are the client tokens that were used, by account, region and action.
	Tokens map[string]*token `json:"tokens"`
	// DeniedKeys are KMS keys that nobody has rights on.
	DeniedKeys map[string]bool `json:"deniedKeys"`
	// Roles are the accounts of the access keys of assumed roles.
	Roles map[string]string `json:"roles"`
	// Freezer is asked, over HTTP, to freeze the file systems of volumes.
	Freezer string `json:"freezer,omitempty"`
}

type volume struct {
	control.Place
	ID, Zone, Type           string
	SizeGiB                  int64
	IOPS, Throughput         int64
	Encrypted                bool
	KMSKey, Snapshot         string
	Rate                     int64
	Tags                     map[string]string
	Created, Ready           time.Time
	Outcome                  control.Outcome
	Copying                  bool
	Instance, Device, Status string
	Attached                 time.Time
	Root                     bool
	// Lineage is shared by what was made from one another.
	Lineage string
	Hidden  int
}

type snapshot struct {
	control.Place
	ID, Volume, Description string
	SizeGiB                 int64
	Encrypted               bool
	KMSKey                  string
	Tags                    map[string]string
	Started, Ready          time.Time
	Outcome                 control.Outcome
	Message                 string
	Lineage                 string
	Hidden                  int
	// Progress that was set on command, in percent.
	Progress int
	// Deleted while it was pending: it counts until it would be complete.
	Deleted bool
	// Image: an AMI is registered of it.
	Image bool
	// Copying: its image is not there yet.
	Copying bool
	// Direct: it is being written by the EBS direct API.
	Direct *direct
}

// direct is a snapshot between StartSnapshot and CompleteSnapshot.
type direct struct {
	Parent   string
	Timeout  time.Duration
	LastUsed time.Time
	// Written are the checksums of the blocks, in base64, by index; see journal.
	Written map[int32]string `json:"-"`
}

type instance struct {
	control.Place
	ID, Zone string
}

type token struct {
	// Parameters that it was used with.
	Parameters string
	Resource   string
}

const (
	stateFile   = "state.json"
	volumeDir   = "volumes"
	snapshotDir = "snapshots"
)

func loadState(dir string) (*state, error) {
	st := &state{
		Volumes: map[string]*volume{}, Snapshots: map[string]*snapshot{}, Instances: map[string]*instance{},
		Tokens: map[string]*token{}, DeniedKeys: map[string]bool{}, Roles: map[string]string{},
	}
	body, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fake ec2: read its state: %w", err)
	}
	if err := json.Unmarshal(body, st); err != nil {
		return nil, fmt.Errorf("fake ec2: its state in %s is damaged, remove the directory: %w", dir, err)
	}
	if err := st.sweep(dir); err != nil {
		return nil, err
	}
	for id, n := range st.Snapshots {
		if n.Direct == nil {
			continue
		}
		if n.Direct.Written, err = readJournal(filepath.Join(dir, snapshotDir, id+journalSuffix)); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// sweep forgets what the process was making when it ended, and removes files
// that belong to nothing.
func (st *state) sweep(dir string) error {
	maps.DeleteFunc(st.Volumes, func(_ string, v *volume) bool { return v.Copying })
	maps.DeleteFunc(st.Snapshots, func(_ string, s *snapshot) bool { return s.Copying })
	for _, sub := range []string{volumeDir, snapshotDir} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return fmt.Errorf("fake ec2: %w", err)
		}
		for _, entry := range entries {
			id := strings.TrimSuffix(strings.TrimSuffix(entry.Name(), ".img"), journalSuffix)
			if n := st.Snapshots[id]; st.Volumes[id] != nil || n != nil && !n.Deleted {
				continue
			}
			if err := os.Remove(filepath.Join(dir, sub, entry.Name())); err != nil {
				return fmt.Errorf("fake ec2: %w", err)
			}
		}
	}
	return nil
}

// save writes the state whole or not at all. The caller holds s.mu.
func (s *Server) save() error {
	body, err := json.Marshal(s.state)
	if err != nil {
		return fmt.Errorf("fake ec2: write its state: %w", err)
	}
	path := filepath.Join(s.options.Dir, stateFile)
	if err := os.WriteFile(path+".new", body, 0o644); err != nil {
		return fmt.Errorf("fake ec2: write its state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("fake ec2: write its state: %w", err)
	}
	return nil
}

func (s *Server) volumePath(id string) string {
	return filepath.Join(s.options.Dir, volumeDir, id+".img")
}

func (s *Server) snapshotPath(id string) string {
	return filepath.Join(s.options.Dir, snapshotDir, id+".img")
}

// removeImage removes the file of a volume or snapshot; absent: nil.
func removeImage(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("fake ec2: %w", err)
	}
	return nil
}

// newID makes an ID of AWS's form: a prefix and 17 hexadecimal digits.
func newID(prefix string) string {
	b := make([]byte, 9)
	_, _ = rand.Read(b) // it never fails: see crypto/rand
	return prefix + "-0" + hex.EncodeToString(b)[:16]
}
