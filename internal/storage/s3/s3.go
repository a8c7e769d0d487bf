// Package s3 is a store in a bucket of Amazon S3 or of anything that speaks
// its protocol.
//
// [Store] maps keys to objects under a prefix. It adds no retries: a decorator
// of package storage does that for every store alike, and this
// one's part is to say which failures are worth trying again. (Only what a
// second request certainly cures is cured here: an expired token, a wrong clock,
// a conflict between two conditional writes.)
//
// A Put is one PutObject with If-None-Match: *, so that of several writers
// one wins, and with the SHA-256 of the body twice: as the signed
// x-amz-content-sha256, which every store compares with what arrived, and as
// x-amz-checksum-sha256, which a store keeps beside the object, so that it can
// later be asked what it holds. SHA-256 rather than the SDK's cheaper CRC because it is
// one hash for both ends, and because objects are named after it.
//
// Other stores than Amazon's lack this or that. A Put that is refused as not
// implemented is repeated without the checksum header, then without the condition,
// then without both, and the store remembers what worked. Without the condition a
// Put looks first and then writes: see [storage.GuaranteeChecked].
// [Store.Probe] finds out, once and in advance, also about stores that ignore
// the condition silently.
//
// With a [Lock] new objects cannot be deleted before a time that the Put names, and the
// first one of a process is looked at, as a store may take the object and drop the lock. A deletion in a
// bucket with versions only hides: [Store.Remove] says so.
//
// Rights are kept small on purpose. Stat is a listing of one key, because listing is a
// right that every role has, and reading is not.
package s3

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"

	"keepset/internal/storage"
)

// Options of [New]. Only Bucket is required.
type Options struct {
	Bucket string
	// Prefix begins every key in the bucket, without a slash at its ends.
	Prefix string
	// Endpoint is the URL of the service, empty for the one that the
	// environment names (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL), else Amazon's.
	Endpoint string
	// Region is empty for the environment's (AWS_REGION). With an endpoint
	// it may be unknown, and is then us-east-1, as other stores expect.
	Region string
	// VirtualHost puts the bucket into the host name also when an endpoint is
	// given; without it an endpoint means bucket in the path.
	VirtualHost bool
	// CABundle is a file of PEM certificates that sign the server's, in
	// addition to the system's. (AWS_CA_BUNDLE is honoured as well.)
	CABundle string
	// StorageClass of new objects as S3 names it, empty for the bucket's default.
	StorageClass string
	// Encryption by the store: "", "AES256", "aws:kms" or "aws:kms:dsse".
	Encryption string
	// KMSKeyID names the key for aws:kms; empty for the account's default.
	KMSKeyID string
	// Credentials are empty for the SDK's chain: environment, files, web
	// identity (IRSA), Pod Identity, instance role; renewed as they expire.
	Credentials Credentials
	// Profile of the shared configuration files, which says account, region and
	// endpoint; empty for the environment's (AWS_PROFILE). Variables that name an
	// endpoint or a region win over it.
	Profile string
	// IdleTimeout is how long a connection may carry no byte in either
	// direction before it counts as dead; 0 is a minute. Until the store has
	// answered for the first time it is half of that.
	IdleTimeout time.Duration
	// LookBeforePut makes every Put look first, for a store of which Probe
	// found that it ignores conditions.
	LookBeforePut bool
	// Lock protects new objects; its zero value does not.
	Lock Lock
}

// Credentials are fixed ones.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
}

// Store keeps objects in a bucket. Use [New]. It holds idle connections until
// [Store.Close].
type Store struct {
	client     *s3.Client
	patience   *patience
	endpoint   string // for messages
	renew      func() // drops the cached credentials
	idle       func() // closes idle connections
	bucket     string
	prefix     string // empty or ending in a slash
	class      types.StorageClass
	encryption types.ServerSideEncryption
	kmsKey     string
	locks      locks
	clock      *storeClock

	// What the store turned out not to support.
	noCondition atomic.Bool
	noChecksum  atomic.Bool
}

