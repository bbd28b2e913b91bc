# `make demo` and `make test` do all their set-up themselves on a Debian-like machine with a Rust toolchain.
CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PACKAGES := apache2-utils attr busybox-static bzip2 git jq libcap2-bin openssl podman runc skopeo umoci buildah docker-registry \
	debootstrap uidmap xz-utils zstd xfsprogs btrfs-progs

.PHONY: all setup demo fuzz lint test test-long test-real bench dist image
all: test

# Installs what tests use from Debian, if anything of it is missing.
setup:
	@if command -v dpkg-query >/dev/null && ! dpkg-query -W -f='$${Status}\n' $(PACKAGES) 2>/dev/null | \
		awk '$$3 != "installed" {bad=1} END {exit bad || NR < $(words $(PACKAGES))}'; then \
		$(SUDO) apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -q --no-install-recommends $(PACKAGES); \
	fi

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --locked --document-private-items

test: setup
	$(CARGO) test --locked

# The trackers against a walk over every file: 20,000 generated programs each, and the contract on every kind of file
# system that can be made here. Builds and pushes that end at a hundred points, which only root can try. Builds of files of
# 4 GiB, of half a million files and of layers of a million entries where there are 256 MB. All conformance cases in
# isolated roots. Takes some hours.
test-long: setup
	KANNA_CASES='*' $(CARGO) test --locked --test it -- --nocapture conformance::images_of_
	$(CARGO) test --locked --release --lib -- --ignored dockerfile::tests::ten_megabytes
	$(CARGO) test --locked --test it -- --ignored --nocapture --test-threads=1 interrupted:: ceilings:: million::
	PROPTEST_CASES=20000 $(CARGO) test --locked --release --lib snapshot::tests::programs
	$(SUDO) tests/file_systems.sh "$$($(CARGO) test --locked --release --lib --no-run --message-format=json | \
		jq -r 'select(.profile.test == true and .target.name == "kanna").executable')" 2000

# Ten minutes for each fuzz target, or SECONDS for each of FUZZ; fuzz/README.md says what they hold.
fuzz: SECONDS ?= 600
fuzz: PACKAGES := g++ jq zstd
fuzz: setup
	CARGO=$(CARGO) fuzz/run $(SECONDS) $(FUZZ)

# Package managers, compilers and version control under `--verify-snapshots`: a table says what the snapshot after each of
# their commands cost. Downloads and installs a gigabyte.
test-real: setup
	$(CARGO) test --locked --test it -- --ignored --nocapture real_commands

# Builds an image, pushes it to a registry on this machine, pulls it and runs its command; with skopeo and umoci to look at it.
demo: PACKAGES := busybox-static docker-registry jq skopeo uidmap umoci
demo: setup
	examples/demo/run.sh

# Whole builds beside buildah's, snapshots, the index and hot paths; benches/README.md says what is measured. Takes more than an hour.
# BENCH has more flags: `make bench BENCH='--workload=copy --repeat=1'`.
bench: PACKAGES += valgrind
bench: setup
	executor="$$(CARGO=$(CARGO) examples/build.sh release executor)" && \
	harness="$$(CARGO=$(CARGO) examples/build.sh release harness)" && \
	"$$harness" counts && \
	"$$harness" index && \
	$(SUDO) "$$harness" snapshot && \
	$(SUDO) "$$harness" tracking && \
	$(SUDO) "$$harness" stages --executor "$$executor" && \
	$(SUDO) "$$harness" builds --executor "$$executor" --json target/bench.json --baseline buildah \
		$(addprefix --builder ,kanna-isolated kanna kanna-fanotify kanna-inotify kanna-walk kanna-redo kanna-time buildah) $(BENCH)

# The static binary that is shipped.
dist:
	mkdir -p dist
	cp "$$(CARGO=$(CARGO) examples/build.sh dist executor)" dist/executor

# Our own images, built by kanna, as tarballs in dist/.
image: setup
	CARGO=$(CARGO) .ci/images
