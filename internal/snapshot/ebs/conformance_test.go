package ebs_test

import (
	"log"
	"os"
	"testing"

	"go.uber.org/goleak"

	"keepset/internal/snapshot/snapshottest"
)

func TestMain(m *testing.M) {
	// Nothing of this machine is to decide, and nobody is to be asked for credentials.
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"} {
		if err := os.Unsetenv(name); err != nil {
			log.Fatal(err)
		}
	}
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		if err := os.Setenv(name, os.DevNull); err != nil {
			log.Fatal(err)
		}
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T) *snapshottest.Harness { return newWorld(t).harness() })
}

func TestConformancePreparer(t *testing.T) {
	snapshottest.RunPreparer(t, func(t *testing.T) *snapshottest.Harness { return newWorld(t).harness() })
}

func TestConformanceBlocks(t *testing.T) {
	snapshottest.RunBlocks(t, func(t *testing.T) *snapshottest.Harness { return newWorld(t).harness() })
}