var _ interface {
	storage.Store
	storage.Prober
	storage.Comparer
	storage.Remover
} = (*Store)(nil)

// New returns the store in a bucket. It reads the environment and
// configuration files but sends nothing: a missing bucket, wrong credentials
// and the like are found by the first operation.
func New(ctx context.Context, o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p := &patience{idle: o.IdleTimeout}
	if p.idle <= 0 {
		p.idle = defaultIdleTimeout
	}
	client, err := newHTTPClient(o, p)
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx, loadOptions(o, client)...)
	if err != nil {
		return nil, fmt.Errorf("load the S3 configuration: %w: %w", storage.ErrInvalid, err)
	}
	clock := &storeClock{}
	idle, err := freeze(&cfg, clock)
	if err != nil {
		return nil, err
	}
	tagged := taggedCredentials{cfg.Credentials}
	creds := aws.NewCredentialsCache(tagged)
	s := &Store{
		patience: p,
		clock:    clock,
		renew:    func() { tagged.Invalidate(); creds.Invalidate() },
		idle:     idle, bucket: o.Bucket, class: types.StorageClass(o.StorageClass), encryption: types.ServerSideEncryption(o.Encryption), kmsKey: o.KMSKeyID,
	}
	if o.Prefix != "" {
		s.prefix = o.Prefix + "/"
	}
	s.locks.Lock = o.Lock
	s.noCondition.Store(o.LookBeforePut)
	s.client = s3.NewFromConfig(cfg, func(c *s3.Options) {
		c.Credentials = creds
		c.Retryer = aws.NopRetryer{}
		// We give checksums explicitly; the SDK's own would be trailers, which
		// several stores do not understand.
		c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if o.Endpoint != "" {
			c.BaseEndpoint = &o.Endpoint
		}
		if c.BaseEndpoint != nil {
			c.UsePathStyle = !o.VirtualHost
			if c.Region == "" {
				c.Region = "us-east-1"
			}
		}
	})
	region := s.client.Options().Region
	s.endpoint = "Amazon S3 in " + region
	if base := s.client.Options().BaseEndpoint; base != nil {
		s.endpoint = *base
	}
	if region == "" {
		return nil, fmt.Errorf("open bucket %q: the region is unknown, set AWS_REGION or, for a store other than Amazon's, AWS_ENDPOINT_URL_S3: %w",
			o.Bucket, storage.ErrInvalid)
	}
	return s, nil
}

// Close gives up idle connections. The store stays usable.
func (s *Store) Close() { s.idle() }

func (o Options) check() error {
	if o.Bucket == "" {
		return fmt.Errorf("open bucket: its name is missing: %w", storage.ErrInvalid)
	}
	if o.Prefix != "" {
		if err := storage.CheckKey(o.Prefix); err != nil {
			return fmt.Errorf("open bucket %q: prefix: %w", o.Bucket, err)
		}
	}
	known := types.ServerSideEncryption("").Values()
	if o.Encryption != "" && !slices.Contains(known, types.ServerSideEncryption(o.Encryption)) {
		return fmt.Errorf("open bucket %q: encryption %q is none of %v: %w", o.Bucket, o.Encryption, known, storage.ErrInvalid)
	}
	if err := o.Lock.check(); err != nil {
		return fmt.Errorf("open bucket %q: %w", o.Bucket, err)
	}
	if o.KMSKeyID != "" && !strings.HasPrefix(o.Encryption, "aws:kms") {
		return fmt.Errorf("open bucket %q: a KMS key needs the encryption aws:kms: %w", o.Bucket, storage.ErrInvalid)
	}
	return nil
}

func loadOptions(o Options, client config.HTTPClient) []func(*config.LoadOptions) error {
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}),
	}
	if o.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(o.Profile))
	}
	if o.Region != "" {
		options = append(options, config.WithRegion(o.Region))
	}
	if c := o.Credentials; c != (Credentials{}) {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)))
	}
	return options
}

func (s *Store) name(key string) *string { return aws.String(s.prefix + key) }
