"""Guests on networks of the host's kernel: names, addresses, NAT, published ports, and what
stays when processes are killed."""
import hashlib
import json
import os
import random
import subprocess
import time

import pytest

import images
import net_world
import test_guest
from net_world import HOST, INTERNET, INTERNET6, wait_until

pytestmark = pytest.mark.skipif(not net_world.CAN_BE, reason=net_world.WHY_NOT)


@pytest.fixture
def world(lodge, tmp_path):
    world = net_world.World(lodge, tmp_path)
    yield world
    world.end()


# Get an address and a name server; then wait for the IPv6 address.
ONLINE = """
ip link set lo up
ip link set eth0 up
echo "== dhcp"
udhcpc -i eth0 -s /bin/dhcp-script -n -q -f -t 10 2>/dev/null
echo "nameserver $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')" >/etc/resolv.conf
for i in 1 2 3 4 5 6 7 8 9 10; do
    ip -6 addr show dev eth0 scope global | grep fd4c | grep -qv tentative && break
    sleep 1
done
"""

OUTSIDE = f"""
echo "== outside"
wget -q -O - http://{INTERNET}/who
wget -q -O - http://web.example/who
wget -q -O - http://[{INTERNET6}]/who
net_probe ask {INTERNET} 7 hello
wget -q -O - http://{INTERNET}/blob/4194304 | md5sum
"""
BLOB_MD5 = hashlib.md5(bytes(range(256)) * 16384).hexdigest()

SERVER = ONLINE + OUTSIDE + """
net_probe serve 7777 &
mkdir /www
echo "a page of the guest" >/www/page
httpd -p 80 -h /www
echo "== ready"
nc -l -p 99 >/dev/null
echo "== end"
"""

CLIENT = ONLINE + """
echo "== neighbour"
wget -q -O - http://one/page
wget -q -O - http://ONE.lodge/page
nslookup nobody.lodge | grep -q NXDOMAIN && echo unknown
wget -q -O - http://10.99.99.2:8080/page
echo "== ready"
nc -l -p 99 >/dev/null
echo "== end"
"""

FETCH = "import urllib.request as u; print(u.urlopen('http://{}/page', timeout=20).read().decode())"
ASK = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); "
       "s.sendto(b'hello', ('{}', {})); print(s.recv(99).decode())")


def check_outside(guest):
    lines = guest.section("outside").split("\n")
    assert lines == [HOST, HOST, net_world.HOST6, f"{HOST} said hello", f"{BLOB_MD5}  -"]


def leftovers(world):
    """What a guest's network puts on the host: tables of rules and tap devices."""
    links = world.host.run("ip", "-br", "link").stdout.split("\n")
    return (world.host.run("nft", "list", "tables").stdout.count("inet lodge-"),
            sum(line.startswith("lodge") and not line.startswith("lodgebr") for line in links))


