package job

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"keepset/internal/statefulset"
)

// ClaimUsers lists the pods that have claims mounted at this moment, by claim.
type ClaimUsers func(context.Context) (map[string][]statefulset.ClaimUser, error)

// place finds the node where a member's worker has to run, empty: anywhere. It
// refuses a claim that no worker can mount beside its users, and one whose files are
// written meanwhile without the user's consent.
func (f *FileWorkers) place(ordinal int, users map[string][]statefulset.ClaimUser) (node string, err error) {
	claim := f.workers.Claim(f.members[ordinal])
	use := users[claim.Name]
	if len(use) == 0 {
		return "", nil
	}
	pods := make([]string, 0, len(use))
	for _, u := range use {
		pods = append(pods, u.Pod)
		if u.Node != "" && !shared(claim.AccessModes) {
			node = u.Node
		}
	}
	names := strings.Join(pods, ", ")
	switch {
	case slices.Contains(claim.AccessModes, "ReadWriteOncePod"):
		return "", fmt.Errorf("%w: claim %s is ReadWriteOncePod and pod %s has it, so that no worker can mount it: "+
			"scale the set to zero for the time of the backup, or have it read --from-snapshot", ErrConfig, claim.Name, names)
	case !f.Fuzzy:
		return "", errInUse(claim.Name, names)
	}
	return node, nil
}

// errInUse refuses files that are written meanwhile.
func errInUse(claim, pods string) error {
	return fmt.Errorf("%w: claim %s is in use by pod %s: files that are written meanwhile are not of one moment, and those of a running database are worth nothing; "+
		"scale the set to zero for the time of the backup, have them read --from-snapshot, use --method dump or snapshot, or consent with --fuzzy", ErrNeedsConsent, claim, pods)
}

// shared tells whether a claim can be mounted on several nodes.
func shared(modes []string) bool {
	return slices.Contains(modes, "ReadWriteMany") || slices.Contains(modes, "ReadOnlyMany")
}

// useAsked is how often a worker asks, while it reads, who uses its claim.
const useAsked = time.Minute

// How often it asks again at the end, and how long it waits before: what it has read
// for hours hangs on an answer, and the API server may be restarting.
const (
	lastAsks     = 12
	lastAsksWait = 5 * time.Second
)

// claimUse is what a worker learns of the pods that use its claim while it reads: a
// set may be scaled up after the backup has begun.
type claimUse struct {
	users ClaimUsers
	claim string

	mu   sync.Mutex
	pods map[string]bool
	err  error
}

// claimUse returns nil where others may use the member's claim, or there is none.
func (b *Backup) claimUse(m Member) *claimUse {
	if b.Users == nil || len(m.Claims) == 0 {
		return nil
	}
	return &claimUse{users: b.Users, claim: m.Claims[0].Name, pods: map[string]bool{}} // it reads one
}

// refuse fails if the claim is in use already.
func (u *claimUse) refuse(ctx context.Context) error {
	if u == nil {
		return nil
	}
	u.ask(ctx)
	if len(u.pods) > 0 {
		return errInUse(u.claim, u.names())
	}
	return u.err
}

// during asks while do does its work, and once more afterwards. What it has seen is a
// reason to doubt what do has read.
func (u *claimUse) during(ctx context.Context, interval time.Duration, do func() error) (doubts []string, err error) {
	if u == nil {
		return nil, do()
	}
	stop := every(interval, func(bool, bool) { u.ask(ctx) })
	err = do()
	stop(err)
	for again := 0; err == nil && u.err != nil && again < lastAsks; again++ {
		if err = sleep(ctx, lastAsksWait); err == nil {
			u.ask(ctx)
		}
	}
	if err != nil || u.err != nil {
		return nil, errors.Join(err, u.err)
	}
	if len(u.pods) > 0 {
		doubts = append(doubts, fmt.Sprintf("claim %s was in use by pod %s while its files were read: they are not of one moment", u.claim, u.names()))
	}
	return doubts, nil
}

// ask asks once. Only the last answer has to be one.
func (u *claimUse) ask(ctx context.Context) {
	users, err := u.users(ctx)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
	for _, user := range users[u.claim] {
		u.pods[user.Pod] = true
	}
}

func (u *claimUse) names() string { return strings.Join(slices.Sorted(maps.Keys(u.pods)), ", ") }
