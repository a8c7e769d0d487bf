package ebstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const gib = 1 << 30

// Whence of Linux's lseek(2), for the extents of a sparse file.
const (
	seekData = 3
	seekHole = 4
)

// createImage makes an empty, sparse image.
func createImage(path string, sizeGiB int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("fake ec2: make image: %w", err)
	}
	err = errors.Join(f.Truncate(sizeGiB*gib), f.Close())
	if err != nil {
		return fmt.Errorf("fake ec2: make image: %w", err)
	}
	return nil
}

// makeImage makes an image, empty or as a copy of a source that it closes.
func makeImage(path string, source *os.File, sizeGiB int64) error {
	if source == nil {
		return createImage(path, sizeGiB)
	}
	defer source.Close() //nolint:errcheck // it was only read
	return copyImage(path, source, sizeGiB)
}

// copyImage copies the data of an image and leaves its holes holes. The copy
// appears under its name when it is whole. Where the file system shares blocks
// between files (XFS, Btrfs), copy_file_range(2) under io.Copy does so.
func copyImage(path string, source *os.File, sizeGiB int64) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "copying-*")
	if err != nil {
		return fmt.Errorf("fake ec2: copy image: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("fake ec2: copy image to %s: %w", path, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	err = eachExtent(source, func(from, to int64) error {
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := source.Seek(from, io.SeekStart); err != nil {
			return err
		}
		_, err := io.Copy(f, io.LimitReader(source, to-from))
		return err
	})
	err = errors.Join(err, f.Truncate(sizeGiB*gib), f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// eachExtent calls fn with every stretch of the file that holds data.
func eachExtent(f *os.File, fn func(from, to int64) error) error {
	for at := int64(0); ; {
		from, err := f.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		to, err := f.Seek(from, seekHole)
		if err != nil {
			return err
		}
		if err := fn(from, to); err != nil {
			return err
		}
		at = to
	}
}

// blockSize is the EBS direct API's.
const blockSize = 512 << 10

// blockMap is the list of blocks of an image that hold data, in order.
type blockMap struct {
	sizeGiB int64
	indexes []int32
}

func mapBlocks(path string) (*blockMap, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("fake ec2: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("fake ec2: %w", err)
	}
	m := &blockMap{sizeGiB: info.Size() / gib}
	next := int32(0)
	err = eachExtent(f, func(from, to int64) error {
		for i := max(next, int32(from/blockSize)); int64(i)*blockSize < to; i++ {
			m.indexes = append(m.indexes, i)
			next = i + 1
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fake ec2: extents of %s: %w", path, err)
	}
	return m, nil
}

// readBlock reads one block of an image.
func readBlock(path string, index int32) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	block := make([]byte, blockSize)
	_, err = f.ReadAt(block, int64(index)*blockSize)
	return block, err
}

// writeBlock writes one block of an image.
func writeBlock(path string, index int32, block []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(block, int64(index)*blockSize)
	return errors.Join(err, f.Close())
}

// sameBlock compares one block of two images.
func sameBlock(first, second string, index int32) (bool, error) {
	a, err := readBlock(first, index)
	if err != nil {
		return false, err
	}
	b, err := readBlock(second, index)
	if err != nil {
		return false, err
	}
	return bytes.Equal(a, b), nil
}
