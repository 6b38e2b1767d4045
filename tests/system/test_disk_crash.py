"""What is left when the server of a disk is killed, or the host's disk is full."""
import hashlib
import os
import random
import re
import signal
import struct
import subprocess
import threading
import time

import pytest

from system import machine, virtio
from system.disk import clean, ok, run
from system.nbd_client import Client, Gone

RECORD = 4096


def record(number, place):
    """A record that tells its number, its place, and whether it is whole."""
    return struct.pack("<QQ", number, place) * (RECORD // 16)


def write_until_killed(socket, seed, acknowledged):
    """Durable records at random places; notes each once it is acknowledged."""
    source, client, number = random.Random(seed), Client(socket), 0
    try:
        while True:
            number += 1
            place = source.randrange(client.size // RECORD)
            acknowledged.setdefault(place, []).append((number, False))
            assert client.write(place * RECORD, record(number, place)) == 0
            acknowledged[place][-1] = (number, True)
    except Gone:
        return


def serve(lodge, image, fmt, socket):
    server = subprocess.Popen([lodge, "disk", "serve", image, "-f", fmt, "--unix", socket,
                               "--writable"])
    while not socket.exists():
        assert server.poll() is None
        time.sleep(0.01)
    return server


def check_records(path, acknowledged):
    with open(path, "rb") as disk:
        for place, records in acknowledged.items():
            disk.seek(place * RECORD)
            data = disk.read(RECORD)
            number = struct.unpack_from("<Q", data)[0]
            sure = max((n for n, done in records if done), default=0)
            assert number >= sure, f"record {sure} at {place} is lost: {number} is there"
            assert data == (record(number, place) if number else bytes(RECORD))


def kill_once(lodge, folder, image, fmt, seed, acknowledged):
    socket = folder / f"socket{seed}"
    server = serve(lodge, image, fmt, socket)
    writer = threading.Thread(target=write_until_killed, args=(socket, seed, acknowledged))
    writer.start()
    time.sleep(random.Random(seed).uniform(0.02, 0.25))
    server.send_signal(signal.SIGKILL)
    server.wait()
    writer.join(timeout=60)
    assert not writer.is_alive()


def check_after_kill(lodge, folder, image, fmt, acknowledged):
    if fmt == "qcow2":
        ok(lodge, "disk", "check", "--repair", image)
        clean(lodge, image)
    ok("qemu-img", "convert", "-f", fmt, "-O", "raw", image, folder / "flat")
    check_records(folder / "flat", acknowledged)


@pytest.mark.parametrize("fmt, options", [("raw", []), ("qcow2", []),
                                          ("qcow2", ["--cluster-size", "4K"]),
                                          ("qcow2", ["--lazy-refcounts", "--extended-l2"])])
def test_a_killed_server_loses_nothing_that_was_acknowledged(lodge, tmp_path, fmt, options):
    image, acknowledged = tmp_path / "image", {}
    ok(lodge, "disk", "create", image, "24M", "-f", fmt, *options)
    for seed in range(4):
        kill_once(lodge, tmp_path, image, fmt, seed, acknowledged)
        # Numbers begin anew: what was there is the past.
        check_after_kill(lodge, tmp_path, image, fmt, acknowledged)
        ok(lodge, "disk", "create", image, "24M", "-f", fmt, "--force", *options)
        acknowledged.clear()


@pytest.mark.long
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_fifty_kills_lose_nothing_that_was_acknowledged(lodge, tmp_path, fmt):
    image = tmp_path / "image"
    for seed in range(100, 150):
        acknowledged = {}
        ok(lodge, "disk", "create", image, "24M", "-f", fmt, "--force")
        kill_once(lodge, tmp_path, image, fmt, seed, acknowledged)
        check_after_kill(lodge, tmp_path, image, fmt, acknowledged)


FULL_DISK = """
import sys
sys.path.insert(0, {tests!r})
from system.nbd_client import Client
client, written = Client({socket!r}), []
for place in range(client.size // 65536):
    error = client.write(place * 65536, bytes([place % 251 + 1]) * 4096)
    if error:
        break
    written.append(place)
assert error in (28, 5), error
assert len(written) > 10, written
for place in written:
    assert client.read(place * 65536, 4096) == bytes([place % 251 + 1]) * 4096, place
"""


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_full_host_disk_is_an_error_and_loses_nothing_acknowledged(lodge, tmp_path, fmt):
    small, script, socket = tmp_path / "small", tmp_path / "client.py", tmp_path / "socket"
    small.mkdir()
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script.write_text(FULL_DISK.format(tests=tests, socket=str(socket)))
    check = f"{lodge} disk check {small}/image" if fmt == "qcow2" else "true"
    result = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", f"""
        mount -t tmpfs -o size=3M none {small}
        {lodge} disk create -f {fmt} {small}/image 256M
        {lodge} disk serve -f {fmt} {small}/image --writable --unix {socket} \\
            --run 'python3 {script}'
        {check}""")
    if "unshare" in result.stderr:
        pytest.skip("this host forbids user namespaces")
    assert result.returncode == 0, result.stdout + result.stderr


# Blocks are written durably until that fails; then the guest reads all of them again.
FULL_SESSION = """
block() { dd bs=64k count=1 "$@" 2>/dev/null; }
i=0
while [ $i -lt 256 ]; do
    block if=/dev/urandom of=/tmp/$i
    block if=/tmp/$i of=/dev/vda seek=$i oflag=direct conv=fsync || break
    echo "WROTE $i $(sha256sum </tmp/$i)"
    i=$((i + 1))
done
echo "== full after $i"
j=0
while [ $j -lt $i ]; do
    block if=/dev/vda skip=$j iflag=direct | cmp - /tmp/$j && echo "READ $j"
    j=$((j + 1))
done
echo "== end"
"""


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_guest_is_told_of_a_full_host_disk_and_goes_on(lodge, cloud_kernel, tmp_path, fmt):
    small = tmp_path / "small"
    small.mkdir()
    initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["blk"], FULL_SESSION)
    result = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", f"""
        mount -t tmpfs -o size=3M none {small}
        {lodge} disk create -f {fmt} {small}/image 256M
        {lodge} run --kernel {cloud_kernel} --initrd {initrd} --disk {small}/image,format={fmt} \\
            --append '{machine.APPEND} quiet session=/session/main'
        qemu-img convert -f {fmt} -O raw {small}/image {tmp_path}/plain
        test {fmt} = raw || {lodge} disk check {small}/image""")
    if "unshare" in result.stderr:
        pytest.skip("this host forbids user namespaces")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No space left on device" in result.stderr
    output = result.stdout.replace("\r", "")
    count = int(re.search(r"^== full after (\d+)$", output, re.M).group(1))
    written = re.findall(r"^WROTE (\d+) (\w+)  -$", output, re.M)
    assert 10 < count < 64 and len(written) == count
    assert output.count("READ ") == count
    with open(tmp_path / "plain", "rb") as plain:
        for _, digest in written:
            assert hashlib.sha256(plain.read(64 << 10)).hexdigest() == digest
