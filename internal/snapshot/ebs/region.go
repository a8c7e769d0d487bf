package ebs

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"keepset/internal/snapshot"
)

// clients speak to one region.
type clients struct {
	region string
	ec2    *ec2.Client
	ebs    *ebs.Client
}

// zoneName is that of an availability zone, local zone or wavelength zone, all of which
// begin with their region's: ap-northeast-2a, us-west-2-lax-1a, us-gov-east-1b.
var zoneName = regexp.MustCompile(`^([a-z]{2,}(?:-[a-z]+)+-[0-9]+)(?:[a-z]|-[a-z0-9-]+)$`)

// regionOf is the region of a zone, empty when its name is no AWS zone's.
func regionOf(zone string) string {
	if m := zoneName.FindStringSubmatch(zone); m != nil {
		return m[1]
	}
	return ""
}

// in returns the clients for a region; without one, for the region that is
// configured or was learned from a volume.
func (s *Snapshotter) in(region string) (*clients, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if region == "" {
		region = s.region
	}
	if region == "" {
		return nil, fmt.Errorf("the AWS region is unknown: set AWS_REGION in the pod's environment (it is not asked of the instance): %w", snapshot.ErrNotFound)
	}
	if c := s.clients[region]; c != nil {
		return c, nil
	}
	c := &clients{region: region}
	c.ec2 = ec2.NewFromConfig(s.config, func(o *ec2.Options) {
		o.Region = region
		if s.options.EC2Endpoint != "" {
			o.BaseEndpoint = aws.String(s.options.EC2Endpoint)
		}
	})
	c.ebs = ebs.NewFromConfig(s.config, func(o *ebs.Options) {
		o.Region = region
		if s.options.EBSEndpoint != "" {
			o.BaseEndpoint = aws.String(s.options.EBSEndpoint)
		}
	})
	s.clients[region] = c
	return c, nil
}

// learn remembers the region of a zone where none is configured.
func (s *Snapshotter) learn(zone string) {
	if region := regionOf(zone); region != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.region == "" {
			s.region = region
		}
	}
}

// regions are those in which snapshots may be: the home region, those that
// copies go to, and those named.
func (s *Snapshotter) regions(named ...string) []string {
	s.mu.Lock()
	home := s.region
	s.mu.Unlock()
	var all []string
	for _, r := range slices.Concat([]string{home}, named, s.options.Copies) {
		if r != "" && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}
