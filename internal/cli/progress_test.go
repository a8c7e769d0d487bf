package cli

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vbauerster/mpb/v8"

	"keepset/internal/job"
)

func TestRow(t *testing.T) {
	at := job.Event{Ordinal: 1, Name: "mysql-1", Bytes: 30 << 20, Expected: 100 << 20, Stored: 1 << 20}
	half := row{Event: at, label: len("ordinal 10  mysql-10"), elapsed: 3 * time.Second, rate: 10 << 20}
	for width, want := range map[int]string{
		200: "ordinal 1  mysql-1    [============>                           ]   30%   30.0 MiB of 100.0 MiB   10.0 MiB/s  ETA 7s",
		100: "ordinal 1  mysql-1    [=======>                 ]   30%   30.0 MiB of 100.0 MiB   10.0 MiB/s  ETA 7s",
		80:  "ordinal 1  mysql-1     30%   30.0 MiB of 100.0 MiB   10.0 MiB/s  ETA 7s",
		62:  "ordinal 1  mysql-1    [===>       ]   30%   10.0 MiB/s  ETA 7s",
		40:  "ordinal 1  mysql-1     30%  ETA 7s",
		30:  "ordinal 1   30%  ETA 7s",
		12:  " 30%",
		2:   " 3",
		0:   "",
	} {
		text := half.text(width)
		assert.LessOrEqual(t, len(text), width)
		assert.Equal(t, want, text, width)
	}
	first := half
	first.Expected = 0
	assert.Equal(t, "ordinal 1  mysql-1     30.0 MiB   10.0 MiB/s  for 3s", first.text(80))
	late := half
	late.Bytes = 200 << 20
	assert.Contains(t, late.text(80), " 99%", "an estimate is never 100 percent")
	assert.Contains(t, late.text(80), "finishing")
	stalled := half
	stalled.rate = 0
	assert.Contains(t, stalled.text(80), "ETA -")

	done := half
	done.Done = true
	assert.Equal(t, "ordinal 1  mysql-1    30.0 MiB in 3s, 10.0 MiB/s, 1.0 MiB new", done.text(80))
	assert.Equal(t, "ordinal 1  mysql-1    30.0 MiB in 3s", done.text(40))
	done.Failed = true
	assert.Equal(t, "ordinal 1  mysql-1    failed after 30.0 MiB", done.text(80))
	stopped := half
	stopped.stopped = true
	assert.Equal(t, "ordinal 1  mysql-1    stopped after 30.0 MiB", stopped.text(80))
}

func TestPace(t *testing.T) {
	now := time.Date(2026, 11, 20, 13, 0, 0, 0, time.UTC)
	p := newPace(now)
	p.add(now, 0)
	assert.Zero(t, p.rate())
	for s := range 30 {
		p.add(now.Add(time.Duration(s+1)*time.Second), int64(s+1)*100)
	}
	assert.InDelta(t, 100, p.rate(), 0.1)
	for s := range 20 {
		p.add(now.Add(time.Duration(s+31)*time.Second), 3000)
	}
	assert.Zero(t, p.rate(), "what was long ago does not count")
	assert.Less(t, len(p.samples), 15)
}

// A line that comes after the bars have ended is not lost.
func TestLogLinesOutliveTheBars(t *testing.T) {
	var out bytes.Buffer
	pool := mpb.New(mpb.WithOutput(&out), mpb.WithAutoRefresh())
	w := &aboveBars{bars: pool, after: &out}
	pool.Wait()
	_, err := w.Write([]byte("late\n"))
	require.NoError(t, err)
	assert.Equal(t, "late\n", out.String())
	_, err = (&aboveBars{bars: failing{}, after: &out}).Write(nil)
	require.ErrorIs(t, err, errFull)
}

var errFull = errors.New("full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }
