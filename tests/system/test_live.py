"""A running machine is changed from outside, and its guest is told."""
import os
import subprocess
import threading

import pytest

import machine
import virtio

MIB = 1 << 20

# Prints what it has each time when it changes.
SESSION = """
last=
while true; do
    now="$(cat /sys/block/vda/size) $(awk '/MemFree/ {print int($2 / 1024)}' /proc/meminfo)"
    [ "$now" = "$last" ] || echo "NOW $now"
    last="$now"
    sleep 0.2
done
"""


class Guest:
    def __init__(self, lodge, process, environment, disk):
        self.lodge, self.process, self.environment, self.disk = lodge, process, environment, disk

    def ask(self, *arguments):
        return subprocess.run([self.lodge, *map(str, arguments)], env=self.environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait(self, true):
        """The next facts that are so: sectors of the disk, MiB of free memory."""
        for line in self.process.stdout:
            if line.startswith(b"NOW"):
                facts = [int(word) for word in line.split()[1:]]
                if true(*facts):
                    return facts
        raise AssertionError("the guest ended")


@pytest.fixture(params=["raw", "qcow2"])
def guest(lodge, cloud_kernel, tmp_path, request):
    disk = tmp_path / f"disk.{request.param}"
    subprocess.run([lodge, "disk", "create", "-f", request.param, disk, "16M"], check=True)
    initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["blk", "balloon"], SESSION)
    environment = dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path))
    process = subprocess.Popen(
        [lodge, "run", "--name", "live", "--memory", "256M", "--kernel", cloud_kernel, "--initrd",
         initrd, "--append", f"{machine.APPEND} quiet session=/session/main", "--disk", disk],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    watchdog = threading.Timer(150, process.kill)
    watchdog.start()
    yield Guest(lodge, process, environment, disk)
    watchdog.cancel()
    process.kill()
    process.wait()


def test_a_disk_grows_and_shrinks_under_its_guest(guest):
    guest.wait(lambda sectors, memory: sectors == 16 * MIB / 512)
    resize = ["disk", "resize", "--machine", "live", guest.disk]
    assert guest.ask(*resize, "+8M").returncode == 0
    guest.wait(lambda sectors, memory: sectors == 24 * MIB / 512)
    cut = guest.ask(*resize, "20M")
    assert cut.returncode == 1 and "--shrink" in cut.stderr
    odd = guest.ask(*resize, "26000001")
    assert odd.returncode == 1 and "512" in odd.stderr
    assert guest.ask(*resize, "--shrink", "8M").returncode == 0
    guest.wait(lambda sectors, memory: sectors == 8 * MIB / 512)
    other = guest.ask("disk", "resize", "--machine", "live", __file__, "1M")
    assert other.returncode == 1 and "no disk" in other.stderr


def test_a_balloon_takes_memory_and_gives_it_back(guest):
    before = guest.wait(lambda sectors, memory: True)[1]
    assert guest.ask("balloon", "live", "64M").returncode == 0
    guest.wait(lambda sectors, memory: memory <= before - 60)
    assert guest.ask("balloon", "live", "0").returncode == 0
    guest.wait(lambda sectors, memory: memory >= before - 10)
    much = guest.ask("balloon", "live", "1G")
    assert much.returncode == 1 and "256 MiB" in much.stderr


@pytest.mark.parametrize("arguments,status,word", [
    (["balloon", "live"], 2, "NAME SIZE"), (["balloon", "live", "x"], 2, "size"),
    (["balloon", "nobody", "1M"], 1, "nobody"),
    (["disk", "resize", "--machine", "nobody", __file__, "1M"], 1, "nobody")])
def test_what_cannot_be_asked_is_told_in_a_line(lodge, tmp_path, arguments, status, word):
    r = subprocess.run([lodge, *arguments], env=dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path)),
                       text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert r.returncode == status and word in r.stderr and r.stderr.count("\n") == 1
