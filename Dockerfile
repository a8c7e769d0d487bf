# Keepset's image: two static programs and the public CAs, no shell, no package, not root.
#
#   docker build -t keepset --build-arg VERSION=$(git describe --tags --always) .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/keepset --push .
#
# It runs with a read-only root file system and without any capability. `make image` makes the same without Docker.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG TARGETOS=linux TARGETARCH VERSION
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags "-s -w -X keepset/internal/cli.release=$VERSION" -o /out/usr/local/bin/ ./cmd/backup ./cmd/restore \
 && mkdir -p /out/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
 && echo 'keepset:x:65532:65532:keepset:/:/sbin/nologin' >/out/etc/passwd \
 && echo 'keepset:x:65532:' >/out/etc/group \
 && mkdir -m 1777 /out/tmp

FROM scratch
LABEL org.opencontainers.image.title=keepset org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out /
ENV PATH=/usr/local/bin
USER 65532:65532
CMD ["backup", "--help"]
