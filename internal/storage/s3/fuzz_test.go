package s3

import (
	"crypto/sha256"
	"encoding/base64"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
)

// A store's checksum is that of the whole object or unknown.
func FuzzWholeSHA256(f *testing.F) {
	sum := sha256.Sum256([]byte("x"))
	f.Add(base64.StdEncoding.EncodeToString(sum[:]), "FULL_OBJECT", []byte("x"))
	f.Add(base64.StdEncoding.EncodeToString(sum[:])+"-2", "COMPOSITE", []byte{})
	f.Add("", "", []byte{})
	f.Fuzz(func(t *testing.T, value, kind string, content []byte) {
		if _, ok := wholeSHA256(&value, types.ChecksumType(kind)); ok {
			require.NotEqual(t, string(types.ChecksumTypeComposite), kind)
			require.GreaterOrEqual(t, len(value), 44)
		}
		_, ok := wholeSHA256(nil, types.ChecksumType(kind))
		require.False(t, ok)
		sum := sha256.Sum256(content)
		text := base64.StdEncoding.EncodeToString(sum[:])
		got, ok := wholeSHA256(&text, types.ChecksumTypeFullObject)
		require.True(t, ok)
		require.Equal(t, sum, got)
	})
}
