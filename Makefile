# Lodge. `make run` boots a guest, `make test` runs every test; both install
# what is missing on Debian 12. Everything else is meson's (see meson.build).

BUILD ?= build
export CC ?= gcc

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@meson setup $(BUILD)

test: all
	@meson test -C $(BUILD) --print-errorlogs

.PHONY: all test
