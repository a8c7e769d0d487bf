package filetree

import (
	"errors"

	"golang.org/x/sys/unix"
)

// extentsOf returns where a file has data, nil when it has no holes. A file of
// more pieces than can be listed has its smallest holes filled with zeros, which
// take no room in the repository, and room on the disk after a restore.
func extentsOf(fd int, st *unix.Stat_t) ([]Extent, error) {
	if st.Size == 0 || st.Blocks*blockSize >= st.Size {
		return nil, nil
	}
	seek := func(offset int64, whence int) (int64, error) {
		return retried(func() (int64, error) { return unix.Seek(fd, offset, whence) })
	}
	for smallest := int64(1); ; smallest *= 16 {
		extents, err := scanExtents(seek, st.Size, smallest)
		if errors.Is(err, unix.EINVAL) {
			return nil, nil // the file system does not know holes
		}
		if err != nil || len(extents) <= maxExtents {
			return extents, err
		}
	}
}

// scanExtents looks for data, and passes over holes below a size. It stops
// when there are too many pieces.
func scanExtents(seek func(int64, int) (int64, error), size, smallest int64) ([]Extent, error) {
	extents := []Extent{}
	for at := int64(0); at < size && len(extents) <= maxExtents; {
		begin, err := seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return nil, err
		}
		end, err := seek(begin, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) {
			break // it was truncated
		}
		if err != nil {
			return nil, err
		}
		begin, end = min(begin, size), min(end, size)
		at = end
		last := len(extents) - 1
		switch {
		case begin == end:
			at = size
		case last >= 0 && begin-(extents[last].Offset+extents[last].Length) < smallest:
			extents[last].Length = end - extents[last].Offset
		case last < 0 && begin < smallest:
			extents = append(extents, Extent{0, end})
		default:
			extents = append(extents, Extent{begin, end - begin})
		}
	}
	if len(extents) == 1 && extents[0] == (Extent{0, size}) {
		return nil, nil
	}
	return extents, nil
}
