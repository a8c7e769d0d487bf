package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keepset/internal/dbdump"
)

// Between the first reading of the catalog and the lock, others may have run DDL. BACKUP STAGE BLOCK_DDL keeps new DDL
// away, and the catalog is read once more: what is new is taken up. Nothing else is believed of that reading. An ALTER
// TABLE that is about to end waits for the stage with its table locked, and information_schema then skips the table,
// its columns or its triggers. So when something seems to have changed or gone, the stage is ended, the ALTER with it,
// the catalog is read in peace, and the lock is asked for again.

// stageBlockDDL is the stage from which on definitions stay as they are, while rows still change.
const stageBlockDDL = "BACKUP STAGE BLOCK_DDL"

// slowCatalog is how long reading the catalog may take for it to be read again while others wait. With a larger one, DDL
// is found at the end of the dump.
const slowCatalog = 3 * time.Second

// errAria: an Aria table has appeared, which BACKUP STAGE does not lock.
var errAria = errors.New("a table of engine Aria was created meanwhile")

// readCatalogAgain takes up what was created since the catalog was read. errBusy: the attempt has to be repeated.
func (d *dump) readCatalogAgain(ctx context.Context, l *lock) error {
	d.catalogHeld = false // an earlier attempt's reading says nothing of this one
	if d.catalogTook > slowCatalog {
		d.log.Debug("the catalog is too large to be read again under the lock", "took", d.catalogTook)
		return nil
	}
	now, err := d.readCatalogShortly(ctx, l)
	if err != nil || now == nil {
		return err
	}
	diff := d.catalog.differences(now)
	for _, what := range diff {
		if !strings.HasSuffix(what, isNew) {
			d.log.Debug("definitions changed before the lock", "what", what)
			return errBusy
		}
	}
	d.catalogHeld = true
	if len(diff) == 0 {
		return nil
	}
	return d.take(now)
}

// take goes on with a newer catalog. errAria: what it has is not locked by BACKUP STAGE.
func (d *dump) take(now *catalog) error {
	d.catalog = now
	if err := d.judgeTables(); err != nil {
		return err
	}
	if d.opts.LockMode == LockAuto && d.catalog.hasAria() {
		return errAria
	}
	return nil
}

// readCatalogShortly reads the catalog while others wait; nil when that takes too long. Whatever the server refuses to
// show is errBusy: if it is more than somebody's DDL, the reading without the lock says what.
func (d *dump) readCatalogShortly(ctx context.Context, l *lock) (*catalog, error) {
	held, cancel := d.held(ctx, l)
	defer cancel()
	limit := fmt.Sprintf("SET SESSION max_statement_time = %d", seconds(slowCatalog))
	if err := d.coordinator.exec(held, limit); err != nil {
		return nil, withCause(held, err)
	}
	now, err := d.readCatalog(held, d.coordinator)
	switch {
	case held.Err() != nil:
		return nil, context.Cause(held)
	case lost(err):
		return nil, err
	}
	if err := d.coordinator.exec(held, "SET SESSION max_statement_time = 0"); err != nil {
		return nil, withCause(held, err)
	}
	switch {
	case errorNumber(err) == errStatementTimeout:
		d.log.Debug("the catalog was not read again under the lock: it took too long", "error", err)
		return nil, nil
	case err != nil:
		d.log.Debug("the catalog could not be read under the lock", "error", err)
		return nil, errBusy
	}
	return now, nil
}

// renewCatalog reads the catalog between two attempts. Nobody waits for it, so that it may wait for others.
func (d *dump) renewCatalog(ctx context.Context, wait time.Duration) error {
	if err := d.coordinator.exec(ctx, fmt.Sprintf("SET SESSION lock_wait_timeout = %d", seconds(wait))); err != nil {
		return err
	}
	now, err := d.readCatalog(ctx, d.coordinator)
	if errors.Is(err, errBusy) {
		return fmt.Errorf("%w: %w", dbdump.ErrLockTimeout, err)
	}
	if err != nil {
		return err
	}
	return d.take(now)
}
