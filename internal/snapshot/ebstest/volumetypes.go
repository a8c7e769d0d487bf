package ebstest

import (
	"slices"

	"keepset/internal/snapshot/ebstest/control"
)

// limits are the documented ranges of a type of volume; see
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html and
// https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html.
type limits struct {
	// sizes in GiB.
	minSize, maxSize int64
	// IOPS that may be asked for, at most perGiB for each GiB; iopsDefault
	// where they may be left out.
	minIOPS, maxIOPS, perGiB, iopsDefault int64
	// throughput in MiB/s.
	minThroughput, maxThroughput int64
	// snapshots that may be pending at once.
	pending int
}

var volumeTypes = map[string]limits{
	"gp2":      {minSize: 1, maxSize: 16384, pending: 5},
	"gp3":      {minSize: 1, maxSize: 65536, minIOPS: 3000, maxIOPS: 80000, perGiB: 500, iopsDefault: 3000, minThroughput: 125, maxThroughput: 2000, pending: 5},
	"io1":      {minSize: 4, maxSize: 16384, minIOPS: 100, maxIOPS: 64000, perGiB: 50, pending: 5},
	"io2":      {minSize: 4, maxSize: 65536, minIOPS: 100, maxIOPS: 256000, perGiB: 1000, pending: 5},
	"st1":      {minSize: 125, maxSize: 16384, pending: 1},
	"sc1":      {minSize: 125, maxSize: 16384, pending: 1},
	"standard": {minSize: 1, maxSize: 1024, pending: 5},
}

// requested is the volume that a CreateVolume request describes, as far as it
// can be checked without looking at anything else.
func (s *Server) requested(q *request) (*volume, error) {
	v := &volume{
		Place: q.Place, ID: newID("vol"), Zone: q.p.get("AvailabilityZone"), Type: q.p.get("VolumeType"),
		Snapshot: q.p.get("SnapshotId"), KMSKey: q.p.get("KmsKeyId"), Created: q.now, Ready: q.now.Add(s.options.VolumeTime),
	}
	if v.Type == "" {
		v.Type = "gp2"
	}
	for name, field := range map[string]*int64{
		"Size": &v.SizeGiB, "Iops": &v.IOPS, "Throughput": &v.Throughput, "VolumeInitializationRate": &v.Rate,
	} {
		var err error
		if *field, err = q.p.number(name); err != nil {
			return nil, err
		}
	}
	var err error
	if v.Encrypted, err = q.p.flag("Encrypted"); err != nil {
		return nil, err
	}
	if v.Tags, err = q.p.specified("volume"); err != nil {
		return nil, err
	}
	return v, s.check(v, q)
}

// check holds a volume to the documented rules.
func (s *Server) check(v *volume, q *request) error {
	if id := q.p.get("AvailabilityZoneId"); id != "" {
		if v.Zone != "" {
			return fail("InvalidParameterCombination", "AvailabilityZone and AvailabilityZoneId cannot be specified together.")
		}
		for i, zone := range s.options.Regions[v.Region] {
			if zoneID(v.Region, i) == id {
				v.Zone = zone
			}
		}
		if v.Zone == "" {
			return fail("InvalidZone.NotFound", "The zone '%s' does not exist.", id)
		}
	}
	switch {
	case v.Zone == "":
		return fail("MissingParameter", "The request must contain the parameter AvailabilityZone")
	case !slices.Contains(s.options.Regions[v.Region], v.Zone):
		return fail("InvalidZone.NotFound", "The zone '%s' does not exist.", v.Zone)
	case v.Snapshot == "" && !q.p.has("Size"):
		return fail("MissingParameter", "The request must contain the parameter size/snapshot")
	case v.KMSKey != "" && !v.Encrypted:
		return fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	case v.Rate != 0 && v.Snapshot == "":
		return fail("InvalidParameterCombination", "The parameter VolumeInitializationRate is only supported for volumes created from snapshots.")
	case q.p.has("VolumeInitializationRate") && (v.Rate < 100 || v.Rate > 300):
		return fail("InvalidParameterValue", "VolumeInitializationRate of %d MiB/s is invalid; expected 100 - 300.", v.Rate)
	}
	if v.SizeGiB != 0 || v.Snapshot == "" {
		if err := v.checkSize(); err != nil {
			return err
		}
	}
	return v.checkPerformance()
}

// defaultKey is the account's own key for EBS, aws/ebs.
func defaultKey(in control.Place) string {
	return "arn:aws:kms:" + in.Region + ":" + in.Account + ":key/ebs"
}

func (v *volume) checkSize() error {
	l, ok := volumeTypes[v.Type]
	if !ok {
		return fail("UnknownVolumeType", "Unsupported volume type '%s' for volume creation.", v.Type)
	}
	if v.SizeGiB < l.minSize || v.SizeGiB > l.maxSize {
		return fail("InvalidParameterValue", "Volume of %dGiB is not valid for volume type %s; expected %d to %d GiB.", v.SizeGiB, v.Type, l.minSize, l.maxSize)
	}
	// The ratio applies to what is asked for; the default of gp3 is for any size.
	if l.perGiB > 0 && v.IOPS > l.iopsDefault && v.IOPS > l.perGiB*v.SizeGiB {
		return fail("InvalidParameterValue", "Iops to volume size ratio of %d:1 is too high for volume type %s; maximum is %d:1.",
			v.IOPS/v.SizeGiB, v.Type, l.perGiB)
	}
	return nil
}

// checkPerformance checks IOPS and throughput, and fills in the defaults.
func (v *volume) checkPerformance() error {
	l, ok := volumeTypes[v.Type]
	switch {
	case !ok:
		return fail("UnknownVolumeType", "Unsupported volume type '%s' for volume creation.", v.Type)
	case l.maxIOPS == 0 && v.IOPS != 0:
		return fail("InvalidParameterCombination", "The parameter iops is not supported for %s volumes.", v.Type)
	case l.maxIOPS != 0 && v.IOPS == 0 && l.iopsDefault == 0:
		return fail("MissingParameter", "The request must contain the parameter iops for %s volumes.", v.Type)
	case v.IOPS != 0 && (v.IOPS < l.minIOPS || v.IOPS > l.maxIOPS):
		return fail("InvalidParameterValue", "Volume iops of %d is not valid for volume type %s; expected %d to %d.", v.IOPS, v.Type, l.minIOPS, l.maxIOPS)
	case l.maxThroughput == 0 && v.Throughput != 0:
		return fail("InvalidParameterCombination", "The parameter throughput is not supported for %s volumes.", v.Type)
	case v.Throughput != 0 && (v.Throughput < l.minThroughput || v.Throughput > l.maxThroughput):
		return fail("InvalidParameterValue", "Throughput (MiBps) of %d is not valid for volume type %s; expected %d to %d.",
			v.Throughput, v.Type, l.minThroughput, l.maxThroughput)
	}
	if l.iopsDefault != 0 && v.IOPS == 0 {
		v.IOPS = l.iopsDefault
	}
	if l.minThroughput != 0 && v.Throughput == 0 {
		v.Throughput = l.minThroughput
	}
	// gp3: at most 0.25 MiB/s for each provisioned IOPS.
	if l.maxThroughput != 0 && 4*v.Throughput > v.IOPS {
		return fail("InvalidParameterValue", "Throughput (MiBps) to iops ratio of %.3f is too high; maximum is 0.250 MiBps per iops.",
			float64(v.Throughput)/float64(v.IOPS))
	}
	return nil
}
