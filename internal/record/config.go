package record

import (
	"fmt"
	"slices"
	"time"
)

// Config says what a repository is and which rules its writers keep. The one
// with the highest number counts.
type Config struct {
	Header
	// Repository is a random name, so that records of another repository are
	// not taken for ones of this.
	Repository string    `json:"repository"`
	CreatedAt  time.Time `json:"createdAt"`
	Tool       string    `json:"tool,omitempty"`
	// Hash and Compression are "sha256" and "zstd".
	Hash        string  `json:"hash"`
	Compression string  `json:"compression"`
	Chunker     Chunker `json:"chunker"`
	// LongestBackup is L: a commit that is younger than its plan by more is void.
	LongestBackup Seconds `json:"longestBackupSeconds"`
	// Slack is S: how far clocks and listings may be off.
	Slack Seconds `json:"slackSeconds"`
	// Epochs of data keys, oldest first; empty when nothing is encrypted.
	Epochs []Epoch `json:"epochs,omitempty"`
	// Writers are the key IDs of those who sign. They serve to say at once
	// that a key is the wrong one; trust never comes from here.
	Writers []string `json:"writers,omitempty"`
	// Retired are writers whose signatures count no longer than until then. That
	// takes trust away and gives none, so that it may come from here; it makes
	// the record critical ([FeatureRetired]).
	Retired []RetiredWriter `json:"retired,omitempty"`
}

// FeatureRetired is the critical feature of a config with retired writers: who
// does not know it would go on trusting a key that is stolen.
const FeatureRetired = "retired-writers"

// RetiredWriter is a writer whose key was replaced, perhaps because it was stolen.
type RetiredWriter struct {
	// Key is its key ID.
	Key string `json:"key"`
	// Until: what the store says was stored later does not count.
	Until time.Time `json:"until"`
}

// RetiredAt returns until when the writer's signatures count, if it is retired.
func (c *Config) RetiredAt(key string) (time.Time, bool) {
	for _, w := range c.Retired {
		if w.Key == key {
			return w.Until, true
		}
	}
	return time.Time{}, false
}

// Epoch is one pair of data keys, known by fingerprints: who can only read
// the bucket does not even have the public keys.
type Epoch struct {
	Number int    `json:"number"`
	Data   string `json:"data"`
	Index  string `json:"index"`
	// Recipients are the fingerprints of those who can open the epoch's keys.
	Recipients []string `json:"recipients"`
}

// Chunker holds the parameters of content-defined chunking, in bytes. A
// writer that uses others still writes a readable backup that shares nothing.
type Chunker struct {
	Algorithm string `json:"algorithm"`
	Min       int    `json:"min"`
	Average   int    `json:"average"`
	Max       int    `json:"max"`
}

// Seconds is a duration in whole seconds.
type Seconds int64

// Duration converts to a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// Encrypted says whether objects are encrypted.
func (c *Config) Encrypted() bool { return len(c.Epochs) > 0 }

// Epoch returns the newest epoch; the zero Epoch when nothing is encrypted.
func (c *Config) Epoch() Epoch {
	if len(c.Epochs) == 0 {
		return Epoch{}
	}
	return c.Epochs[len(c.Epochs)-1]
}

// RecordKind is KindConfig.
func (c *Config) RecordKind() Kind { return KindConfig }

// maxChunk bounds what a chunk may ask a reader to hold in memory.
const maxChunk = 64 << 20

// Validate checks ranges and that the algorithms are known ones.
func (c *Config) Validate() error {
	switch {
	case c.Repository == "" || !validName(c.Repository):
		return fmt.Errorf("%w: config without a repository name", ErrInvalid)
	case c.Hash != "sha256" || c.Compression != "zstd":
		return fmt.Errorf("%w: config with hash %q and compression %q", ErrNewerFormat, c.Hash, c.Compression)
	case c.LongestBackup <= 0 || c.Slack <= 0 || c.LongestBackup > 1e7 || c.Slack > 1e7:
		return fmt.Errorf("%w: config with longest backup of %d s and slack of %d s", ErrInvalid, c.LongestBackup, c.Slack)
	case c.CreatedAt.IsZero():
		return fmt.Errorf("%w: config without a time", ErrInvalid)
	}
	k := c.Chunker
	if k.Algorithm != "fastcdc" {
		return fmt.Errorf("%w: config with chunker %q", ErrNewerFormat, k.Algorithm)
	}
	if k.Min < 64 || k.Average <= k.Min || k.Max <= k.Average || k.Max > maxChunk || k.Average&(k.Average-1) != 0 {
		return fmt.Errorf("%w: chunker sizes %d/%d/%d", ErrInvalid, k.Min, k.Average, k.Max)
	}
	before := 0
	for i, e := range c.Epochs {
		if e.Number <= before || i == 0 && e.Number != 1 || e.Data == "" || e.Index == "" || len(e.Recipients) == 0 || slices.Contains(e.Recipients, "") {
			return fmt.Errorf("%w: epoch %d of the config is incomplete or out of order", ErrInvalid, e.Number)
		}
		before = e.Number
	}
	for _, w := range c.Retired {
		if w.Key == "" || w.Until.IsZero() {
			return fmt.Errorf("%w: config with a retired writer %q that has no time", ErrInvalid, w.Key)
		}
	}
	if len(c.Retired) > 0 && !slices.Contains(c.Critical, FeatureRetired) {
		return fmt.Errorf("%w: config with retired writers that does not say that they matter", ErrInvalid)
	}
	return nil
}

// KeyFile is what keys/<epoch>.<recipient>.age holds: the secret halves of
// one epoch, for whoever has the restore identity.
type KeyFile struct {
	Header
	Repository string `json:"repository,omitempty"`
	Epoch      int    `json:"epoch"`
	// Data and Index are age identities, "AGE-SECRET-KEY-1...".
	Data  string `json:"data"`
	Index string `json:"index"`
}

// RecordKind is KindKey.
func (k *KeyFile) RecordKind() Kind { return KindKey }

// Validate checks that both keys are there.
func (k *KeyFile) Validate() error {
	if k.Epoch < 1 || k.Data == "" || k.Index == "" {
		return fmt.Errorf("%w: key file of epoch %d is incomplete", ErrInvalid, k.Epoch)
	}
	return nil
}

// Origin says which set of which cluster writes under a set's keys.
type Origin struct {
	Header
	Set SetID `json:"set"`
	// Origin is a hash of the cluster's CA, or a name that the user gave;
	// empty when there was none.
	Origin string `json:"origin"`
}

// RecordKind is KindOrigin.
func (o *Origin) RecordKind() Kind { return KindOrigin }

// Validate checks the set.
func (o *Origin) Validate() error { return o.Set.Validate() }
