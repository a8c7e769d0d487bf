// Package driver is a CSI driver for tests: the gRPC services of the Container
// Storage Interface over a [volume.Backend], and the registration with the
// kubelet that a sidecar does elsewhere. Its central type is [Driver].
//
// It promises what Kubernetes relies on: every call may be repeated and may
// come while an earlier one of the same volume still runs (which is answered
// with ABORTED, and tried again by the caller). It knows one kind of file
// system, ext4, raw devices, and volumes that one node writes to.
package driver

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keepset/test/cluster/csi/driver/internal/volume"
)

// Config says who the driver is.
type Config struct {
	Name     string // of the CSIDriver object
	NodeID   string // of this machine, as the provider names it
	Zone     string // that this machine is in
	ZoneKey  string // topology key whose value is a zone
	Endpoint string // socket that the kubelet is to use
}

// Driver serves a backend's volumes.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	config  Config
	backend volume.Backend
	log     *slog.Logger

	mu   sync.Mutex
	busy map[string]bool // names and IDs that a call works on
}

// New returns the driver of a backend.
func New(config Config, backend volume.Backend, log *slog.Logger) *Driver {
	return &Driver{config: config, backend: backend, log: log, busy: map[string]bool{}}
}

// Server returns a server of the CSI services.
func (d *Driver) Server() *grpc.Server {
	server := grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	return server
}

// RegistrationServer returns a server for a socket in the kubelet's directory
// plugins_registry, by which the kubelet learns of the driver.
func (d *Driver) RegistrationServer() *grpc.Server {
	server := grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	registration.RegisterRegistrationServer(server, d)
	return server
}

// intercept gives every error its code, and the log what was asked.
func (d *Driver) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	reply, err := handle(ctx, request)
	if err != nil {
		err = withCode(err)
		d.log.Warn("failed", "call", info.FullMethod, "request", request, "error", err)
		return reply, err
	}
	d.log.Debug("done", "call", info.FullMethod, "request", request)
	return reply, nil
}

// withCode gives an error of the backend the code that the specification of
// CSI asks for.
func withCode(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	for sentinel, code := range map[error]codes.Code{
		volume.ErrNotFound:       codes.NotFound,
		volume.ErrExists:         codes.AlreadyExists,
		volume.ErrInUse:          codes.FailedPrecondition,
		volume.ErrSize:           codes.OutOfRange,
		volume.ErrInvalid:        codes.InvalidArgument,
		volume.ErrLimit:          codes.ResourceExhausted,
		context.Canceled:         codes.Canceled,
		context.DeadlineExceeded: codes.DeadlineExceeded,
	} {
		if errors.Is(err, sentinel) {
			return status.Error(code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}

// claim keeps other calls off the names until release is called.
func (d *Driver) claim(names ...string) (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		if d.busy[name] {
			return nil, status.Errorf(codes.Aborted, "another call works on %s; try again", name)
		}
	}
	for _, name := range names {
		d.busy[name] = true
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, name := range names {
			delete(d.busy, name)
		}
	}, nil
}

// required refuses a request in which one of the fields, NAME, VALUE, ..., is empty.
func required(fields ...string) error {
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i+1] == "" {
			return status.Errorf(codes.InvalidArgument, "the field %s is empty", fields[i])
		}
	}
	return nil
}

// supported refuses what the driver cannot give: access by several nodes, and
// file systems other than ext4.
func supported(capabilities ...*csi.VolumeCapability) error {
	if len(capabilities) == 0 || capabilities[0] == nil {
		return status.Error(codes.InvalidArgument, "the volume's capability is missing")
	}
	for _, c := range capabilities {
		switch c.GetAccessMode().GetMode() {
		case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:
		default:
			return status.Errorf(codes.InvalidArgument, "access mode %s: a volume belongs to one node", c.GetAccessMode().GetMode())
		}
		if c.GetMount() == nil && c.GetBlock() == nil {
			return status.Error(codes.InvalidArgument, "the volume is neither mounted nor a raw device")
		}
		if fs := c.GetMount().GetFsType(); fs != "" && fs != "ext4" {
			return status.Errorf(codes.InvalidArgument, "file system %s: only ext4 is known here", fs)
		}
	}
	return nil
}
