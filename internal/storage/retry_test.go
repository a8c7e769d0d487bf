package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/storage"
	"keepset/internal/storage/mem"
	"keepset/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFlaky = errors.New("connection reset")

// retrying returns a store that retries, over one that fails as told, over a
// good one.
func retrying() (storage.Store, *storagetest.Faulty, *mem.Store) {
	inner := mem.New(mem.Options{})
	faulty := storagetest.NewFaulty(inner)
	return storage.WithRetry(faulty, storage.Retry{}), faulty, inner
}

func read(ctx context.Context, s storage.Store, key string, offset, length int64) (data []byte, err error) {
	r, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

func write(t *testing.T, s storage.Store, key, data string) {
	t.Helper()
	require.NoError(t, s.Put(t.Context(), key, strings.NewReader(data)))
}

// The decorators keep every promise of the store below them.
func TestDecoratorsConform(t *testing.T) {
	t.Run("retry", func(t *testing.T) {
		storagetest.Run(t, func(*testing.T) storage.Store {
			return storage.WithRetry(mem.New(mem.Options{}), storage.Retry{})
		})
	})
	t.Run("bandwidth", func(t *testing.T) {
		storagetest.Run(t, func(*testing.T) storage.Store {
			return storage.WithBandwidth(mem.New(mem.Options{}), storage.Bandwidth{Upload: 1 << 40, Download: 1 << 40})
		})
	})
	t.Run("prefix", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			s := mem.New(mem.Options{})
			write(t, s, "repo", "not below the prefix")
			write(t, s, "repo-b/a", "not below the prefix")
			p, err := storage.WithPrefix(s, "repo")
			require.NoError(t, err)
			return p
		})
	})
}

// A store of which every operation fails now and then is as good as another
// one, once it is retried.
func TestRetriedFlakyStoreConforms(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store {
		faulty := storagetest.NewFaulty(mem.New(mem.Options{}))
		for i := range 20 {
			faulty.Inject(
				storagetest.Fault{On: storagetest.Put, Err: errFlaky, Skip: 3 * i},
				storagetest.Fault{On: storagetest.Put, Err: errFlaky, Skip: 4 * i, After: true, Prefix: "packs"},
				storagetest.Fault{On: storagetest.Get, Err: io.ErrUnexpectedEOF, Skip: i, At: 7},
				storagetest.Fault{On: storagetest.Stat, Err: errFlaky, Skip: i},
				storagetest.Fault{On: storagetest.List, Err: errFlaky, Skip: i, At: 5},
				storagetest.Fault{On: storagetest.Delete, Err: errFlaky, Skip: i, After: true},
			)
		}
		return flakyProbe{storage.WithRetry(faulty, storage.Retry{MinDelay: time.Microsecond, MaxDelay: time.Millisecond, Attempts: 100})}
	})
}

// flakyProbe answers the suite's question for a store that has not the power.
type flakyProbe struct{ storage.Store }

func (flakyProbe) Probe(context.Context, string, io.ReadSeeker) (storage.Guarantee, error) {
	return storage.GuaranteeAtomic, nil
}

func TestRetrySucceedsAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		write(t, inner, "there", "x")
		faulty.Inject(storagetest.Fault{On: storagetest.Put, Err: errFlaky, Times: 9})
		write(t, s, "k", "data")
		for _, on := range []storagetest.Operation{storagetest.Get, storagetest.Stat, storagetest.List, storagetest.Delete} {
			faulty.Inject(storagetest.Fault{On: on, Err: errFlaky, Times: 9})
		}
		data, err := read(t.Context(), s, "k", 0, -1)
		require.NoError(t, err)
		require.Equal(t, "data", string(data))
		_, err = s.Stat(t.Context(), "k")
		require.NoError(t, err)
		for _, err := range s.List(t.Context(), "") {
			require.NoError(t, err)
		}
		require.NoError(t, s.Delete(t.Context(), "there"))
		require.Equal(t, 10, faulty.Calls(storagetest.Put))
	})
}

func TestRetryGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, _ := retrying()
		faulty.Inject(
			storagetest.Fault{On: storagetest.Put, Err: errFlaky, Times: -1},
			storagetest.Fault{On: storagetest.List, Err: errFlaky, Times: -1},
		)
		start := time.Now()
		err := s.Put(t.Context(), "k", strings.NewReader("data"))
		require.ErrorIs(t, err, errFlaky)
		require.ErrorContains(t, err, "given up after 10 attempts")
		require.Equal(t, 10, faulty.Calls(storagetest.Put))
		// 9 pauses of at most 0.2, 0.4, ... 12.8, 15 s: together below 41 s, and
		// with fair dice never below 5.
		elapsed := time.Since(start)
		require.Less(t, elapsed, 56*time.Second)
		require.Greater(t, elapsed, time.Second)

		for _, err := range s.List(t.Context(), "") {
			require.ErrorIs(t, err, errFlaky)
		}
		require.Equal(t, 10, faulty.Calls(storagetest.List))
	})
}

