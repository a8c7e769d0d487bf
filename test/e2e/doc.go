// Package e2e tests Keepset where its users run it: on a real Kubernetes, with
// real databases and a real S3 server. `make cluster-up` starts what it needs.
package e2e
