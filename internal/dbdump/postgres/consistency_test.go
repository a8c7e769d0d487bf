package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/dbdumptest"
	"keepset/test/servers"
)

// TestOneSnapshot: all connections see one moment, while somebody moves amounts between tables whose sum never changes.
func TestOneSnapshot(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			const tables, rows = 4, 500
			source := v.start(t)
			source.Exec(t, "postgres", "CREATE DATABASE bank")
			for i := range tables {
				source.Exec(t, "bank", fmt.Sprintf("CREATE TABLE public.t%d (id int PRIMARY KEY, amount bigint)", i),
					fmt.Sprintf("INSERT INTO public.t%d SELECT g, 1000 FROM generate_series(1, %d) g", i, rows))
			}
			moved, stop := moving(t, source, tables)
			memory := dbdumptest.NewMemory()
			memory.OnCreate = func(name string) error {
				if strings.HasSuffix(name, ".copy") { // rows are on their way, and meanwhile the world goes on
					at := moved.Load()
					for until := time.Now().Add(time.Minute); moved.Load() < at+3; time.Sleep(time.Millisecond) {
						if time.Now().After(until) {
							return errors.New("nobody writes")
						}
					}
				}
				return nil
			}
			o := options(source)
			o.ChunkBytes = 1 // many pieces
			report, err := newEngine(t, o).Dump(t.Context(), memory)
			require.NoError(t, err)
			stop()
			require.EqualValues(t, tables*rows, report.Rows)
			sum, pieces := 0, 0
			for _, name := range memory.Names() {
				if !strings.HasSuffix(name, ".copy") {
					continue
				}
				pieces++
				for line := range strings.Lines(string(memory.Bytes(name))) {
					_, amount, _ := strings.Cut(strings.TrimSpace(line), "\t")
					n, err := strconv.Atoi(amount)
					require.NoError(t, err, line)
					sum += n
				}
			}
			require.Equal(t, tables*rows*1000, sum, "a transaction is in the backup in part")
			require.Greater(t, pieces, tables)
		})
	}
}

// moving moves amounts from each table to the next one until it is stopped, and counts its transactions.
func moving(t *testing.T, s *servers.Postgres, tables int) (moved *atomic.Int64, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	conn := s.Connect(t, "bank")
	moved = &atomic.Int64{}
	var failed error
	var done sync.WaitGroup
	done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			const move = "BEGIN; UPDATE public.t%d SET amount = amount - %d WHERE id %% 7 = %d; UPDATE public.t%d SET amount = amount + %d WHERE id %% 7 = %d; COMMIT"
			from, to, amount, some := i%tables, (i+1)%tables, 1+i%17, i%7
			if _, err := conn.Exec(ctx, fmt.Sprintf(move, from, amount, some, to, amount, some)).ReadAll(); err != nil {
				failed = err
				return
			}
			moved.Add(1)
		}
	})
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			done.Wait()
			if failed != nil && !errors.Is(failed, context.Canceled) {
				t.Errorf("the writer failed: %v", failed)
			}
		})
	}
	t.Cleanup(stop)
	return moved, stop
}

// TestLostRow: a server that has sent one row less than there are, and says so itself, is found out.
func TestLostRow(t *testing.T) {
	source := servers.Postgres15(t)
	source.Exec(t, "postgres", "CREATE DATABASE shop")
	source.Exec(t, "shop", "CREATE TABLE public.large (id int, v text)", "INSERT INTO public.large SELECT g, repeat('x', 90) FROM generate_series(1, 400) g")
	o := options(source)
	o.ChunkBytes = 1
	var lost atomic.Int64
	o.Address = between(t, source.Addr, func(message []byte) []byte {
		tag, counts := bytes.CutPrefix(message, []byte("C\x00\x00\x00\x0cCOPY "))
		n, err := strconv.Atoi(strings.TrimRight(string(tag), "\x00"))
		if !counts || err != nil || n < 11 || !lost.CompareAndSwap(0, 1) {
			return message
		}
		return fmt.Appendf(nil, "C\x00\x00\x00\x0cCOPY %d\x00", n-1)
	})
	_, err := newEngine(t, o).Dump(t.Context(), dbdumptest.NewMemory())
	require.EqualValues(t, 1, lost.Load())
	require.ErrorContains(t, err, `"public"."large" of database shop: 399 rows were written but the server counts 400`)
}

// between is the address of somebody between client and server who may change each of the server's messages.
func between(t *testing.T, server string, change func(message []byte) []byte) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		all.Wait()
	})
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { relay(t.Context(), client, server, change) })
		}
	})
	return listener.Addr().String()
}

// relay hands on what both sides say, until one of them hangs up. All messages of the server begin with a letter and
// their length, but for the first one, when it answers the question whether it can encrypt with an N alone.
func relay(ctx context.Context, client net.Conn, address string, change func([]byte) []byte) {
	defer client.Close() //nolint:errcheck // a test's
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // a test's
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	for greeted := false; ; {
		head := make([]byte, 1, 5)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		message := head
		if greeted = greeted || head[0] != 'N'; greeted {
			head = head[:5]
			if _, err := io.ReadFull(server, head[1:]); err != nil {
				return
			}
			length := int(head[1])<<24 | int(head[2])<<16 | int(head[3])<<8 | int(head[4])
			message = append(head, make([]byte, length-4)...)
			if _, err := io.ReadFull(server, message[5:]); err != nil {
				return
			}
		}
		if _, err := client.Write(change(message)); err != nil {
			return
		}
	}
}
