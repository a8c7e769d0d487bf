package filetree

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// records are what the records of one entry say beyond its block.
type records struct {
	values map[string]string
	xattrs []Xattr
	// sparse is the size of a sparse file, holes included.
	sparse *int64
}

// records reads so many bytes of them.
func (r *reader) records(size int64) (records, error) {
	if size > maxRecords {
		return records{}, fmt.Errorf("%w: records of %d bytes", ErrArchive, size)
	}
	data := make([]byte, size+int64(padding(size)))
	if _, err := io.ReadFull(r.r, data); err != nil {
		return records{}, cutShort(err, false)
	}
	return parseRecords(string(data[:size]))
}

// parseRecords takes "length keyword=value\n" apart.
func parseRecords(data string) (records, error) {
	found := records{values: map[string]string{}}
	for data != "" {
		digits, _, _ := strings.Cut(data, " ")
		length, err := parseDecimal(digits)
		if err != nil || length > int64(len(data)) || length < int64(len(digits))+3 || data[length-1] != '\n' {
			return found, fmt.Errorf("%w: record %q", ErrArchive, data[:min(len(data), 40)])
		}
		keyword, value, ok := strings.Cut(data[len(digits)+1:length-1], "=")
		if !ok || keyword == "" {
			return found, fmt.Errorf("%w: record %q", ErrArchive, data[:min(length, 40)])
		}
		data = data[length:]
		if name, ok := strings.CutPrefix(keyword, xattrRecord); ok {
			found.xattrs = append(found.xattrs, Xattr{xattrName.Replace(name), value})
			continue
		}
		if _, twice := found.values[keyword]; twice {
			return found, fmt.Errorf("%w: two records %q", ErrArchive, keyword)
		}
		found.values[keyword] = value
	}
	return found, nil
}

// apply completes an entry, and returns the size of what follows it.
func (f *records) apply(e *Entry, size int64) (int64, error) {
	e.Xattrs = f.xattrs
	for i, x := range e.Xattrs {
		if x.Name == "" || strings.IndexByte(x.Name, 0) >= 0 || i > 0 && e.Xattrs[i-1].Name >= x.Name {
			return 0, fmt.Errorf("%w: extended attribute %q", ErrArchive, x.Name)
		}
	}
	keywords := make([]string, 0, len(f.values))
	for keyword := range f.values {
		keywords = append(keywords, keyword)
	}
	slices.Sort(keywords) // so that of two faults the same is named every time
	for _, keyword := range keywords {
		if err := f.set(e, &size, keyword, f.values[keyword]); err != nil {
			return 0, fmt.Errorf("record %s: %w", keyword, err)
		}
	}
	if (f.sparse != nil) != (f.values[sparsePrefix+"major"] == "1") || f.sparse != nil && (e.Kind != File || f.values[sparsePrefix+"name"] == "") {
		return 0, fmt.Errorf("%w: %q is half a sparse file", ErrArchive, e.Name)
	}
	return size, nil
}

// set applies one record.
func (f *records) set(e *Entry, size *int64, keyword, value string) (err error) {
	switch keyword {
	case "path", sparsePrefix + "name":
		e.Name = value
	case "linkpath":
		e.Target = value
	case "size":
		*size, err = parseDecimal(value)
	case "uid":
		e.UID, err = parseID(value)
	case "gid":
		e.GID, err = parseID(value)
	case "mtime":
		e.ModTime, err = parseTime(value)
	case sparsePrefix + "realsize":
		var n int64
		n, err = parseDecimal(value)
		f.sparse = &n
	case sparsePrefix + "major":
		err = is(value, "1")
	case sparsePrefix + "minor":
		err = is(value, "0")
	case "SCHILY.acl.access", "SCHILY.acl.default": // the attribute says the same
	default:
		err = fmt.Errorf("%w: it is not known", ErrArchive)
	}
	return err
}

func is(value, want string) error {
	if value != want {
		return fmt.Errorf("%w: %q is not %q", ErrArchive, value, want)
	}
	return nil
}

func parseID(s string) (uint32, error) {
	n, err := parseDecimal(s)
	if err != nil || n > math.MaxUint32 {
		return 0, fmt.Errorf("%w: owner %q", ErrArchive, s)
	}
	return uint32(n), nil
}

// parseTime reads what formatTime writes.
func parseTime(s string) (Time, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	sec, err := strconv.ParseInt(whole, 10, 63)
	if err == nil && fraction != "" {
		fraction += strings.Repeat("0", max(0, 9-len(fraction)))
	}
	nsec, nsecErr := strconv.ParseInt("0"+fraction, 10, 63)
	t := Time{sec, nsec}
	if negative {
		if t.Sec = -sec; nsec > 0 {
			t = Time{-sec - 1, 1_000_000_000 - nsec}
		}
	}
	if err != nil || nsecErr != nil || !t.valid() || formatTime(t) != s {
		return Time{}, fmt.Errorf("%w: time %q", ErrArchive, s)
	}
	return t, nil
}
