package filetree

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// aclText writes an ACL, which the kernel gives as an extended attribute, as
// the text that tar programs expect. ok is false for what is no ACL of the one
// version that there is: the attribute alone is kept then.
//
// The attribute is a u32 with the version, 2, and for each entry a u16 with its
// tag, a u16 with its permissions and a u32 with the owner's number, all
// little-endian (linux/posix_acl_xattr.h).
func aclText(value string) (text string, ok bool) {
	b := []byte(value)
	if len(b) < 4 || len(b)%8 != 4 || binary.LittleEndian.Uint32(b) != 2 {
		return "", false
	}
	var lines []string
	for b = b[4:]; len(b) > 0; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		who, known := aclTags[tag]
		if !known || perm > 7 {
			return "", false
		}
		if strings.HasSuffix(who, ":") {
			who = fmt.Sprintf("%s%d:", who, id)
		} else {
			who += "::"
		}
		lines = append(lines, who+permissions(perm))
	}
	return strings.Join(lines, "\n") + "\n", true
}

// aclTags are whom an entry is for; those that end in a colon name somebody.
var aclTags = map[uint16]string{0x01: "user", 0x02: "user:", 0x04: "group", 0x08: "group:", 0x10: "mask", 0x20: "other"}

func permissions(bits uint16) string {
	text := []byte("rwx")
	for i := range text {
		if bits&(4>>i) == 0 {
			text[i] = '-'
		}
	}
	return string(text)
}
