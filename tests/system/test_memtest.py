"""memtest86+ runs on the bare machine."""
import os
import re
import subprocess
import time

import pytest

import machine

KERNEL = "/boot/memtest86+x64.bin"
# The screen is written now and then: a fast engine is past a test before it is named.
FOURTH_OR_LATER = re.compile(r"#([4-9]|1\d)")


@pytest.mark.parametrize("engine", machine.engines())
def test_memtest86_starts_its_first_pass_and_finds_no_error(lodge, tmp_path, engine):
    screen = tmp_path / "screen"
    process = subprocess.Popen([lodge, "run", "--kernel", KERNEL, "--memory", "64M",
                                "--append", "console=ttyS0,115200", "--console", screen,
                                "--engine", engine], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        text = ""
        while time.monotonic() < deadline and not FOURTH_OR_LATER.search(text):
            time.sleep(0.5)
            text = screen.read_text(errors="replace") if os.path.exists(screen) else ""
        assert "Memtest86+" in text
        assert FOURTH_OR_LATER.search(text), "it did not come to its fourth test"
        assert "Errors: 0" in text
    finally:
        process.terminate()
        process.wait(timeout=10)
