package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// OpenVolumes gives every directory that appears in dir to all users, until
// ctx ends.
//
// A volume of a cloud comes with the group that the pod's fsGroup names.
// hostPath volumes know no fsGroup and belong to root with mode 0750, so a
// database that runs under its own user could never write to one.
func OpenVolumes(ctx context.Context, dir string) error {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch volumes: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer func() { _ = events.Close() }()
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_CREATE|syscall.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watch volumes in %s: %w", dir, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = events.Close() }) // ends the read
	defer stop()
	entries, err := os.ReadDir(dir) // those from before the watch
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, entry := range entries {
		if err := openVolume(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	buffer := make([]byte, 64<<10)
	for {
		count, err := events.Read(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch volumes: %w", err)
		}
		for _, name := range createdNames(buffer[:count]) {
			if err := openVolume(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
}

func openVolume(dir string) error {
	if err := os.Chmod(dir, 0o777); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open volume: %w", err)
	}
	return nil
}

// createdNames reads the names from events of inotify(7): a fixed header, then
// the name, padded with zeros to the length in the header's last field.
func createdNames(events []byte) []string {
	var names []string
	for len(events) >= syscall.SizeofInotifyEvent {
		length := int(binary.NativeEndian.Uint32(events[12:16]))
		end := syscall.SizeofInotifyEvent + length
		if end > len(events) {
			break
		}
		name := bytes.TrimRight(events[syscall.SizeofInotifyEvent:end], "\x00")
		if len(name) > 0 {
			names = append(names, string(name))
		}
		events = events[end:]
	}
	return names
}
