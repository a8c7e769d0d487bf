package repository

import (
	"fmt"
	"strconv"
	"strings"

	"keepset/internal/record"
)

// This file owns every key of a repository. Nothing else puts keys together
// or takes them apart.

const (
	prefixConfig = "config/"
	prefixKeys   = "keys/"
	prefixSets   = "sets/"
)

func keyConfig(n int) string { return prefixConfig + strconv.Itoa(n) }

// parseConfigKey returns the number of config/<n>.
func parseConfigKey(key string) (int, bool) {
	rest, found := strings.CutPrefix(key, prefixConfig)
	return parseNumber(rest, found)
}

func keyKeyFile(epoch int, recipient string) string {
	return prefixKeys + strconv.Itoa(epoch) + "." + recipient + ".age"
}

// parseKeyFileKey takes keys/<epoch>.<fingerprint of R>.age apart.
func parseKeyFileKey(key string) (epoch int, recipient string, ok bool) {
	text, found := strings.CutPrefix(key, prefixKeys)
	text, aged := strings.CutSuffix(text, ".age")
	number, recipient, cut := strings.Cut(text, ".")
	epoch, ok = parseNumber(number, found && aged && cut)
	return epoch, recipient, ok && epoch > 0 && fingerprint.MatchString(recipient)
}

// layout is the keys of one set.
type layout struct{ set record.SetID }

func (l layout) root() string        { return prefixSets + l.set.Namespace + "/" + l.set.Name + "/" }
func (l layout) origin() string      { return l.root() + "origin" }
func (l layout) backups() string     { return l.root() + "backups/" }
func (l layout) commits() string     { return l.root() + "commits/" }
func (l layout) packs() string       { return l.root() + "packs/" }
func (l layout) parts() string       { return l.root() + "parts/" }
func (l layout) maps() string        { return l.root() + "maps/" }
func (l layout) refs() string        { return l.root() + "refs/" }
func (l layout) prunes() string      { return l.root() + "prune/" }
func (l layout) reports() string     { return l.root() + "reports/" }
func (l layout) pins() string        { return l.root() + "pins/" }
func (l layout) proofs() string      { return l.root() + "proofs/" }
func (l layout) pack(h hash) string  { return l.packs() + h.String() }
func (l layout) part(h hash) string  { return l.parts() + h.String() }
func (l layout) mapOf(h hash) string { return l.maps() + h.String() }
func (l layout) ref(h hash) string   { return l.refs() + h.String() }

// originAt is the n-th origin of the set: the highest counts.
func (l layout) originAt(n int) string {
	if n == 0 {
		return l.origin()
	}
	return l.origin() + "." + strconv.Itoa(n)
}

// parseOriginKey returns the number of origin or origin.<n>.
func (l layout) parseOriginKey(key string) (int, bool) {
	if key == l.origin() {
		return 0, true
	}
	text, found := strings.CutPrefix(key, l.origin()+".")
	n, ok := parseNumber(text, found)
	return n, ok && n > 0
}

func (l layout) backup(id record.BackupID) string { return l.backups() + string(id) + "/" }
func (l layout) plan(id record.BackupID) string   { return l.backup(id) + "plan" }

func (l layout) checkpoint(id record.BackupID, ordinal int, attempt record.AttemptID, seq int) string {
	return fmt.Sprintf("%s%d.%s.%d", l.backup(id), ordinal, attempt, seq)
}

// accept sorts before the plan, so that whoever deletes a backup in key order
// deletes the plan last.
func (l layout) accept(id record.BackupID, name record.AttemptID) string {
	return l.backup(id) + acceptPrefix + string(name)
}

const acceptPrefix = "accept."

// parseAccept reads accept.<name>.
func parseAccept(name string) bool {
	text, found := strings.CutPrefix(name, acceptPrefix)
	return found && record.AttemptID(text).Validate() == nil
}

func (l layout) commit(id record.BackupID, ordinal int, attempt record.AttemptID) string {
	return fmt.Sprintf("%s%s/%d.%s", l.commits(), id, ordinal, attempt)
}

func (l layout) report(id record.BackupID, attempt record.AttemptID) string {
	return fmt.Sprintf("%s%s.%s", l.reports(), id, attempt)
}

func (l layout) prune(name record.BackupID) string { return l.prunes() + string(name) }
func (l layout) pin(id record.BackupID) string     { return l.pins() + string(id) }

