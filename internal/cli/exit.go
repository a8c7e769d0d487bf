package cli

import (
	"errors"
	"fmt"

	"keepset/internal/dbdump"
	"keepset/internal/filetree"
	"keepset/internal/job"
	"keepset/internal/repository"
	"keepset/internal/retention"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
	"keepset/internal/storage"
)

// The exit codes. There is no 2: it is what a crash of a Go program leaves,
// and a podFailurePolicy must not take a crash for an answer.
const (
	ExitComplete   = 0
	ExitFailed     = 1
	ExitIncomplete = 3
	ExitSuspect    = 4
	ExitBusy       = 5
	ExitUsage      = 64
)

// ExitHelp documents the codes; it stands at the end of every command's help.
const ExitHelp = `Exit codes:
  0   complete
  1   failed: trying again may help
  3   incomplete: some members failed, the others are committed
  4   suspect: captured, but a member is empty, shrunk, or its replication is broken
  5   busy: another run holds the set
  64  usage or configuration: trying again changes nothing`

// UsageError is an error in what the user asked for.
type UsageError struct{ err error }

// Usage makes a [UsageError].
func Usage(format string, args ...any) error { return &UsageError{err: fmt.Errorf(format, args...)} }

func (e *UsageError) Error() string { return e.err.Error() }

// Unwrap gives the reason.
func (e *UsageError) Unwrap() error { return e.err }

// ExitCode maps an error to the process's exit code. This is the one place
// that does. How a job ended comes first: an incomplete backup is incomplete
// whatever kept the member from being captured.
func ExitCode(err error) int {
	var child *childError
	switch {
	case err == nil:
		return ExitComplete
	case errors.As(err, &child):
		return child.exitCode()
	case isAny(err, job.ErrIncomplete):
		return ExitIncomplete
	case isAny(err, job.ErrSuspect, job.ErrFindings, job.ErrDrill):
		return ExitSuspect
	case isAny(err, job.ErrFailed):
		return ExitFailed
	case isAny(err, job.ErrBusy, statefulset.ErrBusy):
		return ExitBusy
	case isUsage(err):
		return ExitUsage
	default:
		return ExitFailed
	}
}

// childError is the failure of a Job that ran the same program.
type childError struct {
	code int
	text string
}

func (e *childError) Error() string { return e.text }

// exitCode hands on the codes of the list; anything else is a failure.
func (e *childError) exitCode() int {
	switch e.code {
	case ExitIncomplete, ExitSuspect, ExitBusy, ExitUsage:
		return e.code
	default:
		return ExitFailed
	}
}

// isUsage says whether the configuration has to change before another try
// makes sense.
func isUsage(err error) bool {
	var usage *UsageError
	return errors.As(err, &usage) || isAny(err,
		job.ErrConfig, job.ErrNeedsConsent,
		storage.ErrNoContainer,
		dbdump.ErrNotEmpty, dbdump.ErrForeign, dbdump.ErrSelection, dbdump.ErrCoordinates, filetree.ErrNotEmpty, filetree.ErrRights,
		repository.ErrNotRepository, repository.ErrNewerFormat, repository.ErrWrongKey, repository.ErrNoIdentity, repository.ErrNoKey, repository.ErrNoTrusted, repository.ErrExists,
		repository.ErrOrigin, repository.ErrReadOnly, repository.ErrNoBackup, repository.ErrNoEligible,
		repository.ErrRecipient, repository.ErrNewest, repository.ErrPinned, repository.ErrCondemned, retention.ErrPolicy,
		snapshot.ErrUnsupported, snapshot.ErrUnfit,
		statefulset.ErrNoCluster, statefulset.ErrAmbiguous, statefulset.ErrNotFound, statefulset.ErrClaimInUse, statefulset.ErrExclusive, statefulset.ErrHeld,
	)
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// interrupted says first that the run was stopped, because the errors that
// follow from it read like faults of their own.
func interrupted(err error) error { return fmt.Errorf("interrupted: %w", err) }
