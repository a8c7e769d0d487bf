package ebs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"
)

const (
	dialTimeout = 10 * time.Second // three lost packets
	// attemptTimeout bounds one request; the largest body is half a MiB.
	attemptTimeout = 30 * time.Second
	// metadataTimeout bounds one question to the instance's metadata service, which
	// answers within milliseconds, or is out of a pod's reach and never does.
	metadataTimeout = 2 * time.Second
	connections     = 64
)

// loadConfig is AWS's default chain, but that the region is never asked of
// the instance's metadata service, and its credentials only briefly.
func loadConfig(ctx context.Context, o Options) (aws.Config, func(), error) {
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(tr *http.Transport) {
			tr.MaxIdleConns, tr.MaxIdleConnsPerHost = connections, connections
		})
	metadata := &http.Client{Timeout: metadataTimeout, Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithEC2RoleCredentialOptions(func(r *ec2rolecreds.Options) {
			r.Client = imds.New(imds.Options{HTTPClient: metadata, Retryer: aws.NopRetryer{}})
		}),
	}
	if o.Region != "" {
		options = append(options, config.WithRegion(o.Region))
	}
	if c := o.Credentials; c != (Credentials{}) {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return cfg, nil, fmt.Errorf("load the AWS configuration: %w", err)
	}
	buildable, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		return cfg, nil, fmt.Errorf("load the AWS configuration: unexpected HTTP client %T", cfg.HTTPClient)
	}
	transport := buildable.GetTransport()
	cfg.HTTPClient = &http.Client{
		Transport: transport,
		// A signature holds for one host only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	cfg.Credentials = aws.NewCredentialsCache(marked{cfg.Credentials})
	return cfg, transport.CloseIdleConnections, nil
}

// marked tells a failure to get credentials from one of the request that they were for.
type marked struct{ aws.CredentialsProvider }

func (m marked) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if m.CredentialsProvider == nil {
		return aws.Credentials{}, &credentialsError{errors.New("none are configured")}
	}
	c, err := m.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		err = &credentialsError{err}
	}
	return c, err
}

type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
