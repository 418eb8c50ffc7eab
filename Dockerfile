# docker build -t talksy-unit:1.0.0 .
# docker run -p 8080:8000 -p 7882-7889:7882-7889/udp -e PUBLIC_IP=<address that clients reach> talksy-unit:1.0.0

FROM rust:1-bookworm AS build
# nasm: without it OpenH264 silently builds without its assembly and is three times slower.
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake nasm g++ pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin talksy-unit

# The binary needs libc, libstdc++ and libgcc: apt itself brings them.
FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/talksy talksy
COPY --from=build /src/target/release/talksy-unit /usr/local/bin/talksy-unit
USER talksy
WORKDIR /var/lib/talksy
ENV PORT=8000
EXPOSE 8000
EXPOSE 7882-7889/udp
# The image has no curl: bash opens the connection itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${PORT:-8000} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["talksy-unit"]
