# docker build -t talksy-unit:1.0.0 .
# docker run -p 8080:8000 -p 7881:7881 -p 7882-7889:7882-7889/udp -e PUBLIC_IP=<address that clients reach> talksy-unit:1.0.0

FROM rust:1-bookworm AS build
# nasm: without it OpenH264 silently builds without its assembly and is three times slower.
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake nasm g++ pkg-config libvpx-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin talksy-unit

# The binary needs libc, libstdc++ and libgcc, which apt itself brings, and libvpx.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends libvpx7 \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/talksy talksy
COPY --from=build /src/target/release/talksy-unit /usr/local/bin/talksy-unit
USER talksy
WORKDIR /var/lib/talksy
ENV PORT=8000
EXPOSE 8000
# One port for each media worker (TALKSY_WORKERS; one for each core by default).
EXPOSE 7882-7889/udp
# Media over TCP, for networks without UDP.
EXPOSE 7881
# The built-in TURN server, with TURN_ENABLED=1.
EXPOSE 3478 3478/udp
# The binary asks the server itself: the image needs no curl. It reads the same environment, so set options there (TALKSY_TLS=1 …)
# rather than as arguments.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["talksy-unit", "--health-check"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["talksy-unit"]
