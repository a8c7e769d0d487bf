package csi

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
)

func TestClassChoice(t *testing.T) {
	type class struct {
		name, driver string
		isDefault    bool
	}
	for name, test := range map[string]struct {
		configured string
		classes    []class
		refused    bool
		want       string
		sentinel   error
		says       []string
	}{
		"the configured one":              {"b", []class{{"a", driver, true}, {"b", driver, false}}, false, "b", nil, nil},
		"the configured one, unseen":      {"b", nil, true, "b", nil, nil},
		"the configured one is missing":   {"c", []class{{"a", driver, false}}, false, "", snapshot.ErrNotFound, []string{"VolumeSnapshotClass c", "a of driver " + driver, "--volume-snapshot-class"}},
		"the configured one is another's": {"a", []class{{"a", "other.example.com", false}}, false, "", snapshot.ErrUnsupported, []string{"other.example.com", driver}},
		"the default":                     {"", []class{{"a", driver, false}, {"b", driver, true}, {"c", "other.example.com", true}}, false, "b", nil, nil},
		"the only one":                    {"", []class{{"a", driver, false}, {"c", "other.example.com", true}}, false, "a", nil, nil},
		"two defaults":                    {"", []class{{"a", driver, true}, {"b", driver, true}}, false, "", snapshot.ErrUnsupported, []string{"more than one is its default (a, b)", "--volume-snapshot-class"}},
		"several without a default":       {"", []class{{"b", driver, false}, {"a", driver, false}}, false, "", snapshot.ErrUnsupported, []string{"a, b", annotationDefaultClass}},
		"none of the driver":              {"", []class{{"c", "other.example.com", true}}, false, "", snapshot.ErrNotFound, []string{driver, "c of driver other.example.com"}},
		"none at all":                     {"", nil, false, "", snapshot.ErrNotFound, []string{driver, "the cluster has no other"}},
		"unseen: the controller's choice": {"", []class{{"a", driver, false}}, true, "", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t)
			f.dropClass(t)
			for _, c := range test.classes {
				f.addClass(t, c.name, c.driver, volumesnapshotv1.VolumeSnapshotContentRetain, c.isDefault)
			}
			if test.refused {
				f.refuse("get volumesnapshotclasses", "list volumesnapshotclasses")
			}
			got, err := f.snapshotter(func(o *Options) { o.Class = test.configured }).classOf(t.Context(), driver)
			if test.sentinel != nil {
				require.ErrorIs(t, err, test.sentinel)
				for _, text := range test.says {
					require.ErrorContains(t, err, text)
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got.name)
		})
	}
}

// A class under which the objects' deletion deletes the snapshots is
// complained of, once.
func TestClassThatDeletesIsWarnedOf(t *testing.T) {
	f := newFakeCluster(t)
	var log bytes.Buffer
	s := f.snapshotter(func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 2 {
		_, err := s.classOf(t.Context(), driver)
		require.NoError(t, err)
	}
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"))
	require.Contains(t, log.String(), "Retain")

	f.dropClass(t)
	f.addClass(t, "keeps", driver, volumesnapshotv1.VolumeSnapshotContentRetain, true)
	log.Reset()
	_, err := s.classOf(t.Context(), driver)
	require.NoError(t, err)
	require.Empty(t, log.String())
}
