"""Debian's kernels boot to user space and work there."""
import hashlib
import os
import re
import subprocess
import time
from collections import namedtuple

import pytest

import machine
from conftest import TOP, fetch, make_initramfs

# The kernel's words for trouble; its harmless advice to "report a bug" is in small letters.
TROUBLE = re.compile(r"\bBUG\b|\bWARNING\b|\bstuck\b|\bspurious\b|\bSpurious\b")

# What a session has to do: bytes to hash, processes to start.
Load = namedtuple("Load", "bytes processes")
LIGHT = Load(4 << 20, 100)
FULL = Load(64 << 20, 1000)

SESSIONS = {"clock": "date +%s; sleep 60; date +%s\n", "reboot": "echo REBOOTING; reboot -f\n"}


def boots(light_cpus):
    """Engine, CPUs and load of each boot. On the interpreter the full load takes minutes: there
    the light one stands for it, with as many CPUs as given, outside the long tests."""
    for engine in machine.engines():
        slow = engine == "interpret"
        for cpus in (1, 4):
            if slow and cpus in light_cpus:
                yield pytest.param(engine, cpus, LIGHT, id=f"{engine}-{cpus}-light")
            yield pytest.param(engine, cpus, FULL, id=f"{engine}-{cpus}",
                               marks=pytest.mark.long if slow else ())


def make_boot_initramfs(directory, environment=None):
    for name, text in SESSIONS.items():
        (directory / name).write_text(text)
    return make_initramfs(str(directory / "initrd.gz"),
                          f"{TOP}/tests/system/session-boot:/session/boot",
                          *(f"{directory}/{name}:/session/{name}" for name in SESSIONS),
                          environment=environment)


@pytest.fixture(scope="module")
def initrd(tmp_path_factory):
    return make_boot_initramfs(tmp_path_factory.mktemp("boot"))


@pytest.fixture(scope="module")
def i386_initrd(tmp_path_factory):
    return make_boot_initramfs(tmp_path_factory.mktemp("boot-i386"),
                               {"BUSYBOX": fetch("fetch-busybox", "i386")})


def boot(lodge, kernel, initrd, engine, cpus, load, append=machine.NO_SELF_TESTS):
    return machine.boot(lodge, kernel, initrd, "/session/boot", "--engine", engine, "--cpus", cpus,
                        append=f"BYTES={load.bytes} PROCESSES={load.processes} {append}")


def check_session(result, cpus, load):
    assert result.status == 0, result.output[-2000:]
    out = result.output
    assert machine.between(out, "== cpuinfo", "== sha256").count("processor\t:") == cpus
    trouble = [line for line in machine.between(out, "== dmesg", "== date").splitlines()
               if TROUBLE.search(line)]
    assert not trouble
    data = (b"lodge\n" * (load.bytes // 6 + 1))[:load.bytes]
    assert hashlib.sha256(data).hexdigest() in machine.between(out, "== sha256", "== processes")
    assert machine.between(out, "== processes", "== dmesg") == f"{load.processes} processes"
    # However busy the host is, the guest said this between its start and its end.
    said = int(machine.between(out, "== date", "== end"))
    assert time.time() - result.seconds - 2 <= said <= time.time() + 2


@pytest.fixture(scope="module", autouse=True)
def clocks(lodge, cloud_kernel, initrd, tmp_path_factory):
    """A guest on each engine that reads its clock twice, a minute apart, while other tests run."""
    directory = tmp_path_factory.mktemp("clocks")
    guests = {}
    for engine in machine.engines():
        path = directory / engine
        guests[engine] = path, subprocess.Popen(
            [lodge, "run", "--kernel", cloud_kernel, "--initrd", initrd, "--engine", engine,
             "--console", path, "--append",
             f"{machine.APPEND} quiet {machine.NO_SELF_TESTS} session=/session/clock"],
            stdin=subprocess.DEVNULL)
    yield guests
    for _, process in guests.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("engine,cpus,load", boots(light_cpus=(1, 4)))
def test_the_cloud_kernel_boots_works_and_powers_off(lodge, cloud_kernel, initrd, engine, cpus,
                                                     load):
    self_tests = "" if cpus == 1 else machine.NO_SELF_TESTS
    check_session(boot(lodge, cloud_kernel, initrd, engine, cpus, load, self_tests), cpus, load)


@pytest.mark.parametrize("engine,cpus,load", boots(light_cpus=()))
def test_the_full_kernel_boots_works_and_powers_off(lodge, full_kernel, initrd, engine, cpus, load):
    check_session(boot(lodge, full_kernel, initrd, engine, cpus, load), cpus, load)


@pytest.mark.parametrize("engine", [
    pytest.param(engine, marks=pytest.mark.long if engine == "interpret" else ())
    for engine in machine.engines()])
def test_the_32_bit_kernel_boots_works_and_powers_off(lodge, i386_kernel, i386_initrd, engine):
    load = LIGHT if engine == "interpret" else FULL
    check_session(boot(lodge, i386_kernel, i386_initrd, engine, 1, load), 1, load)


@pytest.mark.long
@pytest.mark.parametrize("cpus", (1, 2, 4))
def test_of_twenty_boots_on_the_translator_none_hangs(lodge, cloud_kernel, initrd, cpus):
    for _ in range(20):
        check_session(boot(lodge, cloud_kernel, initrd, "translate", cpus, LIGHT), cpus, LIGHT)


@pytest.mark.parametrize("engine", machine.engines())
def test_a_reboot_starts_the_kernel_again(lodge, cloud_kernel, initrd, engine, tmp_path):
    path = tmp_path / "console"
    process = subprocess.Popen(
        [lodge, "run", "--kernel", cloud_kernel, "--initrd", initrd, "--engine", engine,
         "--console", path, "--append",
         f"{machine.APPEND} quiet {machine.NO_SELF_TESTS} session=/session/reboot"],
        stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        text = ""
        while text.count("REBOOTING") < 2 and time.monotonic() < deadline:
            assert process.poll() is None, f"it ended with {process.returncode}:\n{text[-2000:]}"
            time.sleep(0.1)
            text = path.read_text(errors="replace") if os.path.exists(path) else ""
        assert text.count("REBOOTING") >= 2, text[-2000:]
        process.terminate()
        assert process.wait(timeout=10) == 143
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("engine", machine.engines())
def test_a_reboot_ends_the_machine_when_asked_for(lodge, cloud_kernel, initrd, engine):
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/reboot", "--engine", engine,
                          "--no-reboot", append=f"quiet {machine.NO_SELF_TESTS}")
    assert result.status == 0
    assert result.output.count("REBOOTING") == 1


@pytest.mark.parametrize("engine", machine.engines())
def test_the_clock_keeps_time_with_the_host(clocks, engine):
    path, process = clocks[engine]
    assert process.wait(timeout=200) == 0
    first, last = map(int, re.findall(r"^(\d{9,})\r?$", path.read_text(), re.M))
    assert 59 <= last - first <= 70  # a busy host wakes it late
    # It ended when its console was last written to, a moment after it said so.
    assert -10 <= last - os.stat(path).st_mtime <= 2
