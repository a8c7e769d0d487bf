package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keepset/internal/statefulset"
)

// LaunchFlags say how `restore run` and `restore drill` get into the cluster.
type LaunchFlags struct {
	CronJob string
	Name    string
	Local   bool
	// what the Jobs do: "restore" or "drill".
	what string
}

// Add declares the flags; what the Jobs do is "restore" or "drill".
func (f *LaunchFlags) Add(fs *pflag.FlagSet, what string) {
	f.what = what
	fs.StringVar(&f.CronJob, "cronjob", "keepset-"+what, "outside of the cluster: the CronJob that is the template of "+what+" Jobs")
	fs.StringVar(&f.Name, "job-name", "", "outside of the cluster: name of the Job (default: made from the set and the time)")
	fs.BoolVar(&f.Local, "local", false, "work from here instead of creating a Job")
}

// Outside says whether a Job has to be made: neither in a pod nor --local.
func (f *LaunchFlags) Outside(a *App) bool { return !f.Local && !a.InPod() }

// localFlags concern this process alone and are not handed to the Job.
var localFlags = map[string]bool{
	"cronjob": true, "job-name": true, "local": true, "kubeconfig": true, "context": true, "namespace": true, "dry-run": true,
	"json": true, "verbose": true, "no-progress": true, "log-format": true, "help": true,
	"target-password-file": true, "replication-password-file": true, "restore-identity-file": true, "seed-patch-file": true,
	"metrics-file": true, "metrics-password-file": true,
	"target-tls-ca-file": true, "target-tls-cert-file": true, "target-tls-key-file": true,
}

// Launch creates the Job from the CronJob, with the flags that were given as
// variables, and follows it. Files of this machine are not handed over: what
// is secret comes from the CronJob's own Secrets.
func (f *LaunchFlags) Launch(ctx context.Context, a *App, cmd *cobra.Command, set *SetFlags) error {
	client, name, err := set.Cluster(a)
	if err != nil {
		return err
	}
	env := map[string]string{}
	var refused []string
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		switch {
		case !localFlags[flag.Name]:
			env[EnvName(flag.Name)] = flagText(flag)
		case strings.HasSuffix(flag.Name, "-file"):
			refused = append(refused, "--"+flag.Name)
		}
	})
	forgetEarlier(env)
	if len(refused) > 0 {
		return Usage("%s names a file of this machine, which the Job does not see; put its content into the CronJob's Secret, or use --local", strings.Join(refused, ", "))
	}
	jobName := f.Name
	if jobName == "" {
		jobName = fmt.Sprintf("%s-%.40s-%s", f.what, name, a.Clock().UTC().Format("20060102150405"))
	}
	ref, err := client.CreateJobFrom(ctx, f.CronJob, jobName, env, cmd.Name())
	if err != nil {
		return err
	}
	a.Log.Info("job created", "job", client.Namespace()+"/"+jobName, "cronjob", f.CronJob)
	podLog := a.Out
	if a.JSON() {
		podLog = a.Err
	}
	result, err := client.FollowJob(ctx, ref, podLog)
	if err != nil {
		return err
	}
	report := launched{
		Job: client.Namespace() + "/" + jobName, CronJob: f.CronJob,
		Succeeded: result.Succeeded, ExitCode: result.ExitCode, Message: result.Message,
	}
	// Without --json the pod's log has said it all.
	if err := a.Print(report, func(io.Writer) error { return nil }); err != nil {
		return err
	}
	return jobOutcome(jobName, result)
}

// launched is what --json prints of a Job that ran in the cluster.
type launched struct {
	Job       string `json:"job"`
	CronJob   string `json:"cronJob"`
	Succeeded bool   `json:"succeeded"`
	ExitCode  int    `json:"exitCode"`
	// Message is the one that its last pod left.
	Message string `json:"message,omitempty"`
}

// whatToRestore are the variables of which one has to be given.
var whatToRestore = []string{EnvName("replicas"), EnvName("ordinal"), EnvName("all")}

// ofOneRestore are the variables that choose a backup, or consent to a loss,
// for one restore only.
var ofOneRestore = []string{
	EnvName("backup"), EnvName("base"), EnvName("replace"), EnvName("keep"), EnvName("force-pod"),
	EnvName("allow-rollback"), EnvName("allow-small-claim"), EnvName("allow-incomplete"), EnvName("allow-suspect"),
}

// forgetEarlier keeps what an earlier restore left in the ConfigMap from
// joining in, once the flags say what to restore. An empty variable counts as
// not given, so the flag's default holds.
func forgetEarlier(env map[string]string) {
	if !slices.ContainsFunc(whatToRestore, func(name string) bool { return env[name] != "" }) {
		return
	}
	for _, name := range slices.Concat(whatToRestore, ofOneRestore) {
		if _, given := env[name]; !given {
			env[name] = ""
		}
	}
}

// jobOutcome turns the Job's exit code into our own.
func jobOutcome(name string, r statefulset.JobResult) error {
	if r.Succeeded {
		return nil
	}
	return &childError{code: r.ExitCode, text: fmt.Sprintf("job %s failed: %s", name, oneLine(orDefault(r.Message, "its pod left no message")))}
}

// flagText is a flag's value as its variable takes it. What may hold commas, as
// a query does, stands in lines.
func flagText(flag *pflag.Flag) string {
	if list, ok := flag.Value.(pflag.SliceValue); ok && flag.Value.Type() == "stringArray" {
		return strings.Join(list.GetSlice(), "\n")
	}
	if list, ok := flag.Value.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ",")
	}
	return flag.Value.String()
}
