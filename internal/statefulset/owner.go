package statefulset

import (
	"cmp"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// keepsetUser is the user of Keepset's image.
const keepsetUser = 65532

// WorkerSpec says which claims of a set workers read or fill, and as whom.
type WorkerSpec struct {
	// Template of the claims; empty: the set's only one.
	Template string
	// UID and GID that the files belong to; 0 takes what the set's own pods run as.
	UID, GID int64
	// Temporary: workers read claims that were made for them, see
	// [Workers.TemporaryClaim], whose class is Class; empty: that of the set's own.
	Temporary bool
	Class     string
	// Server: the files are those of a server, which insists on owning them: that they
	// are of its group is not enough.
	Server bool
	// Root has the workers run as root, with the capability that their work takes
	// and no other: for files of several owners.
	Root bool
}

// ClaimTemplate finds the template of the claims that workers shall mount.
// ErrAmbiguous when the set has several and none is named.
func (s Set) ClaimTemplate(name string) (ClaimTemplate, error) {
	names := templateNames(s.object)
	at := "statefulset " + s.Namespace + "/" + s.Name
	if name == "" && len(names) > 1 {
		return ClaimTemplate{}, fmt.Errorf("%s: %w: it has the claim templates %v; name one with --claim-template", at, ErrAmbiguous, names)
	}
	i := slices.IndexFunc(s.Templates, func(t ClaimTemplate) bool { return name == "" || t.Name == name })
	switch {
	case i < 0 && name == "":
		return ClaimTemplate{}, fmt.Errorf("%s: it has no claim templates, and so no files of its own: %w", at, ErrNotFound)
	case i < 0:
		return ClaimTemplate{}, fmt.Errorf("%s: claim template %q: %w; it has %v", at, name, ErrNotFound, names)
	case s.Templates[i].Block:
		return ClaimTemplate{}, fmt.Errorf("%s: %w: claims of template %s are block devices without files; back them up with --method snapshot", at, ErrAmbiguous, s.Templates[i].Name)
	}
	return s.Templates[i], nil
}

// identity is whom a worker runs as.
type identity struct {
	uid, gid int64
	// groups that it is in besides.
	groups []int64
	// fsGroup of the set's pods, to which a new volume is given. No worker that
	// reads has it: the kubelet would change the owners of what is there.
	fsGroup *int64
}

// identity finds out whose files are on a claim: those who the set's pods run
// as, or the group that volumes are given to. An image may have a user of its
// own, which only the user of Keepset can tell.
func (w WorkerSpec) identity(set *appsv1.StatefulSet, template string) (identity, error) {
	pod := deref(set.Spec.Template.Spec.SecurityContext)
	own := deref(userOf(set.Spec.Template.Spec, template).SecurityContext)
	who := identity{groups: slices.Clone(pod.SupplementalGroups), fsGroup: pod.FSGroup}
	if who.fsGroup != nil {
		who.groups = append(who.groups, *who.fsGroup)
	}
	if w.Root {
		return who, nil
	}
	uid, gid := cmp.Or(own.RunAsUser, pod.RunAsUser), cmp.Or(own.RunAsGroup, pod.RunAsGroup)
	at := "statefulset " + set.Namespace + "/" + set.Name
	switch {
	case w.UID != 0:
		who.uid = w.UID
	case uid != nil && *uid == 0:
		return who, fmt.Errorf("%s: %w: its pods run as root; give --worker-uid if the files belong to another user, or --worker-root", at, ErrAmbiguous)
	case uid != nil:
		who.uid = *uid
	case who.fsGroup != nil && !w.Server:
		who.uid = keepsetUser
	default:
		return who, fmt.Errorf("%s: %w: its pods do not say by runAsUser whose the files are (by fsGroup they may, but for those of a server); give --worker-uid (KEEPSET_WORKER_UID), the user that the image runs as, or --worker-root", at, ErrAmbiguous)
	}
	switch {
	case w.GID != 0:
		who.gid = w.GID
	case gid != nil:
		who.gid = *gid
	case who.fsGroup != nil:
		who.gid = *who.fsGroup
	default:
		who.gid = who.uid
	}
	return who, nil
}

// userOf is the container that mounts the claims of a template.
func userOf(pod corev1.PodSpec, template string) corev1.Container {
	for _, c := range pod.Containers {
		if mountsAny(c, []string{template}) {
			return c
		}
	}
	return corev1.Container{}
}
