package job

import (
	"encoding/json"
	"fmt"
)

// parseRestorePlan reads the plan that an earlier pod of the run stored. It
// lies in an annotation, where it can be edited, and claims are deleted by what
// it says: what no restore would have stored is refused.
func parseRestorePlan(stored []byte, run string) (*RestorePlan, error) {
	p := &RestorePlan{}
	if err := json.Unmarshal(stored, p); err != nil {
		return nil, fmt.Errorf("read the stored restore plan of run %s: %w", run, err)
	}
	if p.Format != restorePlanFormat {
		return nil, fmt.Errorf("the stored restore plan of run %s has format %d, and this version knows %d: finish it with the version that began it, or abort it", run, p.Format, restorePlanFormat)
	}
	ok := p.Run == run && p.SetUID != "" && len(p.Items) > 0 && p.Backup.Validate() == nil && p.From.Validate() == nil
	last := -1
	for _, item := range p.Items {
		ok = ok && item.Ordinal > last && item.Base >= 0 && !(item.Replace && item.Keep)
		last = item.Ordinal
	}
	if !ok {
		return nil, fmt.Errorf("%w: the stored restore plan of run %s is not one that a restore makes: somebody changed it; abort the restore and start a new one", ErrConfig, run)
	}
	return p, nil
}
