"""The engine of a running guest changes under it."""
import os
import re
import subprocess

import pytest

import machine
from conftest import TOP, make_initramfs
from test_bad_input import flat

WORK = f"{TOP}/tests/kvm/inner-work"
MEBIBYTE = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"


def change(lodge, name, engine, environment):
    return subprocess.run([lodge, "engine", name, engine], env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def environment(tmp_path):
    return dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path))


def test_a_workload_goes_on_through_ten_changes(lodge, cloud_kernel, tmp_path, environment):
    initrd = make_initramfs(str(tmp_path / "initrd.gz"), f"{WORK}:/work")
    process = subprocess.Popen(
        [lodge, "run", "--name", "moved", "--engine", machine.engines()[0], "--cpus", "2",
         "--kernel", cloud_kernel, "--initrd", initrd, "--append",
         "console=ttyS0 quiet panic=-1 session=/work"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1] == "WORK-BEGINS":
            break
    for i in range(10):
        result = change(lodge, "moved", machine.engines()[i % len(machine.engines())], environment)
        assert result.returncode == 0, result.stderr
    process.stdin.write("\n")
    process.stdin.flush()
    lines += [line.strip() for line in process.stdout]
    assert process.wait(timeout=120) == 0
    assert "WORK-ENDS" in lines
    sums = [line.split()[1] for line in lines if re.match("[0-9]+ [0-9a-f]{64} ", line)]
    assert sums == [MEBIBYTE]


def test_a_machine_that_does_not_run_is_told(lodge, environment):
    result = change(lodge, "nobody", "interpret", environment)
    assert result.returncode == 1 and "nobody" in result.stderr


@pytest.mark.parametrize("name", ["", "../etc", ".hidden", "a/b", "x" * 65])
def test_a_senseless_name_is_told(lodge, environment, name):
    result = change(lodge, name, "interpret", environment)
    assert result.returncode == 2 and "no name" in result.stderr


def test_an_unknown_engine_is_told(lodge, environment):
    result = change(lodge, "moved", "steam", environment)
    assert result.returncode == 2 and "interpret" in result.stderr


def test_a_crash_leaves_the_state_of_the_cpus(lodge, tmp_path, environment):
    # mov eax, 0x1234; lidt [zero limit]; int3
    guest = flat(tmp_path, bytes.fromhex("b8341200000f011d80001000cc"))
    result = subprocess.run([lodge, "run", "--name", "wreck", "--engine", machine.engines()[0],
                             "--kernel", guest], env=environment, stdin=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, timeout=60)
    path = tmp_path / "lodge" / "wreck.crash"
    assert result.returncode == 4 and str(path) in result.stderr
    text = path.read_text()
    assert "triple fault" in text and "rax  0000000000001234" in text


def test_two_machines_have_two_names(lodge, tmp_path, environment):
    command = [lodge, "run", "--name", "twin", "--engine", "interpret", "--console", "none",
               "--kernel", flat(tmp_path, bytes.fromhex("ebfe"))]
    first = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        while change(lodge, "twin", "interpret", environment).returncode:
            assert first.poll() is None
        second = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True,
                                stdin=subprocess.DEVNULL, timeout=60)
        assert second.returncode == 1 and "twin" in second.stderr
    finally:
        first.terminate()
        assert first.wait(timeout=20) == 143