// proof is named after its backup, so that it goes with it, unread.
func (l layout) proof(id record.BackupID, name record.AttemptID) string {
	return fmt.Sprintf("%s%s.%s", l.proofs(), id, name)
}

// Lasting says whether backups need the object of a key, so that a store should
// protect it. What only steers a prune, or only a run that is under way needs, is not lasting:
// reports, checkpoints, pins, proofs and prune records.
func Lasting(key string) bool {
	if strings.HasPrefix(key, prefixConfig) || strings.HasPrefix(key, prefixKeys) {
		return true
	}
	set, _, ok := parseSetKey(key)
	if !ok {
		return false
	}
	l := layout{set}
	if _, rest, ok := l.parseBackupKey(key); ok {
		_, _, _, passing := parseCheckpoint(rest)
		return !passing
	}
	for _, prefix := range []string{l.prunes(), l.pins(), l.proofs(), l.reports()} {
		if strings.HasPrefix(key, prefix) {
			return false
		}
	}
	return true
}

// parsePinKey returns the backup of pins/<id>.
func (l layout) parsePinKey(key string) (record.BackupID, bool) {
	text, found := strings.CutPrefix(key, l.pins())
	id := record.BackupID(text)
	return id, found && id.Validate() == nil
}

// parseReportKey takes reports/<id>.<attempt> apart.
func (l layout) parseReportKey(key string) (record.BackupID, bool) {
	return parseNamed(key, l.reports())
}

// parseProofKey takes proofs/<id>.<name> apart.
func (l layout) parseProofKey(key string) (record.BackupID, bool) {
	return parseNamed(key, l.proofs())
}

// parseNamed takes <id>.<name> below a prefix apart.
func parseNamed(key, prefix string) (record.BackupID, bool) {
	below, found := strings.CutPrefix(key, prefix)
	text, _, cut := strings.Cut(below, ".")
	id := record.BackupID(text)
	return id, found && cut && id.Validate() == nil
}

// parseSetKey returns the set of a key below sets/, and the rest of the key.
func parseSetKey(key string) (record.SetID, string, bool) {
	fields := strings.SplitN(strings.TrimPrefix(key, prefixSets), "/", 3)
	if len(fields) != 3 || !strings.HasPrefix(key, prefixSets) {
		return record.SetID{}, "", false
	}
	set := record.SetID{Namespace: fields[0], Name: fields[1]}
	return set, fields[2], set.Validate() == nil
}

// parseBackupKey takes backups/<id>/<rest> apart.
func (l layout) parseBackupKey(key string) (id record.BackupID, rest string, ok bool) {
	below, found := strings.CutPrefix(key, l.backups())
	text, rest, cut := strings.Cut(below, "/")
	id = record.BackupID(text)
	return id, rest, found && cut && id.Validate() == nil
}

// parseCheckpoint takes <ordinal>.<attempt>.<seq> apart.
func parseCheckpoint(name string) (ordinal int, attempt record.AttemptID, seq int, ok bool) {
	fields := strings.Split(name, ".")
	if len(fields) != 3 {
		return 0, "", 0, false
	}
	ordinal, okOrdinal := parseNumber(fields[0], true)
	seq, okSeq := parseNumber(fields[2], true)
	attempt = record.AttemptID(fields[1])
	return ordinal, attempt, seq, okOrdinal && okSeq && attempt.Validate() == nil
}

// parseCommitKey takes commits/<id>/<ordinal>.<attempt> apart.
func (l layout) parseCommitKey(key string) (id record.BackupID, ordinal int, attempt record.AttemptID, ok bool) {
	below, found := strings.CutPrefix(key, l.commits())
	text, rest, cut := strings.Cut(below, "/")
	number, name, dot := strings.Cut(rest, ".")
	ordinal, okOrdinal := parseNumber(number, found && cut && dot)
	id, attempt = record.BackupID(text), record.AttemptID(name)
	return id, ordinal, attempt, okOrdinal && id.Validate() == nil && attempt.Validate() == nil
}

// parseHashKey returns the hash that ends a key of content.
func parseHashKey(key, prefix string) (hash, bool) {
	text, found := strings.CutPrefix(key, prefix)
	if !found {
		return hash{}, false
	}
	h, err := record.ParseHash(text)
	return h, err == nil
}

// parseNumber reads a number that is written in the one way it can be.
func parseNumber(s string, ok bool) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, ok && err == nil && n >= 0 && strconv.Itoa(n) == s
}
