"""Lodge is killed while its guest writes: what was acknowledged is there afterwards."""
import hashlib
import random
import re
import signal
import subprocess
import threading
import time

import pytest

import machine
import virtio

MIB = 1 << 20
RECORD = 512

# Each record is numbered and has a checksum; it is acknowledged after its fsync.
SESSION = """
mkdir /mnt
mount -t ext4 /dev/vda /mnt
i=0
while true; do
    text="record $i"
    sum=$(echo "$text" | md5sum | cut -c1-32)
    printf '%-511s\\n' "$text $sum" | dd of=/mnt/log bs=512 seek=$i conv=notrunc,fsync 2>/dev/null
    echo "ACKNOWLEDGED $i"
    i=$((i + 1))
done
"""


def make_disk(folder, kind):
    plain, disk = folder / "plain", folder / f"disk.{kind}"
    with open(plain, "wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", plain], check=True)
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", kind, plain, disk], check=True)
    return disk


def run_and_kill(lodge, kernel, initrd, disk, pause):
    """Boot, wait for some records and then a while, and kill. The last record acknowledged."""
    process = subprocess.Popen(
        [lodge, "run", "--kernel", kernel, "--initrd", initrd, "--append",
         f"{machine.APPEND} quiet session=/session/main", "--disk", disk],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    lines = []
    for line in process.stdout:
        lines.append(line.decode(errors="replace"))
        if "ACKNOWLEDGED 3" in lines[-1]:
            break
    threading.Timer(pause, process.send_signal, [signal.SIGKILL]).start()
    lines += [line.decode(errors="replace") for line in process.stdout]
    watchdog.cancel()
    assert process.wait() == -signal.SIGKILL, "".join(lines[-20:])
    return max(map(int, re.findall(r"ACKNOWLEDGED (\d+)\r?\n", "".join(lines))), default=-1)


def wait_for_locks(disk):
    """The kernel ends a killed program's requests, and with them its locks, a little after it."""
    for _ in range(100):
        if subprocess.run(["qemu-img", "info", disk], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.05)


def check_disk(lodge, folder, disk, kind, last):
    wait_for_locks(disk)
    if kind == "qcow2":
        # Clusters may be lost to a power cut (status 3), tables may not.
        check = subprocess.run(["qemu-img", "check", "-q", disk], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        assert check.returncode in (0, 3), check.stdout
        check = subprocess.run([lodge, "disk", "check", "--repair", disk], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        assert check.returncode == 0, check.stdout
    plain = folder / "after"
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", disk, plain], check=True)
    assert virtio.e2fsck(plain) == 0
    log = subprocess.run(["/sbin/debugfs", "-R", "cat /log", plain], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, check=True).stdout
    for i in range(last + 1):
        text = f"record {i}"
        digest = hashlib.md5(f"{text}\n".encode()).hexdigest()
        assert log[i * RECORD:(i + 1) * RECORD].decode().rstrip() == f"{text} {digest}"


def cut_power(lodge, kernel, folder, kind, times):
    initrd = virtio.make_guest(str(folder), kernel, ["blk"], SESSION)
    source = random.Random(times)
    for _ in range(times):
        disk = make_disk(folder, kind)
        last = run_and_kill(lodge, kernel, initrd, disk, source.uniform(0, 2))
        assert last >= 3
        check_disk(lodge, folder, disk, kind, last)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_no_acknowledged_record_is_lost(lodge, cloud_kernel, tmp_path, kind):
    cut_power(lodge, cloud_kernel, tmp_path, kind, 1)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_no_acknowledged_record_is_lost_at_50_moments(lodge, cloud_kernel, tmp_path, kind):
    cut_power(lodge, cloud_kernel, tmp_path, kind, 50)
