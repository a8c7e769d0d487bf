package job

import (
	"context"
	"errors"
	"fmt"

	"keepset/internal/dbdump"
)

// Asker asks the server at an address, host:port, once whether it is what its
// files were restored for. unasked says what it may not be asked, empty for
// nothing. With ErrUnreachable, ErrNotFollowing and ErrAccess it is asked again
// for a while.
type Asker func(ctx context.Context, address string) (unasked string, err error)

// ask makes sure that the set's own server runs on the files that were restored: a
// pod without probes is Ready whatever its server does, and one with probes may
// have found its files elsewhere. Until it has said so, no other ordinal is touched.
func (r *Restore) ask(ctx context.Context, item RestoreItem) (unasked string, err error) {
	if r.Files == nil || r.Files.Ask == nil {
		return "", nil
	}
	ask := r.Files.Ask(item)
	err = waitReady(ctx, r.Clock, func(ctx context.Context) error {
		set, err := r.discover(ctx)
		if err != nil {
			return err
		}
		member, _ := set.Member(item.Ordinal)
		if member.Address() == "" {
			return fmt.Errorf("pod %s has no address: %w: %s", member.Pod.Name, dbdump.ErrUnreachable, member.Pod.Reason)
		}
		if unasked, err = ask(ctx, member.Address()); err != nil && member.Pod.Reason != "" {
			err = fmt.Errorf("%w (pod %s: %s)", err, member.Pod.Name, member.Pod.Reason)
		}
		return err
	}, func(context.Context) error { return nil }, r.ReadyWait)
	switch {
	case errors.Is(err, dbdump.ErrMismatch):
		return "", fmt.Errorf("%w: the pod is Ready, and not what was restored: %w; the files are in the claim at %s: --data-directory says where the container looks for them", ErrConfig, err, item.Place.Path)
	case errors.Is(err, dbdump.ErrAccess):
		return "", fmt.Errorf("the pod is Ready, and its server does not know the account that it is asked with: %w; if it runs on the restored files, they have the account as it was when they were backed up: "+
			"put it right there, or give that password, and try again", err)
	case err != nil && ctx.Err() == nil:
		return "", fmt.Errorf("the pod is Ready, and its server did not say that it is what was restored: %w (--ready-timeout is %s)", err, r.ReadyWait)
	case err == nil && unasked == "":
		r.Log.Info("the restored server says that it is what was restored", "ordinal", item.Ordinal)
	case err == nil:
		r.Log.Warn("the restored server was not asked, or not all", "ordinal", item.Ordinal, "why", unasked)
	}
	return unasked, err
}
