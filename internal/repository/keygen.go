package repository

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"keepset/internal/record"
)

// The names under which keys are given to a process: the value itself in
// the environment variable, or the path of a file in NAME_FILE.
const (
	NameWriterKey       = "KEEPSET_WRITER_KEY"
	NameTrustedWriters  = "KEEPSET_TRUSTED_WRITERS"
	NameDataRecipient   = "KEEPSET_DATA_RECIPIENT"
	NameIndexIdentity   = "KEEPSET_INDEX_IDENTITY"
	NameKeyFiles        = "KEEPSET_KEY_FILES"
	NameRestoreIdentity = "KEEPSET_RESTORE_IDENTITY"
	NameProofKey        = "KEEPSET_PROOF_KEY"
	NameTrustedProvers  = "KEEPSET_TRUSTED_PROVERS"
)

// Value is one named value of a Secret.
type Value struct{ Name, Value string }

// KeySet is a fresh set of keys, rendered for the two sides.
type KeySet struct {
	// Writer is what the backup Job's Secret holds. It can write and
	// deduplicate; it cannot read a backup.
	Writer []Value
	// Restore is what a restore needs. It opens every backup: it is to be
	// kept off the cluster that is backed up, until it is needed.
	Restore []Value
	// Generated is true when the restore identity was made here, because no
	// recipient was given; then Restore is the only copy of it.
	Generated bool
}

// Keygen makes W, A, D(1) and I(1), and locks the secrets of D and I to the
// recipients. Without recipients it makes one restore identity as well.
func Keygen(recipients []age.Recipient) (KeySet, error) {
	set := KeySet{Generated: len(recipients) == 0}
	var restore *age.X25519Identity
	if set.Generated {
		var err error
		if restore, err = age.GenerateX25519Identity(); err != nil {
			return KeySet{}, fmt.Errorf("make restore identity: %w", err)
		}
		recipients = []age.Recipient{restore.Recipient()}
	}
	public, writer, err := ed25519.GenerateKey(nil)
	if err != nil {
		return KeySet{}, fmt.Errorf("make writer key: %w", err)
	}
	prover, proof, err := ed25519.GenerateKey(nil)
	if err != nil {
		return KeySet{}, fmt.Errorf("make proof key: %w", err)
	}
	secrets, err := newSecrets()
	if err != nil {
		return KeySet{}, err
	}
	files, err := lockToAll(secrets, recipients)
	if err != nil {
		return KeySet{}, err
	}
	set.Writer = []Value{
		{NameWriterKey, formatWriterSecret(writer)},
		{NameTrustedWriters, formatWriterPublic(public)},
		{NameDataRecipient, secrets.data.Recipient().String()},
		{NameIndexIdentity, secrets.index.String()},
		{NameKeyFiles, files},
	}
	set.Restore = []Value{
		{NameTrustedWriters, formatWriterPublic(public)},
		{NameProofKey, formatProverSecret(proof)},
		{NameTrustedProvers, formatProverPublic(prover)},
	}
	if restore != nil {
		set.Restore = append(set.Restore, Value{NameRestoreIdentity, restore.String()})
	}
	return set, nil
}

// keyFileLine is one line of NameKeyFiles.
func keyFileLine(name string, file []byte) string {
	return name + " " + base64.StdEncoding.EncodeToString(file) + "\n"
}

// lockToAll renders the key files of the first epoch, one line for each
// recipient: its fingerprint, a space, base64 of the age file.
func lockToAll(secrets epochSecrets, recipients []age.Recipient) (string, error) {
	var lines strings.Builder
	for _, recipient := range recipients {
		named, ok := recipient.(fmt.Stringer)
		if !ok {
			return "", errors.New("recipient has no text form; use an age1... public key")
		}
		file, err := lockKeys(1, secrets, recipient)
		if err != nil {
			return "", err
		}
		lines.WriteString(keyFileLine(Fingerprint(named.String()), file))
	}
	return lines.String(), nil
}

