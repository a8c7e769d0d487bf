# Everything that one does with a checkout. Each target sets up what it needs by itself; the long outputs of the servers
# and of the builds go into the cache (${XDG_CACHE_HOME:-~/.cache}/keepset) and never onto this machine.

SHELL := /bin/bash
GO ?= go
CACHE := $(or $(KEEPSET_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keepset)
GOLANGCI_LINT := $(CACHE)/golangci-lint-v2.15.0/golangci-lint

.PHONY: all
all: build

.PHONY: help
help:
	@echo 'make demo           a set of three MariaDB servers: back up, destroy a replica, bring it back (no cluster)'
	@echo 'make demo-cluster   the same story on Kubernetes: the local one, or the one that KUBECONFIG names'
	@echo 'make test           lint, unit, integration and end-to-end tests'
	@echo 'make soak           the long runs of the same tests'
	@echo 'make bench          speed and memory, side by side with the vendors'"'"' tools'
	@echo 'make build          bin/backup and bin/restore'
	@echo 'make image          the container image for amd64 and arm64'
	@echo 'make servers        fill the cache with the servers and tools of the tests'
	@echo 'make cluster-up     start a real single-node Kubernetes; cluster-down stops it'
	@echo 'make clean          remove what was built in this checkout'

# cluster-up, cluster-down, image and what belongs to them.
-include test/cluster/cluster.mk

.PHONY: build
build:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -o bin/ ./cmd/...

.PHONY: servers
servers:
	@hack/servers.sh

.PHONY: lint
lint: servers
	$(GOLANGCI_LINT) run --allow-serial-runners ./...
	$(GO) vet ./...

.PHONY: test
test:
	@hack/test.sh

.PHONY: soak
soak:
	@KEEPSET_SOAK=1 hack/test.sh

.PHONY: demo
demo: build
	@hack/servers.sh debian-bookworm-1 # MariaDB 10.11, all that the story runs
	$(GO) run ./test/demo

.PHONY: demo-cluster
demo-cluster:
	@hack/demo-cluster.sh

.PHONY: bench
bench: servers build
	$(GO) run ./test/bench $(BENCH)

.PHONY: clean
clean:
	rm -rf bin dist
