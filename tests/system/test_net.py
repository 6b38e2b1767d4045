"""Guests use networks: the host's through user and tap, each other's through a switch."""
import hashlib
import http.server
import os
import random
import re
import selectors
import socket
import subprocess
import threading
import time
import urllib.request

import machine
import net_world
import packet
import virtio

BLOB = random.Random(3).randbytes(4 << 20)


class Server(http.server.ThreadingHTTPServer):
    """On the host's loopback: a blob, and the word whether the guest may go on."""
    daemon_threads = True

    def __init__(self, address="127.0.0.1"):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), Handler)
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
echo "== http6"
wget -q -O - http://[fd4c:6f64:6765::2]:V6/blob | sha256sum
net_probe serve 7777 &
mkdir /www
echo "a page of the guest" >/www/page
httpd -p 80 -h /www
echo "== published"
until wget -q -O - http://10.0.2.2:PORT/end; do sleep 1; done
echo "== end"
"""


def ask_guest(port):
    """What a datagram to a published port is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        for _ in range(60):
            try:
                s.sendto(b"hello", ("127.0.0.1", port))
                return s.recv(100)
            except OSError:
                time.sleep(0.2)
    return None


def fetch_from_guest(port, udp_port, pages, server):
    """Ask at the published ports until the guest answers; then let it end."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=10) as page:
                pages.append(page.read())
                pages.append(ask_guest(udp_port))
                break
        except OSError:
            time.sleep(0.5)
    server.may_end.set()


def test_a_guest_reaches_the_host_and_is_reached_through_user(lodge, cloud_kernel, tmp_path):
    server, server6, port, udp_port, pages = Server(), Server("::1"), free_port(), free_port(), []
    session = USER_SESSION.replace("PORT", str(server.server_port)).replace(
        "V6", str(server6.server_port))
    initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["net"], session,
                               net_world.build_probe(tmp_path))
    client = threading.Thread(target=fetch_from_guest, args=(port, udp_port, pages, server),
                              daemon=True)
    client.start()
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/main", "--network",
                          "user,ip=10.0.2.77,name=guest", "--publish", f"{port}:80", "--publish",
                          f"127.0.0.1:{udp_port}:7777/udp", append="quiet")
    server.shutdown()
    server6.shutdown()
    assert result.status == 0, result.errors
    assert "LEASE 10.0.2.77 router 10.0.2.2 dns 10.0.2.3" in virtio.section(result.output, "dhcp")
    blob = hashlib.sha256(BLOB).hexdigest()
    assert virtio.section(result.output, "http").split()[0] == blob
    assert virtio.section(result.output, "http6").split()[0] == blob
    assert virtio.section(result.output, "ping").count("2 packets received") == 2
    assert pages[0] == b"a page of the guest\n"
    assert pages[1].endswith(b" said hello")
    assert "go on" in virtio.section(result.output, "published")


# The first serves a blob, the others fetch it, and tell the first to end.
SWITCH_SESSION = """
ip link set eth0 up
ip addr add 192.168.5.NUMBER/24 dev eth0
if [ NUMBER = 1 ]; then
    mkdir /www
    head -c 2000000 /dev/urandom >/www/blob
    echo "== served"
    sha256sum </www/blob
    httpd -p 80 -h /www
    mkfifo /tmp/hold
    exec 9<>/tmp/hold # without an end: at one, nc would say goodbye before the other has spoken
    nc -l -p 99 <&9
    nc -l -p 98 <&9
else
    until wget -q -O /tmp/blob http://192.168.5.1/blob; do sleep 1; done
    echo "== fetched"
    sha256sum </tmp/blob
    port=$((101 - NUMBER))
    until echo "all of it to NUMBER" | nc 192.168.5.1 $port; do sleep 1; done
fi
echo "== end"
"""


class Garbage(threading.Thread):
    """A peer of the switch that says nonsense until it is stopped, from a fixed seed."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.stopped = path, threading.Event()

    def run(self):
        source = random.Random(5)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(self.path)
            s.setblocking(False)
            while not self.stopped.wait(0.01):
                size = source.choice([1, 13, 14, 60, 1514, 9000, 65600, 100000])
                to = source.choice([b"", b"\xff" * 6, b"\x33\x33\0\0\0\1"])
                try:
                    s.send(to + source.randbytes(size))
                    s.recv(1 << 17)
                except OSError:
                    pass  # its queue is full, or nothing came


