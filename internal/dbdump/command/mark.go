package command

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// dumpScript runs a program and prints the end mark behind its output. Its
// arguments are the mark's beginning, then the program.
const dumpScript = `end=$1
shift
"$@" </dev/null
status=$?
printf '%s%03dw' "$end" "$status"
exit "$status"
`

// loadScript hands its standard input to a program and counts. The program's
// input is ended only when as much has come as there is; else everything is
// killed at once, so that the program never takes a lost connection for the end
// of the backup. That takes a process group of the shell's own, which runc makes
// for what it executes, and [groupScript] where crun does not. What the feeder and the
// program's end have to say, "e" when the program did not read on and "s" with
// its status, they write to file 7, which is result; file 6 is the output.
const loadScript = `end=$1 size=$2
shift 2
read -r _ _ _ _ group _ <"/proc/$$/stat"
if [ "$group" != "$$" ]; then
	echo "this shell does not lead a process group, and there is no setsid to make it one, so that it cannot guard the end of the input" >&2
	exit 125
fi
for tool in tee wc; do
	command -v "$tool" >/dev/null || { echo "there is no $tool here, which has to guard the end of the input" >&2; exit 127; }
done
exec 3<&0 6>&1
result=$({
	{
		true >/dev/fd/4 || kill -KILL 0
		got=$({
			{
				tee /dev/fd/4 <&3 2>/dev/null
				case $? in 0) ;; 1 | 141) echo e >&5 ;; *) kill -KILL 0 ;; esac
			} | wc -c
		} 5>&1)
		case $got in
		*e*) echo e >&7 ;;
		*) [ "$got" -eq "$size" ] || kill -KILL 0 ;;
		esac
	} 4>&1 | {
		"$@" 3<&- 7>&- >&6 6>&-
		echo "s$?" >&7
	}
} 7>&1)
fed=w
case $result in *e*) fed=e ;; esac
status=${result#*s}
status=${status%%[!0-9]*}
[ -n "$status" ] || status=255
printf '%s%03d%s' "$end" "$status" "$fed"
[ "$fed" = w ] || [ "$status" -ne 0 ] || status=1
exit "$status"
`

// groupScript runs the shell, with the script and arguments that it was given, as
// the leader of a process group, by setsid where it is none yet; that then
// replaces the process and does not fork.
const groupScript = `read -r _ _ _ _ group _ <"/proc/$$/stat"
if [ "$group" != "$$" ] && command -v setsid >/dev/null; then
	exec setsid "$0" -c "$@"
fi
exec "$0" -c "$@"
`

const (
	nonceBytes = 16
	// markBytes: the nonce in hex, three digits of status, and how the program
	// was fed.
	markBytes = 2*nonceBytes + 4
)

// How a program was fed.
const (
	fedWhole = 'w'
	fedEarly = 'e' // it stopped reading
)

var errNoMark = errors.New("its output ended without the end mark: the connection to the container was cut, or the shell in it was ended")

// marked takes the end mark off an output and passes the rest on.
type marked struct {
	w     io.Writer
	nonce string
	// held are the last bytes so far, which may turn out to be the mark.
	held []byte
	n    int64
}

// newMarked makes a mark that no program can have foreseen.
func newMarked(w io.Writer) *marked {
	nonce := make([]byte, nonceBytes)
	_, _ = rand.Read(nonce) // never fails: its documentation
	return &marked{w: w, nonce: hex.EncodeToString(nonce), held: make([]byte, 0, 2*markBytes)}
}

// argv wraps a program into the script that prints the mark.
func (m *marked) argv(shell string, argv []string, in *input) []string {
	if in == nil {
		return append([]string{shell, "-c", dumpScript, Name, m.nonce}, argv...)
	}
	return append([]string{shell, "-c", groupScript, shell, loadScript, Name, m.nonce, strconv.FormatInt(in.size, 10)}, argv...)
}

// Write implements io.Writer.
func (m *marked) Write(p []byte) (int, error) {
	if over := len(m.held) + len(p) - markBytes; over > 0 {
		fromHeld := min(over, len(m.held))
		if err := m.pass(m.held[:fromHeld]); err != nil {
			return 0, err
		}
		if err := m.pass(p[:over-fromHeld]); err != nil {
			return 0, err
		}
	}
	m.held = keepEnd(m.held, p, markBytes)
	return len(p), nil
}

func (m *marked) pass(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := m.w.Write(p)
	m.n += int64(n)
	return err
}

// verdict is nil when the output ended with the mark and the mark is good.
func (m *marked) verdict() error {
	status, fed, err := parseMark(m.held, m.nonce)
	switch {
	case err != nil:
		return fmt.Errorf("%w; %d bytes had arrived", err, m.n+int64(len(m.held)))
	case status != 0:
		return fmt.Errorf("it ended with status %d", status)
	case fed == fedEarly:
		return errUnread
	}
	return nil
}

// notFound are the words and statuses of runtimes that do not find a program.
var notFound = regexp.MustCompile(`executable file not found|no such file or directory|exit code 12[678]\b`)

// noShell tells from the error of a run that not even the shell was started.
func (m *marked) noShell(err error) bool {
	return m.n == 0 && len(m.held) == 0 && notFound.MatchString(err.Error())
}

// parseMark reads an end mark. Anything but a whole one is errNoMark.
func parseMark(text []byte, nonce string) (status int, fed byte, err error) {
	if len(text) != markBytes || string(text[:len(nonce)]) != nonce {
		return 0, 0, errNoMark
	}
	n, err := strconv.ParseUint(string(text[len(nonce):markBytes-1]), 10, 8)
	fed = text[markBytes-1]
	if err != nil || fed != fedWhole && fed != fedEarly {
		return 0, 0, errNoMark
	}
	return int(n), fed, nil
}
