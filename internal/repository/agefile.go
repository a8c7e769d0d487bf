package repository

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// An age file is a header, a nonce of 16 bytes, and chunks of 64 KiB that are
// each sealed by ChaCha20-Poly1305 (https://age-encryption.org/v1, "Payload").
// The age package opens whole files; a restore wants ranges of a pack in one
// request each, so this file opens chunks by their number.

const (
	ageChunk  = 64 << 10
	ageSealed = ageChunk + chacha20poly1305.Overhead
	ageNonce  = 16
	// ageHeadRoom is enough for the header and nonce of a pack, which has
	// one recipient.
	ageHeadRoom = 1024
)

// ageFile opens chunks of one age file.
type ageFile struct {
	aead   cipher.AEAD
	start  int64 // of the first chunk
	stored int64 // size of the file
}

// openAge reads the header, which head begins with.
func openAge(head []byte, stored int64, identities []age.Identity) (*ageFile, error) {
	header, err := age.ExtractHeader(bytes.NewReader(head))
	if err != nil {
		return nil, fmt.Errorf("%w: read age header: %w", ErrDamaged, err)
	}
	fileKey, err := age.DecryptHeader(header, identities...)
	if err != nil {
		return nil, fmt.Errorf("%w: open age header: %w", ErrDamaged, err)
	}
	if len(head) < len(header)+ageNonce {
		return nil, fmt.Errorf("%w: age header is too long or cut off", ErrDamaged)
	}
	nonce := head[len(header) : len(header)+ageNonce]
	key, err := hkdf.Key(sha256.New, fileKey, nonce, "payload", chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive payload key: %w", err)
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, fmt.Errorf("use payload key: %w", err)
	}
	f := &ageFile{aead: aead, start: int64(len(header) + ageNonce), stored: stored}
	if f.stored-f.start <= chacha20poly1305.Overhead {
		return nil, fmt.Errorf("%w: age file of %d bytes is cut off", ErrDamaged, stored)
	}
	return f, nil
}

// chunks is how many the file has.
func (f *ageFile) chunks() int64 { return (f.stored - f.start + ageSealed - 1) / ageSealed }

// size of the plaintext.
func (f *ageFile) size() int64 {
	return f.stored - f.start - f.chunks()*chacha20poly1305.Overhead
}

// span is where the chunks lie that hold the plaintext from..to, and where
// their plaintext begins.
func (f *ageFile) span(from, to int64) (at, length, begins int64) {
	first, last := from/ageChunk, (to-1)/ageChunk
	at = f.start + first*ageSealed
	return at, min(f.stored, f.start+(last+1)*ageSealed) - at, first * ageChunk
}

// open decrypts whole chunks in place; data begins with the chunk whose
// plaintext begins at begins. It returns their plaintext.
func (f *ageFile) open(data []byte, begins int64) ([]byte, error) {
	number, last := begins/ageChunk, f.chunks()-1
	var nonce [chacha20poly1305.NonceSize]byte
	plain := data[:0]
	for len(data) > 0 {
		n := min(len(data), ageSealed)
		binary.BigEndian.PutUint64(nonce[3:11], uint64(number))
		nonce[11] = 0
		if number == last {
			nonce[11] = 1
		}
		opened, err := f.aead.Open(data[:0], nonce[:], data[:n], nil)
		if err != nil {
			return nil, fmt.Errorf("%w: the ciphertext was changed", ErrDamaged)
		}
		plain = append(plain, opened...) // moves it down over the tags
		data = data[n:]
		number++
	}
	return plain, nil
}

// readFull reads exactly len(buf) bytes and expects no more.
func readFull(body io.ReadCloser, buf []byte) error {
	_, err := io.ReadFull(body, buf)
	if closeErr := body.Close(); err == nil {
		err = closeErr
	}
	return err
}
