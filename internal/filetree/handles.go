package filetree

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// handles are the open directories from the target down to where one worker
// is. Each was opened from the one above it without following links, so that
// a name can lead nowhere else, whatever is renamed or replaced meanwhile.
type handles struct {
	s     *restorer
	names []string
	fds   []int
	// buf is what file data goes through, last the name of the file before.
	buf  []byte
	last string
	// other directories, for the targets of links.
	other *handles
}

// parent returns the open directory that a name is in, and the name there.
func (h *handles) parent(name string) (fd int, base string, err error) {
	above, base := ".", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		above, base = name[:i], name[i+1:]
	}
	fd, err = h.directory(above)
	return fd, base, err
}

// directory returns an open directory; it stays so until the next call.
func (h *handles) directory(path string) (int, error) {
	var elements []string
	if path != "." {
		elements = strings.Split(path, "/")
	}
	same := 0
	for same < len(elements) && same < len(h.names) && elements[same] == h.names[same] {
		same++
	}
	if err := h.leave(same); err != nil {
		return -1, err
	}
	for ; same < len(elements); same++ {
		fd, err := h.enter(elements[same])
		if err != nil {
			return -1, fmt.Errorf("open directory %q: %w", strings.Join(elements[:same+1], "/"), err)
		}
		h.names, h.fds = append(h.names, elements[same]), append(h.fds, fd)
	}
	return h.deepest(), nil
}

func (h *handles) deepest() int {
	if len(h.fds) == 0 {
		return h.s.root
	}
	return h.fds[len(h.fds)-1]
}

// enter opens the next directory. With patterns it is made when it is missing.
func (h *handles) enter(name string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	above := h.deepest()
	fd, err := unix.Openat(above, name, flags, 0)
	if !errors.Is(err, unix.ENOENT) || h.s.Patterns.empty() {
		return fd, err
	}
	if err := unix.Mkdirat(above, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	h.s.mu.Lock()
	h.s.made[strings.Join(append(slices.Clone(h.names), name), "/")] = true
	h.s.mu.Unlock()
	return unix.Openat(above, name, flags, 0)
}

// leave closes all but so many.
func (h *handles) leave(keep int) (err error) {
	for _, fd := range slices.Backward(h.fds[keep:]) {
		err = errors.Join(err, unix.Close(fd))
	}
	h.names, h.fds = h.names[:keep], h.fds[:keep]
	return err
}

func (h *handles) close() error {
	if h.other == nil {
		return h.leave(0)
	}
	return errors.Join(h.leave(0), h.other.leave(0))
}

// targets are handles of their own, for the targets of links.
func (h *handles) targets() *handles {
	if h.other == nil {
		h.other = &handles{s: h.s}
	}
	return h.other
}

// make calls what makes something under a name. If there is something of
// exactly this name, that is removed: the archive has several entries of a file
// that changed while it was read, of which the last one counts, or replacing was
// asked for. A name that was given to something else while its directory was read
// may be in two streams: then another worker makes and removes it meanwhile. A name
// that is equal for the file system alone, as where it does not tell A from a, is an
// error.
func (h *handles) make(parent int, base string, call func() error) error {
	for absent := 0; ; {
		err := call()
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		names, err := namesIn(parent)
		if err != nil {
			return err
		}
		if !slices.Contains(names, base) {
			if absent++; absent == tries {
				return fmt.Errorf("%w: this file system takes its name for another one's of the tree", unix.EEXIST)
			}
			continue
		}
		err = unix.Unlinkat(parent, base, 0)
		if errors.Is(err, unix.EISDIR) {
			return fmt.Errorf("%w: it is in the place of something else: remove it with all that is in it, and restore again", err)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove what is there: %w", err)
		}
	}
}
