package metrics

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// WriteText writes all groups in Prometheus' text format.
func (r *Run) WriteText(w io.Writer) error {
	families, err := r.gather()
	if err != nil {
		return err
	}
	return writeFamilies(w, families)
}

// gather gives each sample the labels of its group.
func (r *Run) gather() ([]*dto.MetricFamily, error) {
	registry := prometheus.NewPedanticRegistry()
	for _, g := range r.groups {
		if err := prometheus.WrapRegistererWith(g.labels(), registry).Register(g); err != nil {
			return nil, fmt.Errorf("register the metrics of %s: %w", g.Set, err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	return families, nil
}

func writeFamilies(w io.Writer, families []*dto.MetricFamily) error {
	encoder := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return fmt.Errorf("write metric %s: %w", f.GetName(), err)
		}
	}
	return nil
}

// WriteFile replaces a file in one step, as node exporter's textfile collector
// wants it. What the file holds of other commands, sets and shares stays, and of
// the same ones the time of the last success, when this run was none. Two runs at the
// same moment want two files.
func (r *Run) WriteFile(path string) error {
	fresh, err := r.gather()
	if err != nil {
		return err
	}
	old, err := readFamilies(path)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := writeFamilies(&text, r.merge(old, fresh)); err != nil {
		return err
	}
	return replace(path, text.Bytes())
}

// readFamilies reads what an earlier run has left; nothing when there is no file.
func readFamilies(path string) (map[string]*dto.MetricFamily, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the metrics of earlier runs: %w", err)
	}
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the metrics of earlier runs in %s: %w; move the file away", path, err)
	}
	return families, nil
}

// merge adds to the fresh families what stays of the old ones.
func (r *Run) merge(old map[string]*dto.MetricFamily, fresh []*dto.MetricFamily) []*dto.MetricFamily {
	at := map[string]*dto.MetricFamily{}
	for _, f := range fresh {
		at[f.GetName()] = f
	}
	for name, f := range old {
		for _, m := range f.GetMetric() {
			if r.replaces(name, m) {
				continue
			}
			if at[name] == nil {
				at[name] = &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type}
				fresh = append(fresh, at[name])
			}
			at[name].Metric = append(at[name].Metric, m)
		}
	}
	slices.SortFunc(fresh, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return fresh
}

// replaces says whether this run says anew, or takes back, what a series says.
func (r *Run) replaces(name string, m *dto.Metric) bool {
	if !strings.HasPrefix(name, "keepset_"+r.Command+"_") {
		return false
	}
	labels := map[string]string{}
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return slices.ContainsFunc(r.groups, func(g *Group) bool {
		return labels["set"] == g.Set && labels["share"] == g.Share && (g.code == 0 || !strings.HasSuffix(name, lastSuccessSuffix))
	})
}

// replace writes a file beside the old one and renames it over that.
func replace(path string, data []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write metrics to %s: %w", path, errors.Join(err, os.Remove(file.Name())))
		}
	}()
	_, err = file.Write(data)
	// Others read it, and nothing in it is secret.
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
