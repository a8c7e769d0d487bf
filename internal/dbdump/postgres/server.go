package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// oldest is the first version that is known to behave as this package needs:
// ranges of ctid are read without reading the whole table.
const oldest = 14

// server is what the engine talks to.
type server struct {
	version   string // "15.20"
	major     int
	standby   bool
	superuser bool
	blockSize int64
}

// detect asks the server what it is.
func detect(ctx context.Context, s *session) (server, error) {
	const q = "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(), " +
		"COALESCE((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER), false), pg_catalog.current_setting('block_size')"
	var v server
	err := s.each(ctx, q, func(r row) error {
		number, err := strconv.Atoi(r.at(1))
		if err != nil {
			return fmt.Errorf("the server's version is %q: %w", r.at(1), err)
		}
		v.version, _, _ = strings.Cut(r.at(0), " ")
		v.major, v.standby, v.superuser = number/10000, r.at(2) == "t", r.at(3) == "t"
		v.blockSize, err = r.int(4)
		return err
	})
	if err == nil && v.major < oldest {
		err = fmt.Errorf("the server is PostgreSQL %s: versions before %d are not supported", v.version, oldest)
	}
	return v, err
}