def test_guests_of_a_named_network_find_each_other_and_the_world(world, cloud_kernel):
    world.net("create", "apple")
    one = world.start(cloud_kernel, SERVER, "--network", "apple,name=one", "--publish",
                      f"{HOST}:8080:80", "--publish", "8081:80", "--publish",
                      "0.0.0.0:7000:7777/udp")
    one.wait_for("== ready")
    two = world.start(cloud_kernel, CLIENT, "--network",
                      "apple,name=two,ip=10.78.0.77,mac=02:11:22:33:44:55")
    two.wait_for("== ready")
    assert "LEASE 10.78.0.2 router 10.78.0.1 dns 10.78.0.1" in one.section("dhcp")
    assert "LEASE 10.78.0.77 " in two.section("dhcp")
    check_outside(one)
    page = "a page of the guest"
    assert two.section("neighbour").split("\n") == [page, page, "unknown", page]
    # From the internet, and from the host itself.
    assert "a page" in world.python(world.internet, FETCH.format(f"{HOST}:8080"))
    assert f"{INTERNET} said hello" in world.python(world.internet, ASK.format(HOST, 7000))
    assert "a page" in world.python(world.host, FETCH.format("127.0.0.1:8081"))
    assert "said hello" in world.python(world.host, ASK.format("127.0.0.1", 7000))

    facts = json.loads(world.net("inspect", "apple").stdout)[0]
    assert [(g["name"], g["address"]) for g in facts["guests"]] == [("one", "10.78.0.2"),
                                                                   ("two", "10.78.0.77")]
    assert facts["guests"][1]["mac"] == "02:11:22:33:44:55"
    refused = world.net("rm", "apple", check=False)
    assert refused.returncode == 1 and "has a guest: one" in refused.stderr
    taken = world.host.run(world.lodge, "run", "--kernel", cloud_kernel, "--network",
                           "apple,name=two", check=False)
    assert taken.returncode == 1 and "called two already" in taken.stderr
    busy = world.host.run(world.lodge, "run", "--kernel", cloud_kernel, "--network", "apple",
                          "--publish", "8081:80", check=False)
    assert busy.returncode == 1 and "cannot publish 127.0.0.1:8081->80/tcp" in busy.stderr

    # Killed: its place, rules and device are gone; the other goes on.
    one.kill()
    wait_until(lambda: leftovers(world) == (1, 1), 30, "rules or a device stay")
    facts = json.loads(world.net("inspect", "apple").stdout)[0]
    assert [g["name"] for g in facts["guests"]] == ["two"]
    world.python(world.host, "import socket; socket.create_connection(('10.78.0.77', 99)).close()")
    two.wait()
    wait_until(lambda: leftovers(world) == (0, 0), 30, "rules or a device stay")
    world.net("rm", "apple")
    assert "lodgebr" not in world.host.run("ip", "-br", "link").stdout
    assert json.loads(world.net("ls", "--json").stdout) == []


class Containers:
    """Containers on a world's host, of an image with busybox."""

    def __init__(self, world, tmp_path):
        self.world, self.prefix = world, f"t{os.getpid()}-"
        archive = images.docker_archive(tmp_path / "image.tar", [test_guest.busybox()], ["box:1"])
        self("image", "load", "--store", tmp_path / "store", "-i", archive)
        self.options = ["--store", tmp_path / "store", "--network"]

    def __call__(self, *command, check=True):
        return self.world.host.run(self.world.lodge, *command, check=check)

    def run(self, name, network, *command, more=()):
        return self("run", "--name", self.prefix + name, *more, *self.options, network,
                    "box:1", *command)


@pytest.fixture
def containers(world, tmp_path):
    containers = Containers(world, tmp_path)
    yield containers
    containers("rm", "--force", containers.prefix + "web.1", check=False)


def test_containers_and_machines_share_a_named_network(world, cloud_kernel, containers):
    world.net("create", "apple")
    web = containers.prefix + "web.1"
    host = containers.prefix + "web-1"
    containers.run("web.1", "apple", "sh", "-c",
                   "echo 'a page of the guest' >/tmp/page; exec httpd -f -h /tmp",
                   more=["--detach", "--publish", "8081:80"])
    ask = FETCH.format("127.0.0.1:8081")
    wait_until(lambda: "a page" in world.python(world.host, ask, check=False), 30,
               "nothing is served")
    said = containers.run("client", "apple", "sh", "-c", f"""
        wget -q -O - http://{host}/page; wget -q -O - http://{host}.lodge/page
        wget -q -O - http://web.example/who; wget -q -O - http://[{INTERNET6}]/who
        nslookup nobody.lodge | grep -q NXDOMAIN && echo unknown""", more=["--rm"]).stdout
    page = "a page of the guest"
    assert said.split("\n")[:-1] == [page, page, HOST, net_world.HOST6, "unknown"]
    guest = world.start(cloud_kernel, ONLINE + f"""
echo "== web"
wget -q -O - http://{host}/page
echo "== second"
ip link set eth1 up
udhcpc -i eth1 -s /bin/dhcp-script -n -q -f -t 10 2>/dev/null
echo "== end"
""", "--network", "apple,name=machine", "--network", "user")
    guest.wait()
    assert guest.section("web") == page
    assert "LEASE 10.0.2.15 " in guest.section("second")
    rows = containers("ls").stdout.split("\n")
    assert "apple 10.78.0.2 8081:80" in rows[1]
    assert json.loads(containers("inspect", web).stdout)["address"] == "10.78.0.2"
    containers("stop", web)
    wait_until(lambda: leftovers(world) == (0, 0), 30, "rules or a device stay")
    assert json.loads(world.net("inspect", "apple").stdout)[0]["guests"] == []
    containers("rm", web)
    refused = containers("run", *containers.options, "pear", "box:1", "true", check=False)
    assert refused.returncode != 0 and "'pear' is not user, host, none" in refused.stderr
    world.net("rm", "apple")


