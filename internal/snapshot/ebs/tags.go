package ebs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// Tags of everything that we make. IAM policies may depend on them.
const (
	tagPrefix    = "keepset/"
	tagCluster   = tagPrefix + "cluster"
	tagNamespace = tagPrefix + "namespace"
	tagSet       = tagPrefix + "set"
	tagOrdinal   = tagPrefix + "ordinal"
	tagClaim     = tagPrefix + "claim"
	// tagName of a snapshot is the name of its cut, which holds the backup's ID.
	tagName = tagPrefix + "name"
	// tagAttempt of a snapshot tells what one call of Cut has made from what another has.
	tagAttempt = tagPrefix + "attempt"
	// tagTogether of a snapshot says that it was cut in one call with the others of its attempt.
	tagTogether = tagPrefix + "together"
	// tagCopyOf of a snapshot is the ID of the one that it is a copy of.
	tagCopyOf = tagPrefix + "copy-of"
	// tagTarget of a volume is the namespace of the claim that it is for.
	tagTarget = tagPrefix + "target-namespace"
	// tagSnapshot and tagRun of a volume say what it was made of, and for which restore.
	tagSnapshot = tagPrefix + "snapshot"
	tagRun      = tagPrefix + "run"
	// tagUnbound of a volume stands there until a claim is bound to it. Only
	// volumes with this tag are ever deleted.
	tagUnbound = tagPrefix + "unbound"
)

// reserved are the tags that a copy does not take along: AWS's own, which it
// refuses, ours, and what the driver says of one certain volume.
func reserved(key string) bool {
	return strings.HasPrefix(key, "aws:") || strings.HasPrefix(key, tagPrefix)
}

// perVolume are the tags by which the CSI driver says which claim a volume is of.
func perVolume(key string) bool {
	return strings.HasPrefix(key, "kubernetes.io/created-for/") || key == "CSIVolumeName" || key == "Name"
}

// ownerTags are those that a thing's owner is told by.
func ownerTags(o snapshot.Owner) map[string]string {
	return map[string]string{tagCluster: o.Cluster, tagNamespace: o.Set.Namespace, tagSet: o.Set.Name}
}

// cutTags are common to all snapshots of a cut.
func (s *Snapshotter) cutTags(name, attempt string, v snapshot.Volume) map[string]string {
	tags := maps.Clone(s.options.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, ownerTags(v.Owner))
	tags[tagOrdinal], tags[tagName], tags[tagAttempt] = strconv.Itoa(v.Ordinal), name, attempt
	return tags
}

// ownTags are those of one snapshot alone: its claim, and what its volume bears.
func ownTags(v snapshot.Volume, volume types.Volume) map[string]string {
	tags := map[string]string{tagClaim: v.Claim}
	for _, t := range volume.Tags {
		if key := aws.ToString(t.Key); !reserved(key) {
			tags[key] = aws.ToString(t.Value)
		}
	}
	return tags
}

// toTags is the wire's form, in order of the keys.
func toTags(tags map[string]string) []types.Tag {
	list := make([]types.Tag, 0, len(tags))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	return list
}

func fromTags(tags []types.Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}

func specify(resource types.ResourceType, tags map[string]string) []types.TagSpecification {
	return []types.TagSpecification{{ResourceType: resource, Tags: toTags(tags)}}
}

// filters asks for what bears all of the tags.
func filters(tags map[string]string) []types.Filter {
	list := make([]types.Filter, 0, len(tags))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Filter{Name: aws.String("tag:" + key), Values: []string{escape(tags[key])}})
	}
	return list
}

// escape takes away the meaning that * and ? have in EC2's filters:
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
func escape(value string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(value)
}

// owned says whether the tags are of the owner.
func owned(tags map[string]string, o snapshot.Owner) bool {
	return ownerOf(tags) == o && tags[tagCluster] != ""
}

func ownerOf(tags map[string]string) snapshot.Owner {
	return snapshot.Owner{Cluster: tags[tagCluster], Set: record.SetID{Namespace: tags[tagNamespace], Name: tags[tagSet]}}
}

// digest is a client token: the same for the same parts, and for no others.
func digest(parts ...string) string {
	var all []byte
	for _, part := range parts {
		all = fmt.Appendf(all, "%d:%s", len(part), part)
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:])
}
