# make run          build and start the server          make run ARGS="--demo 6" PORT=8080
# make test         everything that has to hold          make test TESTS="--test harness"   only these integration tests
# make fuzz         every parser of network bytes against random input (FUZZ_SECONDS each)
# make soak         an hour of ten people with loss, jitter and drift, in virtual time
# make bench        every benchmark, with its figures
# make peers        the same work done by Janus and ffmpeg      make peers PEERS="forward 50"   only this comparison at this size
# make docker-check what can be checked of the Dockerfile without an engine
# See the README for what they need; on Debian they install it themselves.

CARGO ?= cargo
ARGS ?=
TESTS ?= --test '*'
BENCHES ?= mix composite forward
PYENV := target/pyenv

BUILD_NEEDS := cmake:cmake nasm:nasm c++:g++ pkg-config:pkg-config vpx:libvpx-dev
TEST_NEEDS := chromium:chromium chromedriver:chromium-driver firefox-esr:firefox-esr ip:iproute2 nft:nftables ethtool:ethtool unshare:util-linux python3:python3 python3:python3-venv espeak-ng:espeak-ng aplay:alsa-utils

# The namespace has no way out: whatever cargo downloads has to be there before.
INSIDE := tests/in-namespace env CARGO_NET_OFFLINE=true $(CARGO)

FUZZ_SECONDS ?= 5
PEERS ?= forward mix amix

.PHONY: run build test check unit-test browser-test fuzz bench peers docker-check toolchain soak picture-peers

run: build
	$(if $(PORT),PORT=$(PORT)) target/release/talksy-unit $(ARGS)

build: toolchain
	@.ci/need $(BUILD_NEEDS)
	$(CARGO) build --release --locked --bin talksy-unit

test: check unit-test fuzz browser-test
	@echo "make test: all passed"

# What can be seen without running anything.
check: toolchain
	@.ci/need $(BUILD_NEEDS)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	.ci/mixer-dependencies
	$(CARGO) build --locked --workspace --benches

# Fuzz targets are programs that do not end by themselves.
unit-test: toolchain
	@.ci/need $(BUILD_NEEDS) $(TEST_NEEDS)
	$(CARGO) test --locked --workspace --exclude talksy-fuzz --lib --bins --no-run
	$(INSIDE) test --workspace --exclude talksy-fuzz --lib --bins
	$(INSIDE) test --workspace --exclude talksy-fuzz --doc

# Every parser of network bytes, for a few seconds each: make fuzz FUZZ_SECONDS=600
fuzz: toolchain
	@.ci/need $(BUILD_NEEDS)
	@CARGO="$(CARGO)" .ci/fuzz $(FUZZ_SECONDS)

# One test at a time: each may have three browsers, and a browser wants half a core.
browser-test: toolchain $(PYENV)/ready
	@.ci/need $(BUILD_NEEDS) $(TEST_NEEDS)
	$(CARGO) test --locked --workspace $(TESTS) --no-run
	$(INSIDE) test --workspace $(TESTS) -- --test-threads=1

$(PYENV)/ready: tests/py/requirements.txt
	@.ci/need python3:python3 python3:python3-venv
	python3 -m venv --clear $(PYENV)
	$(PYENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# An hour of ten people on a bad network, in virtual time.
soak: toolchain
	@.ci/need $(BUILD_NEEDS) $(TEST_NEEDS)
	$(CARGO) test --locked --test mix_quality -- --ignored --nocapture

bench: toolchain
	@.ci/need $(BUILD_NEEDS)
	@set -e; for bench in $(BENCHES); do $(CARGO) bench --locked --bench $$bench; done

# Beside other servers, which it installs: see benches/peers/README.md.
peers: toolchain
	@.ci/need $(BUILD_NEEDS) ip:iproute2 unshare:util-linux janus:janus ffmpeg:ffmpeg
	$(CARGO) build --release --locked --bin talksy-unit
	$(CARGO) bench --locked --no-run --bench peers
	$(INSIDE) bench --bench peers -- $(PEERS)

# The mixed picture beside ffmpeg and GStreamer, which it installs: see benches/peers/README.md.
picture-peers: toolchain
	@.ci/need $(BUILD_NEEDS) ffmpeg:ffmpeg gst-launch-1.0:gstreamer1.0-tools gst-launch-1.0:gstreamer1.0-plugins-base gst-launch-1.0:gstreamer1.0-plugins-good gst-launch-1.0:gstreamer1.0-plugins-bad gst-launch-1.0:gstreamer1.0-libav
	$(CARGO) bench --locked --bench picture_peers

# The image's steps one by one: the sources that are copied, the build line, the libraries of the binary, the health check.
docker-check: build
	@.ci/docker-check

toolchain:
	@command -v $(CARGO) >/dev/null || { echo "There is no Rust toolchain here: https://rustup.rs says how to get one (1.95 or later)." >&2; exit 1; }
