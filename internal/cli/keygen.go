package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"keepset/internal/repository"
)

// KeygenFlags are the flags of `backup keygen`.
type KeygenFlags struct {
	KeyOutputFlags
	Recipients []string
}

// KeyOutputFlags say in which form keys leave the program.
type KeyOutputFlags struct {
	Format    string
	Out       string
	Namespace string
}

// Add declares the flags.
func (f *KeygenFlags) Add(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.Recipients, "recipient", nil, "age public key (age1...) of somebody who may restore; repeatable")
	f.add(fs, "directory for the two files writer and restore, instead of standard output")
}

func (f *KeyOutputFlags) add(fs *pflag.FlagSet, out string) {
	fs.StringVar(&f.Format, "format", "secret", "secret (YAML for kubectl apply) or env (a file to source)")
	fs.StringVar(&f.Out, "out", "", out)
	fs.StringVarP(&f.Namespace, "namespace", "n", "", "namespace to write into the Secrets")
}

const aboutWriter = "for backups: writes and deduplicates, cannot read a backup"

// side is one of the two Secrets.
type side struct {
	Name   string            `json:"name"`
	About  string            `json:"about"`
	Values map[string]string `json:"values"`
	order  []string
}

// Run makes the keys and prints them or writes them to files.
func (f *KeygenFlags) Run(a *App) error {
	if err := f.check(); err != nil {
		return err
	}
	list, err := Recipients("recipient", f.Recipients)
	if err != nil {
		return err
	}
	recipients := make([]age.Recipient, len(list))
	for i, r := range list {
		recipients[i] = r
	}
	set, err := repository.Keygen(recipients)
	if err != nil {
		return err
	}
	aboutRestore := "for restores; keep it off the cluster that is backed up"
	if set.Generated {
		aboutRestore += "; this is the only copy of the restore identity: without it no backup can be read"
	}
	sides := []side{
		newSide("writer", aboutWriter, set.Writer),
		newSide("restore", aboutRestore, set.Restore),
	}
	if f.Out != "" {
		return f.write(a, sides)
	}
	return a.Print(sides, func(w io.Writer) error {
		for _, s := range sides {
			text, err := f.render(s)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
		}
		return nil
	})
}

// Recipient reads an age public key.
func Recipient(text string) (*age.X25519Recipient, error) {
	r, err := age.ParseX25519Recipient(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return r, nil
}

func (f *KeyOutputFlags) check() error {
	if f.Format != "secret" && f.Format != "env" {
		return Usage("--format %q is not one of secret, env", f.Format)
	}
	return nil
}

// extension of a file with keys.
func (f *KeyOutputFlags) extension() string {
	if f.Format == "env" {
		return ".env"
	}
	return ".yaml"
}

func newSide(name, about string, values []repository.Value) side {
	s := side{Name: name, About: about, Values: map[string]string{}}
	for _, v := range values {
		s.Values[v.Name] = v.Value
		s.order = append(s.order, v.Name)
	}
	return s
}

// render writes one side in the chosen form.
func (f *KeyOutputFlags) render(s side) (string, error) {
	if f.Format == "env" {
		var b strings.Builder
		fmt.Fprintf(&b, "# %s\n", s.About)
		for _, name := range s.order {
			// Keys hold no quote; single quotes keep line breaks.
			fmt.Fprintf(&b, "%s='%s'\n", name, s.Values[name])
		}
		return b.String(), nil
	}
	metadata := map[string]string{"name": "keepset-" + s.Name + "-keys"}
	if f.Namespace != "" {
		metadata["namespace"] = f.Namespace
	}
	doc, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": metadata, "stringData": s.Values,
	})
	if err != nil {
		return "", fmt.Errorf("render secret %s: %w", s.Name, err)
	}
	return fmt.Sprintf("---\n# %s\n%s", s.About, doc), nil
}

// write makes one file for each side. A file that exists is never replaced:
// it may be the only copy of a key.
func (f *KeygenFlags) write(a *App, sides []side) error {
	if err := os.MkdirAll(f.Out, 0o700); err != nil {
		return fmt.Errorf("make the directory for the keys: %w", err)
	}
	var paths []string
	for _, s := range sides {
		text, err := f.render(s)
		if err != nil {
			return err
		}
		path := filepath.Join(f.Out, s.Name+f.extension())
		if err := writeNew(path, text); err != nil {
			return fmt.Errorf("write keys to %s: %w", path, err)
		}
		paths = append(paths, path)
	}
	return a.Print(map[string][]string{"files": paths}, func(w io.Writer) error {
		for i, s := range sides {
			if _, err := fmt.Fprintf(w, "%s: %s\n", paths[i], s.About); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeNew(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return Usage("the file exists, and keys are never replaced; choose another --out")
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close())
}
