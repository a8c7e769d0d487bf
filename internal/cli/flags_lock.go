package cli

import (
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/repository"
	"keepset/internal/storage/s3"
)

// LockFlags say how long backups stay locked in a bucket that has Object Lock.
type LockFlags struct {
	Mode        string
	Days, Reuse int
}

// Add declares the flags.
func (f *LockFlags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Mode, "s3-object-lock-mode", "", "lock what backups need against deletion, in a bucket with Object Lock: governance (a right of its own ends a lock) or compliance (nobody does)")
	fs.IntVar(&f.Days, "s3-object-lock-days", 0, "so many days, at least, each backup stays locked whole")
	fs.IntVar(&f.Reuse, "s3-object-lock-reuse-days", 0, "data that was stored so many days before a backup is stored again, as its lock ends too early; what is new is locked for so many days longer (default: as many as --s3-object-lock-days)")
}

// maxLockDays is what S3 takes, a hundred years.
const maxLockDays = 36500

const day = 24 * time.Hour

// lock is that of the store; none without a mode.
func (f *LockFlags) lock(scheme string) (s3.Lock, error) {
	switch {
	case f.Mode == "" && f.Days == 0 && f.Reuse == 0:
		return s3.Lock{}, nil
	case f.Mode == "":
		return s3.Lock{}, Usage("--s3-object-lock-mode is missing: governance or compliance")
	case scheme != "s3":
		return s3.Lock{}, Usage("--s3-object-lock-mode goes with s3://: a directory cannot lock its files")
	case f.Days < 1 || f.Reuse < 0 || f.Days > maxLockDays || f.Reuse > maxLockDays || f.Days+f.reuseDays() > maxLockDays:
		return s3.Lock{}, Usage("--s3-object-lock-days %d, --s3-object-lock-reuse-days %d: want 1 day or more, and not more than %d together", f.Days, f.Reuse, maxLockDays)
	}
	return s3.Lock{Mode: f.Mode, For: time.Duration(f.Days+f.reuseDays()) * day, Of: repository.Lasting}, nil
}

func (f *LockFlags) reuseDays() int {
	if f.Reuse == 0 {
		return f.Days
	}
	return f.Reuse
}

// reuseWithin is how old data may be that a backup takes over; 0 for any age.
func (f *LockFlags) reuseWithin() time.Duration {
	if f.Mode == "" {
		return 0
	}
	return time.Duration(f.reuseDays()) * day
}
