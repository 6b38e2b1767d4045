"""What a machine's process has left once its guest runs."""
import errno
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

import machine
from test_bad_input import flat

LOOP = bytes.fromhex("ebfe")
SYS_SOCKET = 41


def start(lodge, tmp_path, *arguments, engine="interpret"):
    """A guest that runs for ever, its process in the sandbox."""
    process = subprocess.Popen([lodge, "run", "--kernel", flat(tmp_path, LOOP), "--engine",
                                engine, "--console", "none", *arguments],
                               stdin=subprocess.DEVNULL,
                               env=dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path)))
    # The event loop, the timers, the CPU.
    wait_for(lambda: process.poll() is not None or len(threads(process)) >= 3)
    assert process.poll() is None
    return process


def threads(process):
    return os.listdir(f"/proc/{process.pid}/task")


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def status(process, thread):
    with open(f"/proc/{process.pid}/task/{thread}/status", encoding="ascii") as file:
        return dict(line.split(":\t") for line in file.read().splitlines() if ":\t" in line)


def confined(process):
    return all(status(process, t)["Seccomp"] == "2" for t in threads(process))


def end(process):
    process.terminate()
    assert process.wait(timeout=20) == 143


def test_every_thread_is_filtered_and_without_capabilities(lodge, tmp_path):
    process = start(lodge, tmp_path)
    wait_for(lambda: confined(process))
    for thread in threads(process):
        fields = status(process, thread)
        assert fields["NoNewPrivs"] == "1"
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    end(process)


# What a descriptor may lead to, besides the standard streams, and whether it may be written.
HELD = [(r"(/dev)?/kvm", True), (r"anon_inode:kvm-vm", True), (r"anon_inode:kvm-vcpu:\d+", True),
        (r"anon_inode:\[(eventfd|eventpoll|signalfd|timerfd|io_uring)\]", True),
        (r"/memfd:.* \(deleted\)", True), # translated code
        (r".*/guest", False), (r".*/disk", True)]


def descriptors(process):
    """What each is a link to, and whether it may be written."""
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        with open(f"/proc/{process.pid}/fdinfo/{fd}", encoding="ascii") as file:
            flags = int(re.search(r"^flags:\s+([0-7]+)$", file.read(), re.M)[1], 8)
        yield int(fd), os.readlink(f"/proc/{process.pid}/fd/{fd}"), flags & os.O_ACCMODE != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at all of a process")
@pytest.mark.parametrize("engine", [*machine.engines(), "kvm"])
def test_a_process_holds_what_its_machine_was_given_and_no_more(lodge, tmp_path, engine):
    if engine == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/kvm to open")
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    process = start(lodge, tmp_path, "--disk", str(tmp_path / "disk"), engine=engine)
    wait_for(lambda: confined(process))
    for fd, target, writable in descriptors(process):
        kind = [may_write for pattern, may_write in HELD if re.fullmatch(pattern, target)]
        assert fd <= 2 or kind, target
        assert fd <= 2 or kind[0] or not writable, target
        assert not os.path.isdir(f"/proc/{process.pid}/fd/{fd}")
    for thread in threads(process):
        fields = status(process, thread)
        assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
        assert not any(int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    with open(f"/proc/{process.pid}/limits", encoding="ascii") as file:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
    assert limits["Max core file size"] == ["0", "0"]
    assert int(limits["Max open files"][1]) <= 1024
    end(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at the namespaces")
def test_the_file_system_is_empty_and_there_is_no_network(lodge, tmp_path):
    process = start(lodge, tmp_path)
    wait_for(lambda: confined(process))
    if os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{process.pid}/ns/mnt"):
        end(process)
        pytest.skip("this host allows no namespaces")
    assert os.listdir(f"/proc/{process.pid}/root/") == []
    with pytest.raises(OSError) as refused:
        os.mkdir(f"/proc/{process.pid}/root/made")
    assert refused.value.errno == errno.EROFS
    with open(f"/proc/{process.pid}/net/dev", encoding="ascii") as file:
        assert [line.split(":")[0].strip() for line in file][2:] == ["lo"]
    end(process)


@pytest.mark.parametrize("thread", [0, 1])  # the event loop, the timers
def test_a_forbidden_call_kills_it_whichever_thread_makes_it(lodge, tmp_path, thread):
    process = start(lodge, tmp_path)
    wait_for(lambda: confined(process))
    program = os.path.join(os.path.dirname(lodge), "tests", "kvm", "force-call")
    victim = sorted(threads(process), key=int)[thread]
    subprocess.run([program, victim, str(SYS_SOCKET)], check=True, timeout=20)
    assert process.wait(timeout=20) == -signal.SIGSYS


def test_no_core_file_is_left(lodge, tmp_path):
    process = start(lodge, tmp_path)
    wait_for(lambda: confined(process))
    with open(f"/proc/{process.pid}/limits", encoding="ascii") as file:
        assert any(line.split()[:6] == ["Max", "core", "file", "size", "0", "0"] for line in file)
    end(process)


def test_without_the_sandbox_there_is_no_filter(lodge, tmp_path):
    process = start(lodge, tmp_path, "--no-sandbox")
    assert all(status(process, t)["Seccomp"] == "0" for t in threads(process))
    end(process)


def test_a_console_socket_is_removed_from_inside(lodge, tmp_path):
    path = tmp_path / "console"
    process = start(lodge, tmp_path, "--console", f"unix:{path}")
    wait_for(path.exists)
    end(process)
    assert not path.exists()


def test_the_control_socket_is_removed_from_inside(lodge, tmp_path):
    process = start(lodge, tmp_path, "--name", "boxed")
    path = tmp_path / "lodge" / "boxed.sock"
    wait_for(path.exists)
    end(process)
    assert not path.exists()


def test_an_interrupt_ends_it_too(lodge, tmp_path):
    process = start(lodge, tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130


@pytest.mark.parametrize("engine", machine.engines())
def test_another_user_than_root_has_the_sandbox_too(lodge, tmp_path, engine):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the other tests stand for this one")
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest-"):
            os.chmod(parent, 0o755)
    guest = flat(tmp_path, bytes.fromhex("b015e6f4ebfe"))
    program = shutil.copy(lodge, tmp_path)  # which may lie where others have no way in
    result = subprocess.run([program, "run", "--kernel", guest, "--engine", engine], user=65534,
                            group=65534, extra_groups=[], capture_output=True, timeout=60)
    assert result.returncode == 43, result.stderr
