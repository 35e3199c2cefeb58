# The images of the operator and of the agent, for amd64 and arm64:
#
#   docker build --target operator --tag otelagent/operator:0.1.0 .
#   docker build --target agent --tag otelagent/agent:0.1.0 .
#
# One static binary each, and nothing else: no shell, no C library, no user but a number.

# Runs on the builder's own architecture and cross-compiles, since emulated compilers take hours.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG TARGETARCH
# The toolchain of the image, which is the one of rust-toolchain.toml without its components.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /build
# Debian names the compilers of both architectures alike, native or cross.
RUN set -eu; \
    case "$TARGETARCH" in \
        amd64) triple=x86_64-unknown-linux-gnu gcc=x86_64-linux-gnu-gcc packages='gcc-x86-64-linux-gnu libc6-dev-amd64-cross' ;; \
        arm64) triple=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu-gcc packages='gcc-aarch64-linux-gnu libc6-dev-arm64-cross' ;; \
        *) echo "no image for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    if ! command -v "$gcc"; then \
        apt-get update; \
        apt-get install --yes --no-install-recommends $packages; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    rustup target add "$triple"; \
    echo "$triple" > /triple; \
    { echo '[target.'"$triple"']'; \
      echo 'linker = "'"$gcc"'"'; \
      echo 'rustflags = ["-C", "target-feature=+crt-static"]'; } > /usr/local/cargo/config.toml
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,id=target-$TARGETARCH \
    cargo build --release --locked --target "$(cat /triple)" --package otelagent-agent \
    && cargo build --profile operator --locked --target "$(cat /triple)" --package otelagent-operator \
    && mkdir /out \
    && cp "target/$(cat /triple)/operator/otelagent-operator" "target/$(cat /triple)/release/otelagent-agent" /out/

FROM scratch AS operator
COPY --from=build /out/otelagent-operator /otelagent-operator
USER 65532:65532
ENTRYPOINT ["/otelagent-operator"]

FROM scratch AS agent
COPY --from=build /out/otelagent-agent /otelagent-agent
# For upstreams with certificates of public authorities.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/otelagent-agent"]