def test_guests_of_images_find_each_other_whatever_isolates_them(world, cloud_kernel, containers):
    world.net("create", "apple")
    serve = "echo 'a page of {0}' >/tmp/page; exec httpd -f -h /tmp"
    servers = {"container": ("web.1", 8081), "vm": ("vm_1", 8082)}
    try:
        for isolation, (name, port) in servers.items():
            containers.run(name, "apple", "sh", "-c", serve.format(name),
                           more=["--detach", "--publish", f"{port}:80", "--isolation", isolation])
        for name, port in servers.values():
            ask = FETCH.format(f"127.0.0.1:{port}")
            wait_until(lambda a=ask: "a page" in world.python(world.host, a, check=False), 60,
                       "nothing is served")
        hosts = [containers.prefix + name.replace(".", "-").replace("_", "-")
                 for name, _ in servers.values()]
        for isolation in servers:
            said = containers.run(f"client-{isolation}", "apple", "sh", "-c", f"""
                for i in {hosts[0]} {hosts[1]}.lodge; do wget -q -O - http://$i/page; done
                wget -q -O - http://web.example/who
                nslookup nobody.lodge | grep -q NXDOMAIN && echo unknown""",
                                  more=["--rm", "--isolation", isolation]).stdout
            assert said.split("\n")[:-1] == ["a page of web.1", "a page of vm_1", HOST, "unknown"]
        vm = containers.prefix + "vm_1"
        assert json.loads(containers("inspect", vm).stdout)["address"] == "10.78.0.3"
        guests = json.loads(world.net("inspect", "apple").stdout)[0]["guests"]
        assert [guest["name"] for guest in guests] == hosts
    finally:
        containers("rm", "--force", containers.prefix + "vm_1", check=False)
    containers("rm", "--force", containers.prefix + "web.1")
    wait_until(lambda: leftovers(world) == (0, 0), 30, "rules or a device stay")
    world.net("rm", "apple")


# Run in the internet: look at all that passes for a while, and say what is wrong with it.
JUDGE = """
import socket, sys, time
sys.path.insert(0, {here!r})
import packet
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("far", 0))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
s.settimeout(60)
print("looking", flush=True)
seen = wrong = 0
while seen < 1000:
    frame, where = s.recvfrom(1 << 17)
    if where[2] == 4 or frame[12:14] != b"\\x08\\0" or frame[23] != 6:
        continue  # what this side sends
    seen += 1
    wrong += len(frame) > 1514 or not packet.checksums_are_right(frame)
print(seen, wrong)
"""


# Run on the host: much of nothing for a guest.
FEED = """
import socket
with socket.create_connection(("10.77.0.2", 98), timeout=120) as s:
    s.sendall(bytes(8000000))
"""


def passed(world, device, way):
    """What has passed a device of the host: bytes and packets."""
    text = world.host.run("ip", "-s", "-j", "link", "show", device).stdout
    counts = json.loads(text)[0]["stats64"][way]
    return counts["bytes"], counts["packets"]


def mean_size(before, after):
    return (after[0] - before[0]) / (after[1] - before[1])


