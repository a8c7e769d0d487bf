package job

import "errors"

// How a job ended, for the exit code. They arrive wrapped, with the members
// and their errors in the text.
var (
	// ErrIncomplete says that some members of the set failed and others did not.
	ErrIncomplete = errors.New("backup is incomplete")
	// ErrSuspect says that every member was captured and at least one is doubtful.
	ErrSuspect = errors.New("backup is suspect")
	// ErrBusy says that another run holds the set.
	ErrBusy = errors.New("set is busy")
	// ErrFailed says that no member could be captured.
	ErrFailed = errors.New("backup failed")
	// ErrConfig says that what was asked for cannot be done as it was asked,
	// and that trying again changes nothing.
	ErrConfig = errors.New("wrong configuration")
	// ErrNeedsConsent says that the job would destroy something that the user
	// has not agreed to lose. Nothing has been touched.
	ErrNeedsConsent = errors.New("consent needed")
	// ErrDrill says that a drill has found a backup wanting.
	ErrDrill = errors.New("the drill has failed")
	// ErrFindings says that somebody has to look at a set's backups.
	ErrFindings = errors.New("needs attention")
)
