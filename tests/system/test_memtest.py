"""memtest86+ runs on the bare machine."""
import os
import subprocess
import time

import pytest

import machine

KERNEL = "/boot/memtest86+x64.bin"


@pytest.mark.parametrize("engine", machine.engines())
def test_memtest86_starts_its_first_pass_and_finds_no_error(lodge, tmp_path, engine):
    screen = tmp_path / "screen"
    process = subprocess.Popen([lodge, "run", "--kernel", KERNEL, "--memory", "64M",
                                "--append", "console=ttyS0,115200", "--console", screen,
                                "--engine", engine], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        text = ""
        while time.monotonic() < deadline and "#4" not in text:
            time.sleep(0.5)
            text = screen.read_text(errors="replace") if os.path.exists(screen) else ""
        assert "Memtest86+" in text
        assert "#4" in text, "it did not come to its fourth test"
        assert "Errors: 0" in text
    finally:
        process.terminate()
        process.wait(timeout=10)
