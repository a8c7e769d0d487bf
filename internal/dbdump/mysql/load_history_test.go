package mysql

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
)

func TestRowsOfThePresentStayInThePresent(t *testing.T) {
	t.Parallel()
	const rows = "1\t2020-01-01 00:00:00.000000\t2038-01-19 03:14:07.999999\ta\\t\n" +
		"1\t2019-01-01 00:00:00.000000\t2020-01-01 00:00:00.000000\t\n" +
		"2\t2020-01-01 00:00:00.000000\t2106-02-07 06:28:15.999999\t\\N\n"
	read := func(text string, keep bool) (string, *historyReader, error) {
		r := &historyReader{lines: bufio.NewReaderSize(strings.NewReader(text), 16), start: 1, end: 2, latest: latestTimes[1], keep: keep}
		out, err := io.ReadAll(iotest.OneByteReader(r))
		return string(out), r, err
	}
	out, r, err := read(rows, true)
	require.NoError(t, err)
	require.Equal(t, strings.Replace(rows, latestTimes[0], latestTimes[1], 1), out)
	require.Equal(t, []int64{3, 1, 3}, []int64{r.read, r.past, r.sent})

	out, r, err = read(rows, false)
	require.NoError(t, err)
	require.Equal(t, "1\ta\\t\n2\t\\N\n", out)
	require.Equal(t, []int64{3, 1, 2}, []int64{r.read, r.past, r.sent})

	for _, broken := range []string{rows + "3\t2020", rows + "3\n"} {
		_, _, err = read(broken, true)
		require.ErrorIs(t, err, dbdump.ErrMismatch)
	}
}