// Silence is expensive to find out: of it there are fewer attempts than of other failures.
func TestRetryGivesUpOnSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		write(t, inner, "there", "x")
		silent := &storage.SilentError{For: 30 * time.Second, Err: errFlaky}
		faulty.Inject(storagetest.Fault{Prefix: "k", Delay: 30 * time.Second, Err: silent, Times: -1})
		start := time.Now()
		_, err := s.Stat(t.Context(), "k")
		require.ErrorIs(t, err, errFlaky)
		require.ErrorContains(t, err, "given up after 1m30s of silence, at attempt 3")
		require.Less(t, time.Since(start), 95*time.Second, "first contact")

		_, err = s.Stat(t.Context(), "there")
		require.NoError(t, err)
		start = time.Now()
		_, err = s.Stat(t.Context(), "k")
		require.ErrorContains(t, err, "given up after 2m0s of silence, at attempt 4")
		require.Less(t, time.Since(start), 125*time.Second)
	})
}

// Whatever the patience, one silent attempt is not the last.
func TestRetryAfterOneLongSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		write(t, inner, "k", "x")
		silent := &storage.SilentError{For: 10 * time.Minute, Err: errFlaky}
		faulty.Inject(storagetest.Fault{Prefix: "k", Delay: 10 * time.Minute, Err: silent, Times: 1})
		_, err := s.Stat(t.Context(), "k")
		require.NoError(t, err)
	})
}

// An upload that takes long, moves, and then breaks is tried as often as ever.
func TestRetryOfSlowAttemptsIsNotBoundedByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, _ := retrying()
		faulty.Inject(storagetest.Fault{On: storagetest.Put, Delay: 10 * time.Minute, Err: errFlaky, Times: 5})
		write(t, s, "k", "x")
		require.Equal(t, 6, faulty.Calls(storagetest.Put))
	})
}

func TestRetryPausesAreDrawnAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, _ := retrying()
		faulty.Inject(storagetest.Fault{Err: errFlaky, Times: -1})
		seen := map[time.Duration]bool{}
		for range 20 {
			start := time.Now()
			_, err := s.Stat(t.Context(), "k")
			require.ErrorIs(t, err, errFlaky)
			seen[time.Since(start)] = true
		}
		require.Len(t, seen, 20)
	})
}

func TestRetryLeavesPermanentErrorsAlone(t *testing.T) {
	permanent := []error{
		storage.ErrExists, storage.ErrNoContainer, storage.ErrDenied, storage.ErrCredentials, storage.ErrFull,
		storage.ErrInvalid, storage.ErrRefused, storage.ErrCorrupt, fs.ErrNotExist,
	}
	for _, want := range permanent {
		s, faulty, _ := retrying()
		faulty.Inject(storagetest.Fault{Err: want, Times: -1})
		require.ErrorIs(t, s.Put(t.Context(), "k", strings.NewReader("x")), want)
		_, err := s.Get(t.Context(), "k", 0, -1)
		require.ErrorIs(t, err, want)
		require.ErrorIs(t, s.Delete(t.Context(), "k"), want)
		require.Equal(t, 1, faulty.Calls(storagetest.Put), want)
		require.Equal(t, 1, faulty.Calls(storagetest.Get), want)
		require.Equal(t, 1, faulty.Calls(storagetest.Delete), want)
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, _ := retrying()
		faulty.Inject(storagetest.Fault{Err: errFlaky, Times: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		err := s.Put(ctx, "k", strings.NewReader("x"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errFlaky, "the reason for waiting is not lost")
		require.LessOrEqual(t, time.Since(start), 3*time.Second)
	})
}

func TestRetryDoesNotRetryABrokenBody(t *testing.T) {
	s, faulty, _ := retrying()
	err := s.Put(t.Context(), "k", badBody{})
	require.ErrorIs(t, err, errBadBody)
	require.Equal(t, 1, faulty.Calls(storagetest.Put))
}

var errBadBody = errors.New("cannot seek")

type badBody struct{}

func (badBody) Read([]byte) (int, error)       { return 0, errBadBody }
func (badBody) Seek(int64, int) (int64, error) { return 0, errBadBody }

func TestPutWithALostReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		faulty.Inject(storagetest.Fault{On: storagetest.Put, Err: errFlaky, After: true})
		write(t, s, "k", "our own bytes")
		data, err := read(t.Context(), inner, "k", 0, -1)
		require.NoError(t, err)
		require.Equal(t, "our own bytes", string(data))
		require.Equal(t, 1, faulty.Calls(storagetest.Put), "what has arrived is not sent again")
	})
}

