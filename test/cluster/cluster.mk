# Targets of the test cluster and of the container images. Included by the Makefile at the top, which sets GO and CACHE.

CLUSTER_BIN = $(CACHE)/bin/cluster

.PHONY: cluster-program
cluster-program:
	@mkdir -p $(CACHE)/bin
	@$(GO) -C test/cluster build -o $(CLUSTER_BIN) ./cmd/cluster

# Kubernetes itself, built once in about ten minutes.
.PHONY: cluster-tools
cluster-tools: cluster-program
	@$(CLUSTER_BIN) tools

.PHONY: cluster-up
cluster-up: cluster-program
	@$(CLUSTER_BIN) up

.PHONY: cluster-down
cluster-down: cluster-program
	@$(CLUSTER_BIN) down

.PHONY: cluster-status
cluster-status: cluster-program
	@$(CLUSTER_BIN) status

# Shows that the cluster does what the end-to-end tests build on: volumes, names, exec, CronJobs, rights.
.PHONY: cluster-smoke
cluster-smoke: cluster-up
	@cd test/cluster && KUBECONFIG=$$($(CLUSTER_BIN) kubeconfig) PATH=$(CACHE)/bin:$$PATH && export KUBECONFIG PATH && ./smoke.sh $(SMOKE) && ./smoke-images.sh && ./smoke-volumes.sh

# Keepset's image from the sources as they are, put into the cluster as keepset:dev.
.PHONY: cluster-image
cluster-image: cluster-program
	@$(CLUSTER_BIN) image --load

# The images that the end-to-end tests run beside it; loaded too, if the cluster runs.
.PHONY: test-images
test-images: cluster-program
	@$(CLUSTER_BIN) images

# The image for users. Each archive loads with docker, podman, skopeo and ctr; the last is both platforms in one, for a registry:
# skopeo copy --all oci-archive:dist/keepset.tar docker://...
.PHONY: image
image: cluster-program
	@$(CLUSTER_BIN) image --arch amd64 --output dist/keepset-amd64.tar
	@$(CLUSTER_BIN) image --arch arm64 --output dist/keepset-arm64.tar
	@$(CLUSTER_BIN) image --arch amd64,arm64 --output dist/keepset.tar

# The tests of the cluster's own modules, which ./... at the top does not reach. Its programs of large modules, which are little more
# than a link to them, are left out.
.PHONY: cluster-test
cluster-test: CLUSTER_CODE = ./internal/... ./cmd/cluster ./cmd/pause
cluster-test: servers
	@cd test/cluster && $(GOLANGCI_LINT) run --allow-parallel-runners -c ../../.golangci.yml $(CLUSTER_CODE)
	@$(GO) -C test/cluster test -race $(CLUSTER_CODE)
	@cd test/cluster/csi/driver && $(GOLANGCI_LINT) run --allow-parallel-runners -c ../../../../.golangci.yml ./...
	@$(GO) -C test/cluster/csi/driver test -race ./...
