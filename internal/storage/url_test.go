package storage_test

import (
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/storagetest"
)

func TestParseURL(t *testing.T) {
	for url, want := range map[string]storage.Location{
		"s3://bucket":                 {Scheme: "s3", Bucket: "bucket"},
		"s3://bucket/":                {Scheme: "s3", Bucket: "bucket"},
		"s3://bucket/prefix":          {Scheme: "s3", Bucket: "bucket", Path: "prefix"},
		"s3://bucket/a/b c/":          {Scheme: "s3", Bucket: "bucket", Path: "a/b c"},
		"s3://my.old_Bucket/a%20b":    {Scheme: "s3", Bucket: "my.old_Bucket", Path: "a%20b"},
		"file:///backup":              {Scheme: "file", Path: "/backup"},
		"file:///backup//x/../y/":     {Scheme: "file", Path: "/backup/y"},
		"file:///with space/100%/ü?#": {Scheme: "file", Path: "/with space/100%/ü?#"},
		"mem:":                        {Scheme: "mem"},
	} {
		got, err := storage.ParseURL(url)
		require.NoError(t, err, url)
		require.Equal(t, want, got, url)
		again, err := storage.ParseURL(got.String())
		require.NoError(t, err, got.String())
		require.Equal(t, got, again)
	}
}

func TestParseURLRefuses(t *testing.T) {
	for url, says := range map[string]string{
		"":                              "not named",
		"/backup":                       "give file:///backup",
		"backup":                        "neither",
		"gs://bucket/x":                 "neither",
		"S3://bucket":                   "neither",
		"s3:bucket":                     "neither",
		"s3://":                         "bucket's name is missing",
		"s3:///prefix":                  "bucket's name is missing",
		"s3://key:secret@bucket/prefix": "AWS_ variables",
		"s3://localhost:9000/bucket":    "AWS_ variables",
		"s3://bucket/a//b":              "empty element",
		"s3://bucket/../other":          `".."`,
		"s3://bucket/p?endpoint=x":      "'?'",
		"s3://bu cket/p":                "no valid name",
		"s3://..../p":                   "no valid name",
		"s3://bucket/p\n":               "control character",
		"file://backup":                 "file:///backup",
		"file://":                       "must be absolute",
		"file:///":                      "root directory",
		"file:///..":                    "root directory",
		"mem://x":                       "neither",
	} {
		_, err := storage.ParseURL(url)
		require.ErrorIs(t, err, storage.ErrInvalid, url)
		require.ErrorContains(t, err, says, url)
	}
}

func TestCheckKey(t *testing.T) {
	for _, key := range storagetest.InvalidKeys {
		require.ErrorIs(t, storage.CheckKey(key), storage.ErrInvalid, "%q", key)
	}
	for _, key := range []string{"a", "a/b", "...", "-", " ", "ä", strings.Repeat("k", 255), strings.Repeat("k/", 449) + "kk"} {
		require.NoError(t, storage.CheckKey(key), "%q", key)
	}
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"s3://bucket/prefix/", "file:///a/../b", "mem:", "s3://a:b@c/d?e#f", "/x", "file:////"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, url string) {
		l, err := storage.ParseURL(url)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalid)
			require.Zero(t, l)
			return
		}
		again, err := storage.ParseURL(l.String())
		require.NoError(t, err)
		require.Equal(t, l, again)
		switch l.Scheme {
		case "s3":
			require.NotContains(t, l.Bucket, "/")
			if l.Path != "" {
				require.NoError(t, storage.CheckKey(l.Path))
			}
		case "file":
			require.True(t, path.IsAbs(l.Path) && path.Clean(l.Path) == l.Path && l.Path != "/")
		default:
			require.Equal(t, storage.Location{Scheme: "mem"}, l)
		}
	})
}

func FuzzCheckKey(f *testing.F) {
	for _, seed := range append(storagetest.InvalidKeys, "a/b", "ä/+ %") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if err := storage.CheckKey(key); err != nil {
			require.ErrorIs(t, err, storage.ErrInvalid)
			return
		}
		// Whatever passes stays where it belongs, below any base, under any prefix.
		require.Equal(t, "/base/"+key, path.Join("/base", key))
		require.LessOrEqual(t, len(key), 900)
		require.NotContains(t, "/"+key, "/"+storage.ReservedPrefix)
		dir, err := storage.CheckPrefix(key)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(key, dir))
	})
}
