"""What the translator tells of itself, from within the sandbox."""
import re

import pytest

import machine
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


def test_a_small_cache_is_enough(lodge, tmp_path):
    run(lodge, tmp_path, "--translation-cache", "1M")