// LoadKeys reads the keys that are configured: of each name NAME the value of
// the environment variable NAME, or the content of the file that NAME_FILE
// names. An absent name leaves its key out; a key that cannot be read is an error.
func LoadKeys(getenv func(string) string) (Keys, error) {
	var k Keys
	for _, part := range []struct {
		name  string
		parse func(string) error
	}{
		{NameWriterKey, func(s string) (err error) { k.Writer, err = parseWriterSecret(s); return err }},
		{NameTrustedWriters, k.parseTrusted},
		{NameDataRecipient, k.parseData},
		{NameIndexIdentity, k.parseIndex},
		{NameRestoreIdentity, func(s string) (err error) { k.Restore, err = age.ParseIdentities(strings.NewReader(s)); return err }},
		{NameKeyFiles, k.parseKeyFiles},
		{NameProofKey, func(s string) (err error) { k.Prover, err = parseProverSecret(s); return err }},
		{NameTrustedProvers, k.parseProvers},
	} {
		text, err := lookup(getenv, part.name)
		if err != nil {
			return Keys{}, err
		}
		if text == "" {
			continue
		}
		if err := part.parse(text); err != nil {
			return Keys{}, fmt.Errorf("read %s: %w", part.name, err)
		}
	}
	return k, nil
}

func lookup(getenv func(string) string, name string) (string, error) {
	value, path := getenv(name), getenv(name+"_FILE")
	if value != "" && path != "" {
		return "", fmt.Errorf("both %s and %s_FILE are set; set one", name, name)
	}
	if path == "" {
		return strings.TrimSpace(value), nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s_FILE: %w", name, err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("read %s_FILE: %s is empty", name, path)
	}
	return text, nil
}

func (k *Keys) parseTrusted(text string) error {
	for _, field := range fields(text) {
		text, until, timed := strings.Cut(field, "@")
		key, err := parseWriterPublic(text)
		if err != nil {
			return err
		}
		k.Trusted = append(k.Trusted, key)
		if !timed {
			continue
		}
		at, err := time.Parse(time.RFC3339, until)
		if err != nil || at.IsZero() {
			return fmt.Errorf("what stands behind the @ of writer %s is no time like 2026-11-20T13:17:30Z", record.KeyID(key))
		}
		if k.Until == nil {
			k.Until = make(map[string]time.Time)
		}
		k.Until[record.KeyID(key)] = at
	}
	return nil
}

func (k *Keys) parseProvers(text string) error {
	for _, field := range fields(text) {
		key, err := parseProverPublic(field)
		if err != nil {
			return err
		}
		k.Provers = append(k.Provers, key)
	}
	return nil
}

// parseData does not repeat what it could not read: it may be an identity, that is, a secret.
func (k *Keys) parseData(text string) (err error) {
	if k.Data, err = age.ParseX25519Recipient(text); err != nil {
		return errors.New("it is not an age public key (age1...)")
	}
	return nil
}

func (k *Keys) parseIndex(text string) error {
	for _, field := range fields(text) {
		identity, err := age.ParseX25519Identity(field)
		if err != nil {
			return err
		}
		k.Index = append(k.Index, identity)
	}
	return nil
}

// The form of a [Fingerprint], which becomes part of a key in the store, and of a
// keyFileName, which has one behind the number of an epoch but the first.
var (
	fingerprint     = regexp.MustCompile(`^[0-9a-f]{16}$`)
	keyFileNameForm = regexp.MustCompile(`^(([2-9]|[1-9][0-9]{1,8})\.)?[0-9a-f]{16}$`)
)

func (k *Keys) parseKeyFiles(text string) error {
	k.KeyFiles = make(map[string][]byte)
	for line := range strings.Lines(text) {
		name, encoded, found := strings.Cut(strings.TrimSpace(line), " ")
		data, err := base64.StdEncoding.DecodeString(encoded)
		if !found || err != nil || !keyFileNameForm.MatchString(name) {
			return errors.New("a line is not a fingerprint and base64")
		}
		if _, twice := k.KeyFiles[name]; twice {
			return fmt.Errorf("the fingerprint %s is there twice", name)
		}
		k.KeyFiles[name] = data
	}
	return nil
}

// fields splits at white space and commas.
func fields(text string) []string {
	return slices.DeleteFunc(strings.FieldsFunc(text, func(c rune) bool {
		return c == ',' || c == ' ' || c == '\n' || c == '\t' || c == '\r'
	}), func(s string) bool { return s == "" })
}
