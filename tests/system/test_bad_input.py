"""Bad input gets one line that says what is wrong, and no crash."""
import os
import subprocess

import pytest

import machine


def expect(lodge, status, word, *arguments, timeout=60):
    result = machine.run(lodge, *arguments, timeout=timeout)
    assert result.status == status, result.errors
    assert result.errors.startswith("lodge: "), result.errors
    assert len(result.errors.splitlines()) == 1 or status == 2, result.errors
    assert word in result.errors, result.errors
    return result


def test_a_missing_kernel_is_told(lodge, tmp_path):
    expect(lodge, 1, str(tmp_path / "none"), "--kernel", tmp_path / "none")


def test_an_empty_kernel_is_told(lodge, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    expect(lodge, 1, "empty", "--kernel", tmp_path / "empty")


def test_a_directory_as_kernel_is_told(lodge, tmp_path):
    expect(lodge, 1, str(tmp_path), "--kernel", tmp_path)


def test_text_as_kernel_is_told(lodge):
    expect(lodge, 1, "/etc/passwd", "--kernel", "/etc/passwd")


@pytest.mark.parametrize("size", [100, 600, 4096, 70000, 1000000])
def test_a_truncated_kernel_is_told(lodge, cloud_kernel, tmp_path, size):
    with open(cloud_kernel, "rb") as kernel:
        (tmp_path / "cut").write_bytes(kernel.read(size))
    expect(lodge, 1, "cut", "--kernel", tmp_path / "cut")


def test_an_initrd_larger_than_memory_is_told(lodge, cloud_kernel, tmp_path):
    with open(tmp_path / "big", "wb") as big:
        big.truncate(600 << 20)
    expect(lodge, 2, "memory", "--kernel", cloud_kernel, "--initrd", tmp_path / "big",
           "--memory", "512M")


@pytest.mark.parametrize("size", ["0", "-1", "x", "12Q", "", "99999999999999999999", "1T"])
def test_a_senseless_memory_size_is_told(lodge, cloud_kernel, size):
    result = machine.run(lodge, "--kernel", cloud_kernel, "--memory", size)
    assert result.status in (1, 2)
    assert "memory" in result.errors


def test_more_memory_than_the_host_has_is_told(lodge, cloud_kernel):
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        total = int(meminfo.readline().split()[1]) >> 10  # MiB
    expect(lodge, 2, "memory", "--kernel", cloud_kernel, "--memory", f"{total * 2}M")


def test_too_little_memory_is_told(lodge, cloud_kernel):
    expect(lodge, 2, "memory", "--kernel", cloud_kernel, "--memory", "1M")


@pytest.mark.parametrize("cpus", ["0", "10000", "-1", "two", ""])
def test_a_senseless_number_of_cpus_is_told(lodge, cloud_kernel, cpus):
    expect(lodge, 2, "cpus", "--kernel", cloud_kernel, "--cpus", cpus)


def test_an_unknown_engine_is_told_with_the_known_ones(lodge, cloud_kernel):
    result = expect(lodge, 2, "steam", "--kernel", cloud_kernel, "--engine", "steam")
    assert "interpret" in result.errors


def test_an_unknown_option_is_told(lodge):
    expect(lodge, 2, "--frobnicate", "--frobnicate")


def test_a_missing_kernel_option_is_told(lodge):
    expect(lodge, 2, "--kernel")


def test_an_unknown_verb_is_told(lodge):
    result = subprocess.run([lodge, "fly"], capture_output=True, text=True)
    assert result.returncode == 2 and "fly" in result.stderr


@pytest.mark.parametrize("verb", [["version"], ["help"], ["engines"], ["help", "run"]])
def test_a_closed_standard_output_is_an_error(lodge, verb):
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([lodge, *verb], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("lodge: ")


def test_a_closed_pipe_ends_the_machine_quietly(lodge, cloud_kernel):
    read, write = os.pipe()
    process = subprocess.Popen([lodge, "run", "--kernel", cloud_kernel, "--append",
                                "console=ttyS0 earlyprintk=serial"], stdout=write,
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    os.close(write)
    os.close(read)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"lodge: " in errors


def flat(tmp_path, code):
    """A multiboot kernel of a few bytes of 32-bit code."""
    base = 0x100000
    flags = 0x00010000
    words = [0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, base, base,
             base + 0x1000, base + 0x1000, base + 0x40]
    image = b"".join(w.to_bytes(4, "little") for w in words).ljust(0x40, b"\0") + code
    path = tmp_path / "guest"
    path.write_bytes(image.ljust(0x1000, b"\0"))
    return path


@pytest.mark.parametrize("engine", machine.engines())
def test_a_triple_fault_is_told(lodge, tmp_path, engine):
    # lidt [zero limit]; int3
    guest = flat(tmp_path, bytes.fromhex("0f011d80001000cc"))
    result = machine.run(lodge, "--kernel", guest, "--engine", engine, timeout=60)
    assert result.status == 4
    assert "triple fault" in result.errors


@pytest.mark.parametrize("engine", machine.engines())
def test_a_guest_that_loops_for_ever_ends_by_a_signal(lodge, tmp_path, engine):
    guest = flat(tmp_path, bytes.fromhex("ebfe"))
    process = subprocess.Popen([lodge, "run", "--kernel", guest, "--engine", engine],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        process.wait(timeout=2)
        assert False, "it ended by itself"
    except subprocess.TimeoutExpired:
        process.terminate()
    assert process.wait(timeout=10) == 143


# What a guest may write to every port, from the highest down or from the lowest up. On the way it
# resets the machine, powers it off, or leaves by the debug exit: each is an end, none a crash.
@pytest.mark.parametrize("engine", machine.engines())
@pytest.mark.parametrize("value", ["00", "fe", "ff"])
@pytest.mark.parametrize("upwards", [True, False])
def test_a_guest_that_writes_every_port_ends_as_it_asked_for(lodge, tmp_path, engine, value,
                                                             upwards):
    # mov al, value; mov ecx, 0x10000; mov edx, 0 or 0xffff; 1: out dx, al; inc dx or dec dx;
    # loop 1b; jmp $
    first, step = ("00000000", "42") if upwards else ("ffff0000", "4a")
    guest = flat(tmp_path, bytes.fromhex(f"b0{value} b900000100 ba{first} ee 66{step} e2fb ebfe"))
    result = machine.run(lodge, "--kernel", guest, "--engine", engine, "--no-reboot", timeout=60)
    debug_exit = (2 * int(value, 16) + 1) & 0xff
    assert result.status in (0, debug_exit), result.errors


@pytest.mark.parametrize("engine", machine.engines())
def test_a_guest_that_writes_all_of_memory_crashes_alone(lodge, tmp_path, engine):
    # Every page above RAM, then RAM from 0 up, with INT3, over the guest itself:
    # lidt [zero limit]; mov edi, 0xfffffff0; 1: mov [edi], edi; sub edi, 0x1000;
    # cmp edi, 0x4000000; ja 1b; mov eax, 0xcccccccc; xor edi, edi; mov ecx, 0x1000000; rep stosd
    guest = flat(tmp_path, bytes.fromhex(
        "0f011d80001000 bff0ffffff 893f 81ef00100000 81ff00000004 77f0 b8cccccccc 31ff b900000001"
        "f3ab ebfe"))
    result = machine.run(lodge, "--kernel", guest, "--engine", engine, "--memory", "64M",
                         "--no-reboot", timeout=60)
    assert result.status == 4, result.errors


@pytest.mark.parametrize("engine", machine.engines())
def test_the_debug_exit_port_sets_the_status(lodge, tmp_path, engine):
    # mov al, 21; out 0xf4, al
    guest = flat(tmp_path, bytes.fromhex("b015e6f4ebfe"))
    assert machine.run(lodge, "--kernel", guest, "--engine", engine, timeout=60).status == 43
