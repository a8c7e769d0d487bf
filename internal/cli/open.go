package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql"
	"keepset/internal/dbdump/postgres"
	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/csi"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/statefulset"
	"keepset/internal/storage"
	"keepset/internal/storage/dir"
	"keepset/internal/storage/s3"
)

// StoreFlags say where bytes live, and how they travel.
type StoreFlags struct {
	URL                 string
	Upload, Download    int64
	StorageClass        string
	Encryption, KMSKey  string
	LookBeforePut, Make bool
	Timeout             time.Duration
	// Profile of the AWS configuration; empty for the environment's.
	Profile string
	Lock    LockFlags
}

// Add declares the flags.
func (f *StoreFlags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.URL, "repository", "", "where backups are: s3://bucket/prefix or file:///dir")
	fs.Int64Var(&f.Download, "limit-download", 0, "KiB a second read from the store; 0: unlimited")
	fs.DurationVar(&f.Timeout, "store-timeout", 2*time.Minute, "how long object storage may say nothing, over all attempts, before the command gives up; at the first contact three quarters of it")
}

// AddWrite declares the flags of commands that write.
func (f *StoreFlags) AddWrite(fs *pflag.FlagSet) {
	fs.Int64Var(&f.Upload, "limit-upload", 0, "KiB a second written to the store; 0: unlimited")
	fs.StringVar(&f.StorageClass, "s3-storage-class", "", "storage class of new objects (default: the bucket's)")
	fs.StringVar(&f.Encryption, "s3-encryption", "", "encryption by the store: AES256, aws:kms or aws:kms:dsse (default: the bucket's)")
	fs.StringVar(&f.KMSKey, "s3-kms-key-id", "", "key for aws:kms")
	f.Lock.Add(fs)
	fs.BoolVar(&f.LookBeforePut, "s3-look-before-put", false, "for stores that ignore conditional writes: look before each write")
}

// Open is the first of the switches: where bytes live.
func (f *StoreFlags) Open(ctx context.Context, a *App) (storage.Store, error) {
	if f.URL == "" {
		return nil, Usage("--repository is required (or %s): s3://bucket/prefix or file:///dir", EnvName("repository"))
	}
	location, err := storage.ParseURL(f.URL)
	if err != nil {
		return nil, Usage("--%w", err)
	}
	if f.Timeout < time.Second {
		return nil, Usage("--store-timeout %s: want at least 1s", f.Timeout)
	}
	lock, err := f.Lock.lock(location.Scheme)
	if err != nil {
		return nil, err
	}
	var store storage.Store
	switch location.Scheme {
	case "file":
		open := dir.New
		if f.Make {
			open = dir.Create
		}
		store, err = open(dir.Options{Path: location.Path})
	case "s3":
		store, err = s3.New(ctx, s3.Options{
			Bucket: location.Bucket, Prefix: location.Path, StorageClass: f.StorageClass,
			Encryption: f.Encryption, KMSKeyID: f.KMSKey, LookBeforePut: f.LookBeforePut,
			IdleTimeout: f.Timeout / 2, Profile: f.Profile, Lock: lock,
		})
	default:
		return nil, Usage("--repository %q: want s3://bucket/prefix or file:///dir", f.URL)
	}
	if err != nil {
		if errors.Is(err, storage.ErrInvalid) {
			return nil, Usage("%w", err)
		}
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if f.Upload > 0 || f.Download > 0 {
		store = storage.WithBandwidth(store, storage.Bandwidth{Upload: f.Upload << 10, Download: f.Download << 10})
	}
	return storage.WithRetry(store, storage.Retry{Silence: f.Timeout, Logger: a.Log}), nil
}

// Snapshotters lists who can snapshot volumes.
func Snapshotters() []string { return []string{record.ProviderEBS, record.ProviderCSI} }

// Open is the third of the switches: who snapshots volumes.
func (f *VolumeFlags) Open(ctx context.Context, a *App, client *statefulset.Client, provider string) (snapshot.Snapshotter, error) {
	var kube kubernetes.Interface
	var config *rest.Config
	if client != nil {
		kube, config = client.Connection()
	}
	switch provider {
	case record.ProviderEBS:
		return ebs.New(ctx, ebs.Options{
			Kube: kube, Region: f.Region, Copies: f.CopyRegions, KMSKey: f.KMSKey, InitializationRate: f.Initialization, Log: a.Log,
		})
	case record.ProviderCSI:
		return csi.Connect(config, csi.Options{Kube: kube, Class: f.Class, Log: a.Log})
	default:
		return nil, Usage("snapshotter %q is not one of %s", provider, strings.Join(Snapshotters(), ", "))
	}
}

// The engines, which are also the schemes of a server's URL.
const (
	engineMySQL    = "mysql"
	enginePostgres = "postgres"
)

// Engines lists the engines.
func Engines() []string { return []string{engineMySQL, enginePostgres} }

// Engine is what every command may ask of an engine. What only some can do, a
// job finds out by itself.
type Engine interface {
	dbdump.Engine
	dbdump.Prober
	Close() error
}

// EngineOptions are those of the engine that is opened; the others' are not looked at.
type EngineOptions struct {
	MySQL    mysql.Options
	Postgres postgres.Options
}

// OpenEngine is the second switch: what dumps and loads a server.
func OpenEngine(name string, opts EngineOptions) (Engine, error) {
	var engine Engine
	var err error
	switch name {
	case engineMySQL:
		engine, err = mysql.New(opts.MySQL)
	case enginePostgres:
		engine, err = postgres.New(opts.Postgres)
	default:
		return nil, Usage("engine %q is not one of %s", name, strings.Join(Engines(), ", "))
	}
	if err != nil {
		return nil, Usage("%w", err)
	}
	return engine, nil
}
