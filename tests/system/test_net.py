"""Guests use networks: the host's through user and tap, each other's through a switch."""
import hashlib
import http.server
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

import machine
import virtio

BLOB = random.Random(3).randbytes(4 << 20)


class Server(http.server.ThreadingHTTPServer):
    """On the host's loopback: a blob, and the word whether the guest may go on."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.may_end = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path == "/blob" or self.server.may_end.is_set()
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(BLOB if self.path == "/blob" else b"go on\n")

    def log_message(self, *arguments):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


USER_SESSION = """
ip link set lo up
ip link set eth0 up
echo "== dhcp"
udhcpc -i eth0 -s /bin/dhcp-script -n -q -f -t 10 2>/dev/null
echo "== http"
wget -q -O - http://10.0.2.2:PORT/blob | sha256sum
echo "== ping"
ping -c 2 -W 5 10.0.2.2 | grep received
for i in 1 2 3 4 5 6 7 8 9 10; do
    ip -6 addr show dev eth0 scope global | grep -q fd4c && break
    sleep 1
done
ping6 -c 2 -W 5 fd4c:6f64:6765::2 | grep received
mkdir /www
echo "a page of the guest" >/www/page
httpd -p 80 -h /www
echo "== published"
until wget -q -O - http://10.0.2.2:PORT/end; do sleep 1; done
echo "== end"
"""


def fetch_from_guest(port, pages, server):
    """Ask at the published port until the guest answers; then let it end."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=10) as page:
                pages.append(page.read())
                break
        except OSError:
            time.sleep(0.5)
    server.may_end.set()


def test_a_guest_reaches_the_host_and_is_reached_through_user(lodge, cloud_kernel, tmp_path):
    server, port, pages = Server(), free_port(), []
    session = USER_SESSION.replace("PORT", str(server.server_port))
    initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["net"], session)
    client = threading.Thread(target=fetch_from_guest, args=(port, pages, server), daemon=True)
    client.start()
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/main",
                          "--publish", f"{port}:80", append="quiet")
    server.shutdown()
    assert result.status == 0, result.errors
    assert "LEASE 10.0.2.15 router 10.0.2.2 dns 10.0.2.3" in virtio.section(result.output, "dhcp")
    assert virtio.section(result.output, "http").split()[0] == hashlib.sha256(BLOB).hexdigest()
    assert virtio.section(result.output, "ping").count("2 packets received") == 2
    assert pages == [b"a page of the guest\n"]
    assert "go on" in virtio.section(result.output, "published")


# The first serves a blob, the second fetches it, and tells the first to end.
SWITCH_SESSION = """
ip link set eth0 up
ip addr add 192.168.5.NUMBER/24 dev eth0
if [ NUMBER = 1 ]; then
    mkdir /www
    head -c 2000000 /dev/urandom >/www/blob
    echo "== served"
    sha256sum </www/blob
    httpd -p 80 -h /www
    nc -l -p 99
else
    until wget -q -O /tmp/blob http://192.168.5.1/blob; do sleep 1; done
    echo "== fetched"
    sha256sum </tmp/blob
    echo "all of it" | nc 192.168.5.1 99
fi
echo "== end"
"""


def test_two_guests_talk_through_a_switch(lodge, cloud_kernel, tmp_path):
    path = str(tmp_path / "switch")
    switch = subprocess.Popen([lodge, "net", "switch", path])
    results = {}

    def run_guest(number):
        folder = tmp_path / f"guest{number}"
        folder.mkdir()
        initrd = virtio.make_guest(str(folder), cloud_kernel, ["net"],
                                   SWITCH_SESSION.replace("NUMBER", str(number)))
        results[number] = machine.boot(lodge, cloud_kernel, initrd, "/session/main", "--network",
                                       f"switch:{path},queues=2", "--cpus", "2", append="quiet")

    try:
        while not os.path.exists(path):
            assert switch.poll() is None
            time.sleep(0.05)
        guests = [threading.Thread(target=run_guest, args=(n,)) for n in (1, 2)]
        for guest in guests:
            guest.start()
        for guest in guests:
            guest.join()
    finally:
        switch.terminate()
    assert switch.wait(10) == 0
    assert not os.path.exists(path)
    assert "all of it" in results[1].output
    assert virtio.section(results[2].output, "fetched") in virtio.section(results[1].output,
                                                                          "served")


TAP_SESSION = """
ip link set eth0 up
echo "== dhcp"
udhcpc -i eth0 -s /bin/dhcp-script -n -q -f -t 10 2>/dev/null
echo "== ping"
router=$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')
ping -c 2 -W 5 $router | grep received
echo "== http"
wget -q -O - http://10.99.99.1:PORT/blob | sha256sum
echo "== end"
"""

can_make_taps = (os.geteuid() == 0 and os.path.exists("/dev/net/tun") and
                 shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin"))


@pytest.fixture
def far_host():
    """A host behind another, which knows no way back to guests: only through NAT."""
    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True)

    ip("netns", "add", "lodge-far")
    try:
        ip("link", "add", "lodge-veth", "type", "veth", "peer", "name", "far", "netns", "lodge-far")
        ip("addr", "add", "10.99.99.2/24", "dev", "lodge-veth")
        ip("link", "set", "lodge-veth", "up")
        ip("-n", "lodge-far", "addr", "add", "10.99.99.1/24", "dev", "far")
        ip("-n", "lodge-far", "link", "set", "far", "up")
        yield "lodge-far"
    finally:
        ip("netns", "del", "lodge-far")


@pytest.mark.skipif(not can_make_taps, reason="a tap needs root, /dev/net/tun and nft")
def test_a_guest_on_a_tap_goes_through_nat(lodge, cloud_kernel, tmp_path, far_host):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "blob").write_bytes(BLOB)
    server = subprocess.Popen(["ip", "netns", "exec", far_host, "/usr/bin/python3", "-m",
                               "http.server", "8099"], cwd=tmp_path / "www",
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["net"],
                                   TAP_SESSION.replace("PORT", "8099"))
        result = machine.boot(lodge, cloud_kernel, initrd, "/session/main",
                              "--network", "tap:lodgetest0", append="quiet")
    finally:
        server.terminate()
        server.wait()
    assert result.status == 0, result.errors
    assert "LEASE 10.77." in virtio.section(result.output, "dhcp")
    assert "2 packets received" in virtio.section(result.output, "ping")
    assert virtio.section(result.output, "http").split()[0] == hashlib.sha256(BLOB).hexdigest()
    rules = subprocess.run(["nft", "list", "tables"], stdout=subprocess.PIPE, text=True,
                           env=dict(os.environ, PATH="/usr/sbin:/sbin:/usr/bin:/bin")).stdout
    assert "lodgetest0" not in rules


def test_a_network_that_cannot_be_is_one_line_and_an_error(lodge, cloud_kernel, tmp_path):
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        for arguments, status, words in [
                (["--network", "moon"], 1, "no network of kind 'moon'"),
                (["--network", "user,colour=red"], 1, "does not know 'colour'"),
                (["--network", f"switch:{tmp_path}/none"], 1, "cannot reach a switch"),
                (["--network", "user,mac=01:00:00:00:00:00"], 1, "no address of a network card"),
                (["--publish", "99999:80"], 1, "is no port"),
                (["--publish", "80"], 1, "is not like 8080:80"),
                (["--publish", f"{port}:80"], 1, "cannot listen at 127.0.0.1")]:
            result = machine.run(lodge, "--kernel", cloud_kernel, *arguments, timeout=60)
            assert (result.status in (status, 2)) and words in result.errors
            assert result.errors.count("\n") == 1