def serve_switch(lodge, path):
    switch = subprocess.Popen([lodge, "net", "switch", path])
    while not os.path.exists(path):
        assert switch.poll() is None
        time.sleep(0.05)
    return switch


def boot_together(lodge, kernel, tmp_path, numbers, session, *arguments):
    """The guests' results by number, when all have ended."""
    results = {}

    def run_guest(number):
        folder = tmp_path / f"guest{number}"
        folder.mkdir()
        initrd = virtio.make_guest(str(folder), kernel, ["net"],
                                   session.replace("NUMBER", str(number)))
        results[number] = machine.boot(lodge, kernel, initrd, "/session/main", *arguments,
                                       append="quiet")

    guests = [threading.Thread(target=run_guest, args=(n,)) for n in numbers]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.join()
    return results


def test_three_guests_talk_through_a_switch_in_which_somebody_talks_nonsense(lodge, cloud_kernel,
                                                                             tmp_path):
    path = str(tmp_path / "switch")
    switch = serve_switch(lodge, path)
    garbage = Garbage(path)
    garbage.start()
    try:
        results = boot_together(lodge, cloud_kernel, tmp_path, (1, 2, 3), SWITCH_SESSION,
                                "--network", f"switch:{path},queues=2", "--cpus", "2")
    finally:
        garbage.stopped.set()
        switch.terminate()
    assert switch.wait(10) == 0
    assert not os.path.exists(path)
    for number in (2, 3):
        assert f"all of it to {number}" in results[1].output
        assert virtio.section(results[number].output, "fetched").split()[0] == \
            virtio.section(results[1].output, "served").split()[0]


class Judge(threading.Thread):
    """A switch with two ports that looks at every frame which passes."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen()
        self.segments, self.wrong = 0, []

    def run(self):
        ports = [self.listener.accept()[0] for _ in range(2)]
        with selectors.DefaultSelector() as selector:
            for port, other in (ports, reversed(ports)):
                selector.register(port, selectors.EVENT_READ, other)
            while len(selector.get_map()) == 2:
                for key, _ in selector.select():
                    frame = key.fileobj.recv(1 << 17)
                    if not frame:
                        selector.unregister(key.fileobj)
                        continue
                    self.look_at(frame)
                    try:
                        key.data.send(frame)
                    except OSError:
                        pass

    def look_at(self, frame):
        if frame[12:14] == b"\x08\0" and frame[23] == 6:
            self.segments += 1
            if len(frame) > 1514 or not packet.checksums_are_right(frame):
                self.wrong.append(frame)


def test_what_a_guest_leaves_to_the_card_is_done_before_the_switch(lodge, cloud_kernel, tmp_path):
    judge = Judge(str(tmp_path / "judge"))
    judge.start()
    results = boot_together(lodge, cloud_kernel, tmp_path, (1, 2),
                            SWITCH_SESSION.replace("nc -l -p 98 <&9", ""), "--network",
                            f"switch:{tmp_path}/judge")
    assert "all of it to 2" in results[1].output
    assert judge.segments > 2000000 / 1460
    assert judge.wrong == []


MANY_SESSION = """
ip link set eth0 up
udhcpc -i eth0 -s /bin/dhcp-script -n -q -f -t 10 >/dev/null 2>&1
echo "== blobs"
for i in 1 2 3 4 5 6 7 8; do
    wget -q -O - http://10.0.2.2:PORT/blob | sha256sum &
