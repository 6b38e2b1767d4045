"""What the translator tells of itself, from within the sandbox."""
import os
import re
import subprocess

import pytest

import machine
from conftest import make_initramfs
from test_bad_input import flat

# mov ecx, 1000; loop: dec ecx; jnz loop; mov al, 21; out 0xf4, al
LOOP = bytes.fromhex("b9e8030000" "49" "75fd" "b015e6f4ebfe")


@pytest.fixture(scope="module", autouse=True)
def translate():
    if "translate" not in machine.engines():
        pytest.skip("the translator cannot run on this host")


def run(lodge, tmp_path, *options):
    result = machine.run(lodge, "--kernel", flat(tmp_path, LOOP), "--engine", "translate", *options,
                         timeout=60)
    assert result.status == 43, result.errors
    return result


def test_a_trace_holds_the_guests_code_disassembled(lodge, tmp_path):
    run(lodge, tmp_path, "--trace", tmp_path / "trace")
    assert "dec ecx" in (tmp_path / "trace").read_text()


def test_statistics_count_units(lodge, tmp_path):
    errors = run(lodge, tmp_path, "--stats").errors
    assert int(re.search(r"(\d+) units", errors).group(1)) > 0


def test_a_perf_map_does_not_change_the_run(lodge, tmp_path):
    run(lodge, tmp_path, "--perf-map")


def test_statistics_tell_where_the_time_went(lodge, tmp_path):
    line = re.search(r"time:(.*)", run(lodge, tmp_path, "--stats").errors).group(1)
    parts = dict(re.findall(r" ([A-Za-z ]+) (\d+\.\d)%", line))
    assert {"translated code", "translating", "TLB refills", "interpreting", "devices",
            "halted"} < set(parts)
    assert 99 < sum(map(float, parts.values())) < 101


def test_a_small_cache_is_enough(lodge, tmp_path):
    run(lodge, tmp_path, "--translation-cache", "1M")


@pytest.mark.long
def test_a_small_cache_is_enough_for_a_boot(lodge, cloud_kernel, tmp_path):
    (tmp_path / "session").write_text("echo CHECKED\n")
    initrd = make_initramfs(str(tmp_path / "initrd.gz"), f"{tmp_path}/session:/session/check")
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/check", "--engine", "translate",
                          "--stats", "--translation-cache", "1M", append=machine.NO_SELF_TESTS,
                          timeout=1800)
    assert result.status == 0 and "CHECKED" in result.output, result.output[-3000:]
    assert int(re.search(r"(\d+) evicted", result.errors).group(1)) > 0


def test_lodge_itself_takes_little_memory(lodge, cloud_kernel, tmp_path):
    """Beside the guest's memory, translated code, and the kernel that is kept for a reset."""
    (tmp_path / "session").write_text("ls -lR / >/dev/null 2>&1\necho READY\nsleep 1000\n")
    initrd = make_initramfs(str(tmp_path / "initrd.gz"), f"{tmp_path}/session:/session/wait")
    process = subprocess.Popen(
        [lodge, "run", "--kernel", cloud_kernel, "--initrd", initrd, "--append",
         f"{machine.APPEND} quiet {machine.NO_SELF_TESTS} session=/session/wait", "--engine",
         "translate", "--cpus", "1", "--memory", "128M"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert any(b"READY" in line for line in process.stdout)
        maps = list(machine.mappings(process.pid))
    finally:
        process.kill()
        process.communicate()
    own = sum(m["pss"] for m in maps if not m["guest"] and "lodge-code" not in m["name"])
    kept = (os.path.getsize(cloud_kernel) + os.path.getsize(initrd)) // 1024
    assert own - kept < 32 << 10, maps
