// Package metrics says in Prometheus' terms how a run ended.
//
// A job that runs once a day cannot be scraped: it writes a file that a node
// exporter reads, or pushes to a Pushgateway, and is gone. Its central type is
// [Run], one command from its beginning to its end; [Run.Of] gives the [Group]
// of one set, which is filled from the job's report. [Run.WriteFile] and [Push]
// bring the groups to where Prometheus finds them.
//
// What it promises: all metrics are gauges of the last run, in base units, and
// each is listed by [Catalogue]. A run that fails leaves the time of the last
// success as it was, in a file as in a Pushgateway, so that an alert on its age
// is right whatever the newest run did. A file is replaced in one step; what it
// holds of other sets and commands stays.
package metrics

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Definition is one metric: its full name, its help, and its labels besides
// those of the group (set, and share in a fan-out).
type Definition struct {
	Name, Help string
	Labels     []string
}

// Run is one run of a command.
type Run struct {
	// Command is the middle of every name: backup, prune, verify, restore, drill, status.
	Command string
	groups  []*Group
}

// Of returns the group of a set, "namespace/name"; "" is the whole repository.
func (r *Run) Of(set string) *Group {
	for _, g := range r.groups {
		if g.Set == set {
			return g
		}
	}
	g := &Group{Command: r.Command, Set: set, code: unended}
	r.groups = append(r.groups, g)
	return g
}

// Groups are those that were asked for, in that order.
func (r *Run) Groups() []*Group { return r.groups }

// End ends every group that has not ended by itself.
func (r *Run) End(started, ended time.Time, code int) {
	for _, g := range r.groups {
		if g.code == unended {
			g.End(started, ended, code)
		}
	}
}

// unended is no exit code.
const unended = -1

// Group is what one run says of one set.
type Group struct {
	Command, Set string
	// Share is the index of a pod among those of a fan-out; empty without one.
	Share   string
	code    int
	samples []sample
}

type sample struct {
	of     Definition
	labels []string
	value  float64
}

// add takes a value; labels are those of the definition, in order.
func (g *Group) add(of Definition, value float64, labels ...string) {
	g.samples = append(g.samples, sample{of, labels, value})
}

// End says how the run ended. Only a success sets the time of the last one.
func (g *Group) End(started, ended time.Time, code int) {
	g.code = code
	of := runMetrics(g.Command)
	g.add(of.lastRun, seconds(ended))
	g.add(of.duration, ended.Sub(started).Seconds())
	g.add(of.exitCode, float64(code))
	if code == 0 {
		g.add(of.lastSuccess, seconds(ended))
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// labels are those of the group.
func (g *Group) labels() prometheus.Labels {
	l := prometheus.Labels{}
	if g.Set != "" {
		l["set"] = g.Set
	}
	if g.Share != "" {
		l["share"] = g.Share
	}
	return l
}

// Describe implements prometheus.Collector. What a run has to say depends on how
// far it came, so nothing is promised.
func (g *Group) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g *Group) Collect(to chan<- prometheus.Metric) {
	for _, s := range g.samples {
		desc := prometheus.NewDesc(s.of.Name, s.of.Help, s.of.Labels, nil)
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, s.value, s.labels...)
	}
}

// ofRun are the metrics that every command has.
type ofRun struct{ lastRun, lastSuccess, duration, exitCode Definition }

func runMetrics(command string) ofRun {
	name := func(rest, help string) Definition {
		return Definition{Name: "keepset_" + command + "_" + rest, Help: help}
	}
	return ofRun{
		lastRun:     name("last_run_timestamp_seconds", "When the last run ended, well or not."),
		lastSuccess: name("last_success_timestamp_seconds", "When the last run ended that ended with exit code 0."),
		duration:    name("duration_seconds", "How long the last run took."),
		exitCode:    name("exit_code", "Exit code of the last run."),
	}
}

func (o ofRun) list() []Definition {
	return []Definition{o.lastRun, o.lastSuccess, o.duration, o.exitCode}
}

// lastSuccessSuffix ends the names of what a failed run leaves as it was.
const lastSuccessSuffix = "_last_success_timestamp_seconds"

// Catalogue lists every metric that any command writes, by name.
func Catalogue() []Definition {
	all := slices.Concat(ofBackup.list(), ofPrune.list(), ofVerify.list(), ofRestore.list(), ofDrill.list(), ofStatus.list())
	for _, command := range []string{"backup", "prune", "verify", "restore", "drill", "status"} {
		all = append(all, runMetrics(command).list()...)
	}
	slices.SortFunc(all, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
	return all
}
