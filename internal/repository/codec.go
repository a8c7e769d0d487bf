package repository

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// codec turns the plain bytes of parts, maps and reports into what is stored
// and back: one zstd frame, in an encrypted repository inside of one age file.
type codec struct {
	once    sync.Once
	encoder *zstd.Encoder
	decoder *zstd.Decoder
	err     error
}

func (c *codec) init() error {
	c.once.Do(func() {
		c.encoder, c.err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithAllLitEntropyCompression(true))
		if c.err == nil {
			c.decoder, c.err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecord))
		}
	})
	return c.err
}

// seal compresses plain and, with a recipient, encrypts it. It returns the
// bytes to store and their SHA-256.
func (c *codec) seal(plain []byte, to age.Recipient) ([]byte, hash, error) {
	if err := c.init(); err != nil {
		return nil, hash{}, fmt.Errorf("start compressor: %w", err)
	}
	data := c.encoder.EncodeAll(plain, nil)
	if to != nil {
		var sealed bytes.Buffer
		sealed.Grow(len(data) + len(data)/1024 + 1024)
		w, err := age.Encrypt(&sealed, to)
		if err != nil {
			return nil, hash{}, fmt.Errorf("encrypt: %w", err)
		}
		if _, err := w.Write(data); err != nil {
			return nil, hash{}, fmt.Errorf("encrypt: %w", err)
		}
		if err := w.Close(); err != nil {
			return nil, hash{}, fmt.Errorf("encrypt: %w", err)
		}
		data = sealed.Bytes()
	}
	return data, sha256.Sum256(data), nil
}

// open is the way back. With identities the data must be an age file.
func (c *codec) open(data []byte, identities []age.Identity) ([]byte, error) {
	if err := c.init(); err != nil {
		return nil, fmt.Errorf("start decompressor: %w", err)
	}
	if len(identities) > 0 {
		r, err := age.Decrypt(bytes.NewReader(data), identities...)
		if err != nil {
			return nil, fmt.Errorf("%w: decrypt: %w", ErrDamaged, err)
		}
		if data, err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("%w: decrypt: %w", ErrDamaged, err)
		}
	}
	plain, err := c.decoder.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: decompress: %w", ErrDamaged, err)
	}
	return plain, nil
}

// dataRecipient is D's public half, nil when nothing is encrypted.
func (r *Repository) dataRecipient() age.Recipient {
	if r.keys.Data == nil {
		return nil
	}
	return r.keys.Data
}

// partRecipient is I's public half, nil when nothing is encrypted.
func (r *Repository) partRecipient() age.Recipient {
	if recipient := r.indexRecipient(); recipient != nil {
		return recipient
	}
	return nil
}
