# Lodge. `make run` boots a guest, `make test` runs every test; both install
# what is missing on Debian 12. Everything else is meson's (see meson.build).

BUILD ?= build
PREFIX ?= /usr/local
export CC ?= gcc

all: setup-build $(BUILD)/build.ninja
	@ninja --quiet -C $(BUILD)

$(BUILD)/build.ninja:
	@mkdir -p $(BUILD)
	@meson setup --prefix=$(PREFIX) $(BUILD) >$(BUILD)/setup.log || { tail $(BUILD)/setup.log; exit 1; }

# A guest with Debian's kernel: a shell when there is a terminal.
run: setup-run all
	@scripts/run $(ARGS)

# Every test, in under 15 minutes on two cores; ends with how many passed.
test: setup-run setup-test all
	@scripts/test

# The KVM engine inside an outer machine that QEMU's TCG gives it; see docs/kvm.md.
test-kvm: setup-run setup-test all
	@tests/kvm/run

# What takes longer: new seeds, long fuzzing, many boots. SECONDS_EACH sets how long.
test-long: setup-run setup-test all
	@scripts/test --long

# Lodge beside its peers in one run; the figures are kept in bench/results/.
bench: setup-run setup-test all
	@bench/run $(ARGS)
	@bench/disk
	@bench/guest-io
	@bench/container
	@bench/image
	@bench/image-vm

# Debian's Linux for images that run as virtual machines; the larger one has shared folders.
kernels: setup-run
	@scripts/fetch-kernel cloud-amd64 >/dev/null
	@scripts/fetch-kernel amd64 >/dev/null

install: all kernels
	@meson install -C $(BUILD)
	@scripts/install-kernels "$(DESTDIR)$(PREFIX)/share/lodge/kernel"

clean:
	@rm -rf $(BUILD) build-*

setup-build:
	@scripts/setup build
setup-run:
	@scripts/setup build run
setup-test:
	@scripts/setup build test

.PHONY: all kernels run test test-kvm test-long bench install clean setup-build setup-run setup-test
