"""A guest works with its virtio devices: disks, entropy, balloon, channels, shared folders."""
import hashlib
import os
import random
import re
import socket
import subprocess
import threading
import time

import pytest

import machine
import virtio

MIB = 1 << 20

# The records that the host wrote are read, and other ones are written.
DISK_SESSION = """
disk() {
    echo "== $1"
    cat /sys/block/$1/size
    cat /sys/block/$1/serial; echo
    sha256sum /dev/$1
    mke2fs -q -F /dev/$1 >/dev/null 2>&1
    mkdir -p /mnt
    mount -t ext4 /dev/$1 /mnt
    head -c 3000000 /dev/urandom >/mnt/blob
    sha256sum /mnt/blob
    umount /mnt
}
disk vda
disk vdb
echo "== entropy"
cat /sys/class/misc/hw_random/rng_current
head -c 32 /dev/hwrng | wc -c
echo "== channel"
port=/dev/$(basename /sys/class/virtio-ports/*)
cat /sys/class/virtio-ports/*/name
exec 3<>$port
read line <&3
echo "got $line"
echo "$line and back" >&3
read line <&3
echo "== balloon"
head -c 200000000 /dev/zero >/tmp/large
rm /tmp/large
sleep 10
echo "== end"
"""


def start_channel(path, heard):
    """The host's end of a channel: a line there, a line back."""
    def talk():
        for _ in range(1200):
            try:
                client = socket.socket(socket.AF_UNIX)
                client.connect(path)
                break
            except OSError:
                time.sleep(0.1)
        client.settimeout(120)
        client.sendall(b"there\n")
        heard.append(client.recv(100))
        client.sendall(b"thanks\n")
        try:
            client.recv(1)  # until the machine goes away
        except OSError:
            pass

    threading.Thread(target=talk, daemon=True).start()


def watch_memory(lodge, samples, done):
    """Sample the guest memory of the running machine until done is set."""
    while not done.is_set():
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/exe") == os.path.realpath(lodge):
                    with open(f"/proc/{entry}/cmdline") as command:
                        if "test-virtio" in command.read():
                            samples.append(machine.resident(entry))
            except OSError:
                pass
        time.sleep(0.25)


@pytest.fixture(scope="module")
def devices(lodge, cloud_kernel, tmp_path_factory):
    """One guest that tries all of them; what it said, and what it left."""
    folder = tmp_path_factory.mktemp("devices")
    raw, qcow2, channel = folder / "disk.raw", folder / "disk.qcow2", folder / "channel"
    source = random.Random(1).randbytes(16 * MIB)
    raw.write_bytes(source)
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, qcow2],
                   check=True)
    initrd = virtio.make_guest(str(folder), cloud_kernel, ["rng", "blk", "console", "balloon"],
                               DISK_SESSION)
    heard, samples, done = [], [], threading.Event()
    start_channel(str(channel), heard)
    watcher = threading.Thread(target=watch_memory, args=(lodge, samples, done))
    watcher.start()
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/main",
                          "--name", "test-virtio", "--disk", f"{raw},serial=FIRST",
                          "--disk", f"{qcow2},queues=2", "--channel", f"agent:{channel}",
                          append="quiet", timeout=200)
    done.set()
    watcher.join()
    assert result.status == 0, result.errors
    return {"output": result.output, "source": source, "raw": raw, "qcow2": qcow2, "heard": heard,
            "samples": samples, "folder": folder}


def check_disk(devices, name, serial, image):
    lines = virtio.section(devices["output"], name).split("\n")
    assert int(lines[0]) * 512 == 16 * MIB
    assert lines[1] == serial
    assert lines[2].split()[0] == hashlib.sha256(devices["source"]).hexdigest()
    plain = devices["folder"] / f"{name}.plain"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, plain], check=True)
    assert virtio.e2fsck(plain) == 0
    blob = subprocess.run(["/sbin/debugfs", "-R", "cat /blob", plain], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True).stdout
    assert hashlib.sha256(blob).hexdigest() == lines[-1].split()[0]


def test_a_raw_disk_is_read_and_written(devices):
    check_disk(devices, "vda", "FIRST", devices["raw"])


