package ebs

import (
	"errors"
	"net"
	"net/http"
	"testing"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
)

// A reply that broke off in its body, status 200 and all, is one that was lost:
// reads are repeated, and what may have been done is looked for.
func TestAReplyThatBreaksOffIsLost(t *testing.T) {
	err := error(&smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusOK}},
		Err:      &smithy.DeserializationError{Err: &net.OpError{Op: "read", Err: net.ErrClosed}},
	})
	k := classify(err)
	require.True(t, k.again)
	require.True(t, k.unknown)
	require.ErrorIs(t, k.sentinel, snapshot.ErrUnreachable)
	require.True(t, lost(errors.Join(errors.New("create"), createSnapshot.describe("x", k, err))))
}