def test_large_segments_and_checksums_are_left_to_the_host_and_are_right(world, cloud_kernel):
    """No checksum and no segment is made in the guest; on a wire that makes none they are whole."""
    world.host.run("/usr/bin/python3", "-c", net_world.NO_OFFLOAD, "wan")
    judge = subprocess.Popen(world.internet.command(
        "/usr/bin/python3", "-c", JUDGE.format(here=net_world.HERE)), stdout=subprocess.PIPE)
    assert judge.stdout.readline() == b"looking\n"
    guest = world.start(cloud_kernel, ONLINE + f"""
echo "== blob"
head -c 4000000 /dev/zero | nc {INTERNET} 9
wget -q -O - http://{INTERNET}/blob/4194304 | md5sum
mkdir /www
head -c 8000000 /dev/zero | tr '\\0' x >/www/page
httpd -p 80 -h /www
nc -l -p 98 >/dev/null &
echo "== ready"
wait
echo "== fed"
nc -l -p 99 >/dev/null
""", "--network", "tap:lodgetest0")
    guest.wait_for("== ready")
    assert guest.section("blob") == f"{BLOB_MD5}  -"
    # The host sends in segments of two frames at least, however slowly the guest takes them.
    before = passed(world, "lodgetest0", "tx")
    world.python(world.host, FEED)
    guest.wait_for("== fed")
    assert mean_size(before, passed(world, "lodgetest0", "tx")) > 1600
    before = passed(world, "lodgetest0", "rx")
    for _ in range(8):
        world.python(world.host, FETCH.format("10.77.0.2"))
    assert mean_size(before, passed(world, "lodgetest0", "rx")) > 1600
    assert judge.communicate(timeout=60)[0] == b"1000 0\n"
    guest.kill()


def test_a_private_tap_goes_out_and_is_reached_by_published_ports(world, cloud_kernel):
    guest = world.start(cloud_kernel, SERVER, "--network", "tap:lodgetest0", "--publish", "8081:80",
                        "--publish", f"{HOST}:7000-7001:7776-7777/udp")
    guest.wait_for("== ready")
    assert "LEASE 10.77.0.2 router 10.77.0.1" in guest.section("dhcp")
    check_outside(guest)
    assert "a page" in world.python(world.host, FETCH.format("127.0.0.1:8081"))
    assert f"{INTERNET} said hello" in world.python(world.internet, ASK.format(HOST, 7001))
    world.python(world.host, "import socket; socket.create_connection(('10.77.0.2', 99)).close()")
    guest.wait()
    wait_until(lambda: leftovers(world) == (0, 0), 30, "rules or a device stay")


@pytest.mark.parametrize("rounds", [9, pytest.param(60, marks=pytest.mark.long)])
def test_whatever_moment_they_are_killed_at_nothing_stays(world, cloud_kernel, containers, rounds):
    """Machines and containers that are killed while they start, at moments of a fixed seed."""
    world.net("create", "apple")
    moments, name = random.Random(4), containers.prefix + "web.1"
    machine = ["run", "--kernel", cloud_kernel, "--network", "apple", "--publish", "8081:80"]
    container = ["run", "--name", name, "--publish", "8081:80", *containers.options, "apple",
                 "box:1", "sleep", "99"]
    for i in range(rounds):
        command = world.host.command(world.lodge, *(container if i % 3 == 2 else machine))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL,
                                   env=dict(os.environ, PATH=net_world.PATH))
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.wait()
        if i % 3 == 2:  # a container goes on alone
            containers("rm", "--force", name, check=False)
        wait_until(lambda: leftovers(world) == (0, 0), 30, f"rules or a device stay, round {i}")
    assert json.loads(world.net("inspect", "apple").stdout)[0]["guests"] == []
    world.net("rm", "apple")
    assert world.host.run("find", "/run/lodge", "-type", "f").stdout == ""
    assert world.host.run("find", "/var/lib/lodge/networks", "-type", "f").stdout == ""


