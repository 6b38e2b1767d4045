"""Guests on networks of the host's kernel: names, addresses, NAT, published ports, and what
stays when processes are killed."""
import hashlib
import json

import pytest

import net_world
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
                      f"{HOST}:8080:80", "--publish", "8081:80", "--publish", "0.0.0.0:7000:7777/udp")
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
    assert [n["name"] for n in json.loads(world.net("ls", "--json").stdout)] == ["apple"]
