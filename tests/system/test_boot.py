"""Debian's kernels boot to user space and work there."""
import hashlib
import re
import time

import pytest

import machine
from conftest import TOP, make_initramfs

TROUBLE = re.compile(r"\bBUG\b|WARNING|\bstuck\b|spurious", re.I)
# The kernel's own advice on PCI windows holds the words "report a bug".
HARMLESS = "if necessary, use"


@pytest.fixture(scope="module")
def initrd(tmp_path_factory):
    directory = tmp_path_factory.mktemp("boot")
    (directory / "clock").write_text("date +%s\nsleep 60\ndate +%s\n")
    (directory / "reboot").write_text("echo REBOOTING; reboot -f\n")
    (directory / "trouble").write_text(
        "dmesg | grep -v 'if necessary' | grep -iE 'BUG|WARNING|stuck|spurious'; nproc; echo END\n")
    return make_initramfs(str(directory / "initrd.gz"),
                          f"{TOP}/tests/system/session-boot:/session/boot",
                          *(f"{directory}/{n}:/session/{n}" for n in ("clock", "reboot", "trouble")))


def check_session(result, cpus):
    assert result.status == 0, result.output[-2000:]
    out = result.output
    assert machine.between(out, "== cpuinfo", "== dmesg").count("processor\t:") == cpus
    trouble = [line for line in machine.between(out, "== dmesg", "== sha256").splitlines()
               if TROUBLE.search(line) and HARMLESS not in line]
    assert not trouble
    data = (b"lodge\n" * (67108864 // 6 + 1))[:67108864]
    assert hashlib.sha256(data).hexdigest() in machine.between(out, "== sha256", "== processes")
    assert machine.between(out, "== processes", "== date") == "1000 processes"
    assert abs(int(machine.between(out, "== date", "== end")) - time.time()) < 5


@pytest.mark.parametrize("engine", machine.engines())
@pytest.mark.parametrize("cpus", [1, 4])
def test_the_cloud_kernel_boots_works_and_powers_off(lodge, cloud_kernel, initrd, engine, cpus):
    check_session(machine.boot(lodge, cloud_kernel, initrd, "/session/boot", "--engine", engine,
                               "--cpus", cpus), cpus)


@pytest.mark.parametrize("engine", machine.engines())
@pytest.mark.parametrize("cpus", [1, 4])
def test_the_full_kernel_boots_works_and_powers_off(lodge, full_kernel, initrd, engine, cpus):
    check_session(machine.boot(lodge, full_kernel, initrd, "/session/boot", "--engine", engine,
                               "--cpus", cpus), cpus)


@pytest.mark.parametrize("engine", machine.engines())
def test_the_32_bit_kernel_boots_works_and_powers_off(lodge, i386_kernel, initrd, engine):
    result = machine.boot(lodge, i386_kernel, initrd, "/session/trouble", "--engine", engine)
    assert result.status == 0
    # The 64-bit busybox cannot run there: the kernel gets as far as starting it.
    assert "Run /init as init process" in result.output


@pytest.mark.parametrize("engine", machine.engines())
def test_the_clock_keeps_time_with_the_host(lodge, cloud_kernel, initrd, engine):
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/clock", "--engine", engine,
                          append="quiet")
    first, last = map(int, re.findall(r"^(\d{9,})$", result.output, re.M))
    assert 59 <= last - first <= 62
    assert abs(last - time.time()) < 5


@pytest.mark.parametrize("engine", machine.engines())
def test_a_reboot_starts_the_kernel_again(lodge, cloud_kernel, initrd, engine):
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/reboot", "--engine", engine,
                          "--no-reboot", append="quiet")
    assert result.status == 0
    assert result.output.count("REBOOTING") == 1