BRIDGED = """
ip link set eth0 up
ip addr add 192.168.9.NUMBER/24 dev eth0
echo "== others"
ping -c 1 -W 5 192.168.9.1 | grep -c " 1 packets received"
if [ NUMBER = 3 ]; then
    until ping -c 1 -W 1 192.168.9.2 >/dev/null; do sleep 1; done
    net_probe ask 192.168.9.2 7777 hello
    net_probe ask 192.168.9.2 7778 end
else
    net_probe serve 7777 &
    net_probe serve 7778 &
    until grep -q 192.168.9.3 /proc/net/arp; do sleep 1; done
    sleep 4
fi
echo "== end"
"""


@pytest.mark.long
def test_guests_in_a_bridge_of_the_host_are_ports_of_it(world, cloud_kernel):
    world.host.run("ip", "link", "add", "br-test", "type", "bridge")
    world.host.run("ip", "addr", "add", "192.168.9.1/24", "dev", "br-test")
    world.host.run("ip", "link", "set", "br-test", "up")
    refused = world.host.run(world.lodge, "run", "--kernel", cloud_kernel, "--network",
                             "tap,bridge=br-test", "--publish", "8080:80", check=False)
    assert refused.returncode != 0 and "not published on a bridge" in refused.stderr
    guests = [world.start(cloud_kernel, BRIDGED.replace("NUMBER", str(n)), "--network",
                          "tap,bridge=br-test") for n in (2, 3)]
    for guest in guests:
        guest.wait()
        assert guest.section("others").startswith("1")
    assert "192.168.9.3 said hello" in guests[1].section("others")
    assert "br-test" in world.host.run("ip", "-br", "link").stdout
    assert leftovers(world) == (0, 0)


@pytest.mark.long
def test_an_internal_network_has_no_way_out(world, cloud_kernel):
    world.net("create", "inner", "--internal", "--subnet", "10.5.0.0/28")
    guest = world.start(cloud_kernel, ONLINE + f"""
echo "== inside"
ping -c 1 -W 5 10.5.0.1 | grep -c " 1 packets received"
ping -c 1 -W 2 {INTERNET} | grep -c " 0 packets received"
ping6 -c 1 -W 2 {INTERNET6} | grep -c " 0 packets received"
echo "== end"
""", "--network", "inner")
    guest.wait()
    assert "LEASE 10.5.0.2 " in guest.section("dhcp")
    assert guest.section("inside").split() == ["1", "1", "1"]
    refused = world.host.run(world.lodge, "run", "--kernel", cloud_kernel, "--network", "inner",
                             "--publish", "1:1", check=False)
    assert refused.returncode != 0 and "internal network" in refused.stderr


def test_networks_that_cannot_be_are_one_line_and_an_error(world):
    world.net("create", "apple", "--subnet", "10.5.0.0/24")
    for arguments, words in [
            (["create", "apple"], "already"), (["create", "user"], "cannot be the name"),
            (["create", "../x"], "cannot be the name"), (["create", "host"], "cannot be the name"),
            (["create", "pear", "--subnet", "10.5.0.128/25"], "overlaps"),
            (["create", "pear", "--subnet", "10.99.0.0/16"], "the host has an address"),
            (["create", "pear", "--subnet", "10.5.0.1/24"], "bits of a host"),
            (["create", "pear", "--subnet", "moon"], "no subnet"),
            (["create", "pear", "--subnet", "10.0.0.0/30"], "prefix"),
            (["rm", "pear"], "no network 'pear'"), (["inspect", "pear"], "no network 'pear'")]:
        result = world.net(*arguments, check=False)
        assert result.returncode in (1, 2) and words in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1
    nobody = world.host.run("setpriv", "--reuid", "65534", "--clear-groups", world.lodge, "net",
                            "rm", "apple", check=False)
    assert nobody.returncode == 1 and "only root" in nobody.stderr
    assert [n["name"] for n in json.loads(world.net("ls", "--json").stdout)] == ["apple"]
