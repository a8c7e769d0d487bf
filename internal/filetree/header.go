package filetree

import (
	"fmt"
	"strconv"
	"strings"
)

// A header is one or two blocks of 512 bytes and what they announce: what does
// not fit into the fields of 1988 stands in records of the pax format before
// them. Extended attributes are records as star and GNU tar write them, sparse
// files are those of GNU tar's format 1.0. Names that are not UTF-8 stand
// there byte by byte, as in GNU tar, which would warn of the record that POSIX
// has for them.

const (
	blockSize = 512
	// maxRecords bounds the records of one entry, in bytes.
	maxRecords = 16 << 20
	// maxExtents bounds the data of a sparse file, so that the list, which
	// comes before the data, is bounded.
	maxExtents = 1 << 16
	// maxOctal is what fits into the fields for sizes and times.
	maxOctal = 1<<33 - 1
	// maxID is what fits into the fields for owners.
	maxID = 1<<21 - 1

	recordsKind  = 'x'
	xattrRecord  = "SCHILY.xattr."
	sparsePrefix = "GNU.sparse."
	sparseName   = "GNUSparseFile.0/-"
	accessACL    = "system.posix_acl_access"
	defaultACL   = "system.posix_acl_default"
)

var zeroBlock [blockSize]byte

// padding is how many zeros follow so many bytes.
func padding(n int64) int { return int(-n & (blockSize - 1)) }

// appendHeader appends all that comes before the entry's data. The data is
// followed by padding.
func appendHeader(b []byte, e *Entry) ([]byte, error) {
	sparse := ""
	if e.Extents != nil {
		sparse = extentList(e)
	}
	size := e.stored() + int64(len(sparse))
	records := recordsOf(e, size)
	if len(records) > maxRecords {
		return b, fmt.Errorf("%q has extended attributes of %d bytes, at most %d can be kept", e.Name, len(records), maxRecords)
	}
	if records != "" {
		b = appendBlock(b, &Entry{Name: "PaxHeader", Kind: recordsKind, Mode: 0o600}, int64(len(records)))
		b = append(b, records...)
		b = append(b, zeroBlock[:padding(int64(len(records)))]...)
	}
	b = appendBlock(b, e, size)
	return append(b, sparse...), nil
}

// appendBlock appends the block of an entry, its numbers as far as they fit.
func appendBlock(b []byte, e *Entry, size int64) []byte {
	var block [blockSize]byte
	name := archived(e)
	if e.Extents != nil {
		name = sparseName
	}
	copy(block[0:100], name)
	octal(block[100:108], int64(e.Mode))
	octal(block[108:116], fit(int64(e.UID), maxID))
	octal(block[116:124], fit(int64(e.GID), maxID))
	octal(block[124:136], fit(size, maxOctal))
	octal(block[136:148], fit(e.ModTime.Sec, maxOctal))
	block[156] = byte(e.Kind)
	if e.Kind == HardLink || e.Kind == Symlink {
		copy(block[157:257], e.Target)
	}
	copy(block[257:265], "ustar\x0000")
	if e.Kind == Character || e.Kind == Block {
		octal(block[329:337], int64(e.Major))
		octal(block[337:345], int64(e.Minor))
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", checksum(&block)))
	return append(b, block[:]...)
}

// checksum adds up the block as if the field of the checksum were blank.
func checksum(block *[blockSize]byte) (sum int64) {
	for i, c := range block {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	return sum
}

// octal fills a field, with its end.
func octal(field []byte, n int64) {
	copy(field, fmt.Sprintf("%0*o", len(field)-1, n))
}

// fit returns a number that a field can hold; the right one is in a record.
func fit(n, most int64) int64 {
	if n < 0 || n > most {
		return 0
	}
	return n
}

// archived is the name as it stands in the archive.
func archived(e *Entry) string {
	switch {
	case e.Name == ".":
		return "./"
	case e.Kind == Directory:
		return e.Name + "/"
	}
	return e.Name
}

// recordsOf are the records of what does not fit into the block.
func recordsOf(e *Entry, size int64) string {
	var b strings.Builder
	name := archived(e)
	if e.Extents != nil {
		appendRecord(&b, sparsePrefix+"major", "1")
		appendRecord(&b, sparsePrefix+"minor", "0")
		appendRecord(&b, sparsePrefix+"name", name)
		appendRecord(&b, sparsePrefix+"realsize", strconv.FormatInt(e.Size, 10))
	} else if len(name) > 100 {
		appendRecord(&b, "path", name)
	}
	if (e.Kind == HardLink || e.Kind == Symlink) && len(e.Target) > 100 {
		appendRecord(&b, "linkpath", e.Target)
	}
	if size > maxOctal {
		appendRecord(&b, "size", strconv.FormatInt(size, 10))
	}
	if e.UID > maxID {
		appendRecord(&b, "uid", strconv.FormatUint(uint64(e.UID), 10))
	}
	if e.GID > maxID {
		appendRecord(&b, "gid", strconv.FormatUint(uint64(e.GID), 10))
	}
	if t := e.ModTime; t.Nsec != 0 || t.Sec < 0 || t.Sec > maxOctal {
		appendRecord(&b, "mtime", formatTime(t))
	}
	for _, x := range e.Xattrs {
		appendRecord(&b, xattrRecord+xattrKeyword.Replace(x.Name), x.Value)
		// GNU tar takes ACLs from a text of their own.
		if text, ok := aclText(x.Value); ok && x.Name == accessACL {
			appendRecord(&b, "SCHILY.acl.access", text)
		} else if ok && x.Name == defaultACL {
			appendRecord(&b, "SCHILY.acl.default", text)
		}
	}
	return b.String()
}

// xattrKeyword and its inverse write names of attributes as GNU tar does.
var (
	xattrKeyword = strings.NewReplacer("%", "%25", "=", "%3D")
	xattrName    = strings.NewReplacer("%25", "%", "%3D", "=")
)

// appendRecord appends "length keyword=value\n", the length being that of all of it.
func appendRecord(b *strings.Builder, keyword, value string) {
	rest := len(keyword) + len(value) + 3
	length := rest + len(strconv.Itoa(rest))
	if length = rest + len(strconv.Itoa(length)); rest+len(strconv.Itoa(length)) != length {
		length++
	}
	fmt.Fprintf(b, "%d %s=%s\n", length, keyword, value)
}

// formatTime writes a time as a decimal fraction.
func formatTime(t Time) string {
	sec, nsec, sign := uint64(t.Sec), t.Nsec, ""
	if t.Sec < 0 {
		sec, sign = -sec, "-"
		if nsec > 0 {
			sec, nsec = sec-1, 1_000_000_000-nsec
		}
	}
	if nsec == 0 {
		return sign + strconv.FormatUint(sec, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

// extentList is the list of a sparse file's data: decimal numbers, one a line,
// in whole blocks. Where a hole ends the file, GNU tar wants to be told by an
// extent without bytes.
func extentList(e *Entry) string {
	count, end := len(e.Extents), int64(0)
	if count > 0 {
		end = e.Extents[count-1].Offset + e.Extents[count-1].Length
	}
	var b strings.Builder
	if end < e.Size || count == 0 {
		fmt.Fprintf(&b, "%d\n", count+1)
	} else {
		fmt.Fprintf(&b, "%d\n", count)
	}
	for _, x := range e.Extents {
		fmt.Fprintf(&b, "%d\n%d\n", x.Offset, x.Length)
	}
	if end < e.Size || count == 0 {
		fmt.Fprintf(&b, "%d\n0\n", e.Size)
	}
	b.Write(zeroBlock[:padding(int64(b.Len()))])
	return b.String()
}
