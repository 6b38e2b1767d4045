"""lodge disk serve and nbd:// disks, with nbdinfo, nbdcopy, qemu-img and qemu-nbd as the others."""
import json
import os
import random
import signal
import socket as sockets
import struct
import subprocess
import threading
import time

import pytest

from system.disk import clean, facts, make_content, ok, refused, run, same

SIZE = 12 << 20


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("content") / "raw", SIZE)


@pytest.fixture
def image(content, tmp_path):
    ok("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, tmp_path / "image")
    return tmp_path / "image"


def served(lodge, image, socket, command, *arguments):
    """What a command prints that runs while the image is served."""
    result = run(lodge, "disk", "serve", image, "--unix", socket, *arguments, "--run", command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("io", ["uring", "threads"])
def test_nbdinfo_and_nbdcopy_see_the_disk(lodge, content, image, tmp_path, io):
    socket, raw = tmp_path / "socket", tmp_path / "copy"
    url = f"nbd+unix:///?socket={socket}"
    served(lodge, image, socket, f"nbdinfo --json '{url}' > {tmp_path}/info && "
           f"nbdinfo --map --json '{url}' > {tmp_path}/map && nbdcopy '{url}' {raw}", "--io", io)
    info = json.loads((tmp_path / "info").read_text(errors="replace"))
    export = info["exports"][0]
    assert info["structured"] and export["export-size"] == SIZE and export["is_read_only"]
    assert export["can_multi_conn"] and "base:allocation" in export["contexts"]
    extents = json.loads((tmp_path / "map").read_text())
    assert sum(e["length"] for e in extents) == SIZE and any(e["type"] == 3 for e in extents)
    ok("cmp", content, raw)


def test_qemu_img_reads_and_writes_through_the_server(lodge, content, image, tmp_path):
    socket, other = tmp_path / "socket", make_content(tmp_path / "other", SIZE, seed=2)
    url = f"nbd+unix:///disk?socket={socket}"
    served(lodge, image, socket, f"qemu-img compare -f raw -F raw {content} '{url}' && "
           f"qemu-img convert -n -f raw -O raw {other} '{url}' && "
           f"nbdcopy --flush {other} '{url}'", "--writable", "--name", "disk")
    clean(lodge, image)
    same(other, image)


def test_a_read_only_export_refuses_writes(lodge, image, tmp_path):
    socket = tmp_path / "socket"
    result = run(lodge, "disk", "serve", image, "--unix", socket, "--run",
                 f"qemu-io -f raw -c 'write 0 512' nbd+unix:///?socket={socket}")
    assert result.returncode == 1
    assert not socket.exists()


def test_lodge_is_a_client_of_its_own_and_of_qemus_server(lodge, content, image, tmp_path):
    socket, raw = tmp_path / "socket", tmp_path / "copy"
    url = f"nbd+unix:///?socket={socket}"
    served(lodge, image, socket, f"{lodge} disk convert '{url}' -f raw {raw} -O raw && "
           f"{lodge} disk compare '{url}' -f raw {content} -F raw")
    ok("cmp", content, raw)
    target = tmp_path / "target"
    ok("qemu-img", "create", "-q", "-f", "qcow2", target, SIZE)
    pid = tmp_path / "pid"
    ok("qemu-nbd", "--fork", "--pid-file", pid, "-f", "qcow2", "-k", socket, "--persistent", target)
    try:
        ok(lodge, "disk", "convert", "-f", "raw", content, url, "-O", "raw", "--existing",
           "--flush")
        ok(lodge, "disk", "compare", content, url, "-f", "raw")
        assert any(e["zero"] for e in facts(lodge, "disk", "map", url, "-f", "raw"))
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)
    assert "connect" in refused(lodge, "disk", "info", f"nbd+unix:///?socket={tmp_path}/none")


def test_an_export_can_be_a_backing_file(lodge, content, image, tmp_path):
    socket, top = tmp_path / "socket", tmp_path / "top"
    url = f"nbd+unix:///?socket={socket}"
    served(lodge, image, socket, f"{lodge} disk create {top} --backing '{url}' "
           f"--backing-format raw && {lodge} disk compare {top} -f qcow2 {content} -F raw")


def test_a_tcp_server_is_on_the_loopback_and_ends_by_a_signal(lodge, content, image):
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([lodge, "disk", "serve", image, "--tcp", f"127.0.0.1:{port}"])
    try:
        for _ in range(100):
            if run("nbdinfo", "--size", f"nbd://127.0.0.1:{port}").returncode == 0:
                break
            server.poll()
            assert server.returncode is None
        ok(lodge, "disk", "compare", f"nbd://127.0.0.1:{port}", "-f", "raw", content, "-F", "raw")
    finally:
        server.terminate()
    assert server.wait(timeout=30) == 0


def test_garbage_from_a_client_harms_only_that_client(lodge, content, image, tmp_path):
    path = tmp_path / "socket"
    script = tmp_path / "client.py"
    script.write_text(f"""
import socket, struct, random
source = random.Random(5)
for i in range(60):
    s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); s.settimeout(20)
    s.recv(18); s.send(struct.pack('>I', 3))
    if i % 3 == 0:
        s.send(source.randbytes(200))
    elif i % 3 == 1:
        s.send(struct.pack('>QII', 0x49484156454F5054, source.randrange(12), 0xffffffff))
    else:
        s.send(struct.pack('>QIIIH', 0x49484156454F5054, 7, 6, 0, 0))
        s.recv(1000)
        s.send(struct.pack('>IHHQQI', 0x25609513, source.randrange(65536), source.randrange(9), 1,
                           source.choice([0, 2**64 - 1, {SIZE}]),
                           source.choice([0, 2**32 - 1, 4096])))
    try:
        s.shutdown(socket.SHUT_WR)
        while s.recv(65536):
            pass
    except ConnectionError:
        pass
""")
    served(lodge, image, path, f"python3 {script} && qemu-img compare -f raw -F raw {content} "
           f"nbd+unix:///?socket={path}")


class HastyServer(threading.Thread):
    """Replies to a write as soon as it has its header, and takes the data later."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = sockets.socket(sockets.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.taken = 0

    def run(self):
        peer, _ = self.listener.accept()
        with peer, peer.makefile("rb") as stream:
            peer.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 1))
            stream.read(4)
            while True:  # options
                _, option, length = struct.unpack(">QII", stream.read(16))
                stream.read(length)
                reply = struct.pack(">QI", 0x3E889045565A9, option)
                if option == 7:  # GO
                    info = struct.pack(">HQH", 0, SIZE, 1)
                    peer.sendall(reply + struct.pack(">II", 3, len(info)) + info + reply
                                 + struct.pack(">II", 1, 0))
                    break
                peer.sendall(reply + struct.pack(">II", 0x80000001, 0))
            while True:  # requests
                _, _, command, cookie, _, length = struct.unpack(">IHHQQI", stream.read(28))
                if command == 2:  # goodbye
                    return
                peer.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie))
                if command == 1:
                    time.sleep(0.02)
                    self.taken += len(stream.read(length))


@pytest.mark.parametrize("io", ["uring", "threads"])
def test_a_reply_that_comes_too_early_does_no_harm(lodge, tmp_path, io):
    content = tmp_path / "content"
    content.write_bytes(random.Random(1).randbytes(SIZE))
    server = HastyServer(tmp_path / "socket")
    server.start()
    ok(lodge, "disk", "convert", "--io", io, "-n", "-f", "raw", "-O", "raw", content,
       f"nbd+unix:///?socket={tmp_path}/socket")
    server.join(30)
    assert server.taken == SIZE
