"""Guests with virtio devices: a kernel's drivers in the initramfs, and a session to run."""
import os
import subprocess

from conftest import make_initramfs

# Debian's drivers, and what they need. scripts/fetch-kernel tells in which order they are loaded.
PCI = ["virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio", "virtio_pci"]
DRIVERS = {
    "rng": ["virtio-rng"],
    "blk": ["virtio_blk"],
    "net": ["failover", "net_failover", "virtio_net"],
    "console": ["virtio_console"],
    "balloon": ["virtio_balloon"],
    "9p": ["netfs", "fscache", "9pnet", "9pnet_virtio", "9p"],
}

# For udhcpc: take the lease and say what it is.
DHCP_SCRIPT = """#!/bin/sh
case $1 in bound)
    ip addr add $ip/$mask dev $interface
    ip route add default via $router
    echo "LEASE $ip router $router dns $dns"
esac
"""


def find_modules(kernel, names):
    """Those of the modules that the kernel has not built in, in the order of loading."""
    folder = os.path.join(os.path.dirname(kernel), "modules")
    with open(os.path.join(folder, "order"), encoding="ascii") as order:
        return [os.path.join(folder, line) for line in order.read().split()
                if line.removesuffix(".ko") in names]


def make_guest(directory, kernel, drivers, session, *files):
    """An initramfs that loads the drivers and runs the session; built-in drivers have no file."""
    modules = find_modules(kernel, PCI + [name for d in drivers for name in DRIVERS[d]])
    load = "".join(f"insmod /modules/{os.path.basename(path)}\n" for path in modules)
    script, dhcp = os.path.join(directory, "session"), os.path.join(directory, "dhcp")
    with open(script, "w") as out:
        out.write(load + session)
    with open(dhcp, "w") as out:
        out.write(DHCP_SCRIPT)
    return make_initramfs(os.path.join(directory, "initrd.gz"), f"{script}:/session/main",
                          f"{dhcp}:/bin/dhcp-script",
                          *(f"{path}:/modules/{os.path.basename(path)}" for path in modules),
                          *files)


def section(output, name):
    """The lines that a session printed between "== name" and the next "== "."""
    lines = output.split(f"== {name}\n", 1)
    assert len(lines) == 2, f"no section {name} in:\n{output[-3000:]}"
    return lines[1].split("\n== ", 1)[0].strip("\n")


def e2fsck(path):
    """Replay the journal, and check; the status is e2fsck's."""
    subprocess.run(["/sbin/e2fsck", "-p", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return subprocess.run(["/sbin/e2fsck", "-fn", path], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT).returncode