def test_a_qcow2_disk_is_read_and_written(devices):
    check_disk(devices, "vdb", "", devices["qcow2"])
    subprocess.run(["qemu-img", "check", "-q", devices["qcow2"]], check=True)


def test_the_entropy_device_gives_bytes(devices):
    assert virtio.section(devices["output"], "entropy").split("\n") == ["virtio_rng.0", "32"]


def test_a_channel_carries_lines_both_ways(devices):
    assert virtio.section(devices["output"], "channel").split("\n") == ["agent", "got there"]
    assert devices["heard"] == [b"there and back\n"]


def test_memory_that_the_guest_frees_goes_back_to_the_host(devices):
    """Free page reporting gives large free blocks back within seconds."""
    peak, last = max(devices["samples"]), devices["samples"][-1]
    assert peak > 200_000_000
    assert peak - last > 0.9 * 200_000_000, f"of {peak} bytes at most {last} were left"


# --- Shared folders ---

SHARE_SESSION = """
mkdir /mnt /ro
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 files /mnt
mount -t 9p -o trans=virtio,version=9p2000.L fixed /ro
echo "== read"
sha256sum </mnt/blob
ls /mnt/many | wc -l
echo "== write"
head -c 1000000 /dev/urandom >/mnt/written
sha256sum </mnt/written
mkdir /mnt/made && mv /mnt/written /mnt/made/moved && ln -s moved /mnt/made/link
rm -r /mnt/many && ls /mnt/many
cat /mnt/made/link | wc -c
echo "== escape"
cat /mnt/up
cat /mnt/root/etc/lodge-host-secret
ls /mnt/../../../../..  | grep -c lodge-host
echo x >/mnt/up
mknod /mnt/node c 1 3
echo "== fixed"
cat /ro/a
echo x >/ro/a
rm /ro/a
mkdir /ro/b
echo "== end"
"""


@pytest.fixture(scope="module")
def shares(lodge, full_kernel, tmp_path_factory):
    """Debian's cloud kernel has no 9P; the full one has."""
    folder = tmp_path_factory.mktemp("shares")
    files, fixed = folder / "files", folder / "fixed"
    (files / "many").mkdir(parents=True)
    fixed.mkdir()
    for i in range(300):
        (files / "many" / f"a name of a file, number {i}").touch()
    (files / "blob").write_bytes(random.Random(2).randbytes(2 * MIB))
    (folder / "secret").write_text("nobody's business\n")
    (files / "up").symlink_to("../secret")
    (files / "root").symlink_to(folder)
    (fixed / "a").write_text("as it is\n")
    initrd = virtio.make_guest(str(folder), full_kernel, ["9p"], SHARE_SESSION)
    result = machine.boot(lodge, full_kernel, initrd, "/session/main",
                          "--share", f"{files}:files", "--share", f"{fixed}:fixed:ro",
                          append="quiet")
    assert result.status == 0, result.errors
    return result.output, files, fixed


def test_a_shared_folder_is_read(shares):
    output, files, _ = shares
    digest = hashlib.sha256((files / "blob").read_bytes()).hexdigest()
    assert virtio.section(output, "read").split("\n") == [f"{digest}  -", "300"]


def test_a_shared_folder_is_written(shares):
    output, files, _ = shares
    lines = virtio.section(output, "write").split("\n")
    moved = files / "made" / "moved"
    assert lines[0].split()[0] == hashlib.sha256(moved.read_bytes()).hexdigest()
    assert lines[-1] == "1000000"
    assert os.readlink(files / "made" / "link") == "moved"
    assert not (files / "many").exists()


def test_nothing_outside_a_shared_folder_is_reached(shares):
    output, files, _ = shares
    assert "nobody's business" not in output
    assert (files.parent / "secret").read_text() == "nobody's business\n"
    assert not (files / "node").exists()


def test_a_read_only_share_stays_as_it_is(shares):
    output, _, fixed = shares
    assert virtio.section(output, "fixed").split("\n")[0] == "as it is"
    assert virtio.section(output, "fixed").count("Read-only file system") == 3
    assert os.listdir(fixed) == ["a"]
    assert (fixed / "a").read_text() == "as it is\n"