done
wait
echo "== interrupts"
grep virtio /proc/interrupts
echo "== end"
"""


def test_two_cpus_load_all_queues_of_a_card(lodge, cloud_kernel, tmp_path):
    server = Server()
    initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["net"],
                               MANY_SESSION.replace("PORT", str(server.server_port)))
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/main", "--network",
                          "user,queues=2", "--cpus", "2", append="quiet")
    server.shutdown()
    assert virtio.section(result.output, "blobs").split("\n") == \
        [hashlib.sha256(BLOB).hexdigest() + "  -"] * 8
    for queue in "input.0", "input.1", "output.0", "output.1":
        line, = [line for line in virtio.section(result.output, "interrupts").split("\n")
                 if line.endswith(queue)]
        if queue.startswith("input"):
            assert sum(map(int, line.split()[1:3])) > 0, line


# What the devices count, and how long it took in hundredths of a second.
RATE_SESSION = """
ip link set eth0 up
udhcpc -i eth0 -s /bin/dhcp-script -n -q -f -t 10 >/dev/null 2>&1
# 098, in the first second, would be no number.
now() { hundredths=$(cut -d' ' -f1 /proc/uptime | tr -d .); echo ${hundredths#0}; }
count() {
    set -- $1 $(cat /sys/block/vda/stat) $(cat /sys/class/net/eth0/statistics/[rt]x_bytes)
    case $1 in
    requests) echo $2 ;;
    bytes) echo $(($4 * 512)) ;;
    receive) shift $(($# - 2)); echo $1 ;;
    send) shift $(($# - 1)); echo $1 ;;
    esac
}
took() {
    name=$1; shift
    before=$(count $name)
    from=$(now)
    "$@"
    to=$(now)
    echo "TOOK $name $(($(count $name) - before)) $((to - from))"
}
echo "== times"
took bytes dd if=/dev/vda of=/dev/null bs=256k count=32 iflag=direct 2>/dev/null
took requests dd if=/dev/vda of=/dev/null bs=4k count=400 iflag=direct 2>/dev/null
took receive wget -q -O /dev/null http://10.0.2.2:PORT/blob
took send sh -c "head -c 4194304 /dev/zero | nc 10.0.2.2 SINK"
echo "== end"
"""

# What was counted at the least, the limit, and the largest piece, which may leave a debt.
LIMITS = {"bytes": (8 << 20, 4 << 20, 256 << 10), "requests": (400, 200, 1),
          "receive": (4 << 20, 2 << 20, 1 << 16), "send": (4 << 20, 2 << 20, 1 << 16)}


def test_limits_of_disks_and_networks_hold_in_the_guest(lodge, cloud_kernel, tmp_path):
    server, disk = Server(), tmp_path / "disk"
    disk.write_bytes(bytes(8 << 20))
    sink = socket.create_server(("127.0.0.1", 0))

    def take():
        connection = sink.accept()[0]
        while connection.recv(1 << 16):
            pass
        connection.close()

    threading.Thread(target=take, daemon=True).start()
    session = RATE_SESSION.replace("PORT", str(server.server_port)).replace(
        "SINK", str(sink.getsockname()[1]))
    initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["blk", "net"], session)
    result = machine.boot(lodge, cloud_kernel, initrd, "/session/main", "--disk",
                          f"{disk},format=raw", "--disk-rate", "4M", "--disk-iops", "200",
                          "--network", "user", "--net-rate", "2M", append="quiet")
    server.shutdown()
    sink.close()
    found = re.findall(r"TOOK (\w+) (\d+) (\d+)", virtio.section(result.output, "times"))
    assert [name for name, _, _ in found] == list(LIMITS), (result.output[-2000:], result.errors)
    for name, counted, hundredths in found:
        least, limit, piece = LIMITS[name]
        assert int(counted) >= least, found
        # A tenth of a second's worth is there at once. Other work of the machine only adds time;
        # what the guest has counted and not yet seen is no more than a piece.
        assert int(hundredths) / 100 + 0.02 >= (least - piece) / limit - 0.1, found


def test_a_network_that_cannot_be_is_one_line_and_an_error(lodge, cloud_kernel, tmp_path):
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        for arguments, status, words in [
                (["--network", "moon"], 1, "no network 'moon'"),
                (["--network", "user,colour=red"], 1, "does not know 'colour'"),
                (["--network", f"switch:{tmp_path}/none"], 1, "cannot reach a switch"),
                (["--network", "user,mac=01:00:00:00:00:00"], 1, "no address of a network card"),
                (["--publish", "99999:80"], 1, "is no port"),
                (["--publish", "80"], 1, "is not like 8080:80"),
                (["--publish", "80-81:80"], 1, "not equally long"),
                (["--network", "user,ip=10.9.9.9"], 1, "no address for a guest"),
                (["--network", "user,mtu=100"], 1, "no number from 1280"),
                (["--publish", f"{port}:80"], 1, "cannot listen at 127.0.0.1")]:
            result = machine.run(lodge, "--kernel", cloud_kernel, *arguments, timeout=60)
            assert (result.status in (status, 2)) and words in result.errors
            assert result.errors.count("\n") == 1