func TestPutThatLosesAgainstAnother(t *testing.T) {
	for name, theirs := range map[string]string{"same length": "THEIR bytes", "other length": "other"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, faulty, inner := retrying()
				faulty.Inject(storagetest.Fault{On: storagetest.Put, Err: errFlaky, Delay: time.Minute})
				go func() {
					time.Sleep(time.Second)
					write(t, inner, "k", theirs)
				}()
				err := s.Put(t.Context(), "k", strings.NewReader("our   bytes"))
				require.ErrorIs(t, err, storage.ErrExists)
			})
		})
	}
}

// A store may answer that the key exists before the body has been sent, and close the connection: the
// sender sees that it broke.
func TestPutOfAnExistingKeyThatLooksLikeABrokenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		write(t, inner, "k", "bytes")
		faulty.Inject(storagetest.Fault{On: storagetest.Put, Err: errFlaky, Times: -1})
		require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("bytes")))
		require.ErrorIs(t, s.Put(t.Context(), "k", strings.NewReader("other")), storage.ErrExists)
	})
}

// The connection breaks, we look, nothing is there, and only then the store finishes the first attempt.
func TestPutThatArrivesAfterTheLook(t *testing.T) {
	for name, arrives := range map[string]string{"ours": "data", "another's": "DATA"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, faulty, inner := retrying()
				faulty.Inject(
					storagetest.Fault{On: storagetest.Put, Err: errFlaky},
					storagetest.Fault{On: storagetest.Put, Delay: time.Hour},
				)
				go func() {
					time.Sleep(time.Minute)
					write(t, inner, "k", arrives)
				}()
				err := s.Put(t.Context(), "k", strings.NewReader("data"))
				if arrives == "data" {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, storage.ErrExists)
				}
			})
		})
	}
}

func TestPutWhileLookingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		faulty.Inject(
			storagetest.Fault{On: storagetest.Put, Err: errFlaky, After: true},
			storagetest.Fault{On: storagetest.Stat, Err: errFlaky, Times: 3},
			storagetest.Fault{On: storagetest.Get, Err: errFlaky, Times: 3},
		)
		write(t, s, "k", "data")
		require.Equal(t, 1, faulty.Calls(storagetest.Put))
		faulty.Inject(
			storagetest.Fault{On: storagetest.Put, Err: errFlaky},
			storagetest.Fault{On: storagetest.Stat, Err: storage.ErrDenied, Times: -1},
		)
		write(t, s, "k2", "data")
		_, err := inner.Stat(t.Context(), "k2")
		require.NoError(t, err)
	})
}

// A writer of packs may list and not read them: the size has to do.
func TestPutWithALostReplyWhereReadingIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, _ := retrying()
		faulty.Inject(
			storagetest.Fault{On: storagetest.Put, Err: errFlaky, After: true},
			storagetest.Fault{On: storagetest.Get, Err: storage.ErrDenied, Times: -1},
		)
		write(t, s, "packs/1", "our own bytes")
	})
}

func TestRetrySaysWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		faulty := storagetest.NewFaulty(mem.New(mem.Options{}))
		s := storage.WithRetry(faulty, storage.Retry{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		faulty.Inject(storagetest.Fault{On: storagetest.Put, Err: errFlaky})
		write(t, s, "packs/ab", "x")
		require.Contains(t, log.String(), "level=WARN")
		require.Contains(t, log.String(), "operation=put key=packs/ab")
		require.Contains(t, log.String(), "connection reset")
	})
}

// TestRetryRefusesDisorder: a listing out of order would otherwise lose what comes too late, as if it had been seen before.
func TestRetryRefusesDisorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, _ := retrying()
		for i := range 30 {
			write(t, s, fmt.Sprintf("packs/%02d", i), "x")
		}
		faulty.Inject(storagetest.Fault{On: storagetest.List, Disorder: true, Times: -1})
		var failed error
		for _, err := range s.List(t.Context(), "packs/") {
			failed = err
		}
		require.ErrorIs(t, failed, storage.ErrRefused)
		require.ErrorContains(t, failed, "in the order of the keys")
	})
}
