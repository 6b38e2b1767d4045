"""A world for tests of networks: a host and an internet, each in a network namespace of its own.

The internet is 10.99.99.1 and fd99::1; the host's way there is 10.99.99.2 and fd99::2, and the
internet knows no other: a guest's packets come back from there only if the host hides them. In the
internet there are HTTP at port 80 (/who: who asks), UDP at port 7 (the same), and a name server
at port 53 that knows every name ending in ".example".
"""
import os
import shutil
import signal
import subprocess
import time

import virtio

HERE = os.path.dirname(os.path.abspath(__file__))
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
CAN_BE = (os.geteuid() == 0 and os.path.exists("/dev/net/tun") and shutil.which("nft", path=PATH))
WHY_NOT = "a network of the host needs root, /dev/net/tun and nft"
INTERNET, INTERNET6, HOST, HOST6 = "10.99.99.1", "fd99::1", "10.99.99.2", "fd99::2"

# Python that makes a device finish checksums and segments before the wire (ethtool's
# ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO).
NO_OFFLOAD = """
import array, fcntl, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for command in 0x17, 0x1f, 0x24:
    value = array.array("I", [command, 0])
    fcntl.ioctl(s, 0x8946, struct.pack("16sQ16x", sys.argv[1].encode(), value.buffer_info()[0]))
"""


def wait_until(condition, seconds=120, what="it did not come"):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def build_probe(folder):
    """net_probe.c, as guests can run it."""
    path = os.path.join(str(folder), "net_probe")
    if not os.path.exists(path):
        subprocess.run(["cc", "-static", "-O1", "-w", "-Wl,--no-warnings", "-o", path,
                        os.path.join(HERE, "net_probe.c")], check=True)
    return path


class Namespace:
    """A process that holds namespaces until it is ended."""

    def __init__(self, *flags):
        self.holder = subprocess.Popen(["unshare", *flags, "sh", "-c", "echo up; exec sleep 9999"],
                                       stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"up\n"

    def command(self, *command):
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-m", "--wd=.", *map(str, command)]

    def run(self, *command, check=True):
        return subprocess.run(self.command(*command), check=check, text=True, capture_output=True,
                              env=dict(os.environ, PATH=PATH))

    def end(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class World:
    def __init__(self, lodge, folder):
        self.lodge, self.folder = lodge, str(folder)
        self.guests, self.servers = [], []
        self.internet = Namespace("-n", "-m")
        self.host = Namespace("-n", "-m")
        for place in (self.internet, self.host):
            place.run("ip", "link", "set", "lo", "up")
        os.makedirs("/var/lib/lodge", exist_ok=True)
        for path in ("/var/lib/lodge", "/run"):
            self.host.run("mount", "-t", "tmpfs", "test", path)
        self.connect()
        resolver = os.path.join(self.folder, "resolv.conf")
        with open(resolver, "w", encoding="ascii") as file:
            file.write(f"nameserver {INTERNET}\n")
        self.host.run("mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf"))
        self.serve_internet()

    def connect(self):
        self.host.run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "far",
                      "netns", self.internet.holder.pid)
        for place, device, addresses in [(self.host, "wan", (HOST, HOST6)),
                                         (self.internet, "far", (INTERNET, INTERNET6))]:
            place.run("ip", "addr", "add", addresses[0] + "/24", "dev", device)
            place.run("ip", "addr", "add", addresses[1] + "/64", "dev", device, "nodad")
            place.run("ip", "link", "set", device, "up")
        self.host.run("ip", "route", "add", "default", "via", INTERNET)
        self.host.run("ip", "-6", "route", "add", "default", "via", INTERNET6)

    def serve_internet(self):
        server = subprocess.Popen(self.internet.command("/usr/bin/python3",
                                                        os.path.join(HERE, "net_internet.py")),
                                  stdout=subprocess.PIPE)
        self.servers.append(server)
        assert server.stdout.readline() == b"serving\n"

    def python(self, place, text, check=True):
        """What a piece of Python prints there."""
        return place.run("/usr/bin/python3", "-c", text, check=check).stdout

    def net(self, *arguments, check=True):
        return self.host.run(self.lodge, "net", *arguments, check=check)

    def start(self, kernel, session, *arguments, files=()):
        """A guest on the host; its output goes to a file."""
        folder = os.path.join(self.folder, f"guest{len(self.guests)}")
        os.mkdir(folder)
        initrd = virtio.make_guest(folder, kernel, ["net"], session,
                                   build_probe(self.folder), *files)
        guest = Guest(self, folder, ["run", "--kernel", kernel, "--initrd", initrd, "--append",
                                     "console=ttyS0 panic=-1 quiet session=/session/main",
                                     *map(str, arguments)])
        self.guests.append(guest)
        return guest

    def end(self):
        for process in [guest.process for guest in self.guests] + self.servers:
            process.kill()
            process.wait()
        self.host.end()
        self.internet.end()


class Guest:
    def __init__(self, world, folder, arguments):
        self.path = os.path.join(folder, "output")
        with open(self.path, "wb") as output:
            # Without nsenter in between, so that a signal is lodge's.
            self.process = subprocess.Popen(
                world.host.command("sh", "-c", 'exec "$0" "$@"', world.lodge, *arguments),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=dict(os.environ, PATH=PATH))

    def output(self):
        with open(self.path, "rb") as file:
            return file.read().decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, text, seconds=180):
        def said():
            output = self.output()
            assert text in output or self.process.poll() is None, output[-3000:]
            return text in output
        wait_until(said, seconds, f"the guest did not say '{text}'")

    def wait(self, seconds=180):
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.output()[-3000:]) from None
        assert status == 0, self.output()[-3000:]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def section(self, name):
        return virtio.section(self.output(), name)
