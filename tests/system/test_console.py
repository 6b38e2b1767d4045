"""The guest's serial console on a terminal, a socket, a file."""
import os
import socket
import subprocess
import time

import pexpect
import pytest

import machine
from conftest import make_initramfs


@pytest.fixture(scope="module")
def initrd(tmp_path_factory):
    return make_initramfs(str(tmp_path_factory.mktemp("console") / "initrd.gz"))


@pytest.fixture
def boot(cloud_kernel, initrd):
    return ["run", "--kernel", cloud_kernel, "--initrd", initrd, "--append",
            f"console=ttyS0 quiet {machine.NO_SELF_TESTS}"]


def test_a_shell_on_the_terminal_takes_commands_and_powers_off(lodge, boot):
    guest = pexpect.spawn(lodge, boot, timeout=120, encoding="utf-8", codec_errors="replace")
    guest.expect("Ctrl-]")
    guest.expect("lodge# ")
    guest.sendline("echo $((6 * 7)) is the answer; tty")
    guest.expect("42 is the answer")
    guest.expect("/dev/ttyS0")
    guest.sendline("sleep 100")
    time.sleep(1)
    guest.send("\x03")  # Ctrl-C goes to the guest
    guest.expect("lodge# ")
    guest.sendline("exit")
    guest.expect(pexpect.EOF)
    guest.close()
    assert guest.exitstatus == 0


def test_the_escape_key_quits(lodge, boot):
    guest = pexpect.spawn(lodge, boot, timeout=120, encoding="utf-8", codec_errors="replace")
    guest.expect("lodge# ")
    guest.send("\x1dq")
    guest.expect(pexpect.EOF)
    guest.close()
    assert guest.exitstatus == 130


def test_the_terminal_is_as_before_afterwards(lodge, boot):
    shell = pexpect.spawn("/bin/sh", timeout=60, encoding="utf-8", codec_errors="replace")
    shell.sendline("stty -a | md5sum; echo one")
    shell.expect(r"([0-9a-f]{32})")
    before = shell.match.group(1)
    shell.sendline(f"{lodge} {' '.join(boot[:5])} --append console=ttyS0; stty -a | md5sum")
    shell.expect("LODGE-INIT")
    shell.send("\x1dq")
    shell.expect(r"([0-9a-f]{32})")
    assert shell.match.group(1) == before
    shell.close(force=True)


def test_a_socket_carries_the_console(lodge, boot, tmp_path):
    path = str(tmp_path / "console")
    process = subprocess.Popen([lodge, *boot, "--console", "unix:" + path],
                               stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.settimeout(60)
        seen = b""
        while b"lodge# " not in seen:
            seen += client.recv(4096)
        client.sendall(b"poweroff -f\n")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    assert not os.path.exists(path)


def test_a_file_keeps_the_console(lodge, boot, tmp_path):
    path = tmp_path / "log"
    process = subprocess.Popen([lodge, *boot, "--console", path], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if path.exists() and "LODGE-INIT" in path.read_text():
                break
            time.sleep(0.2)
        assert "LODGE-INIT" in path.read_text()
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 143
