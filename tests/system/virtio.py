"""Guests with virtio devices: a kernel's drivers in the initramfs, and a session to run."""
import os
import subprocess

from conftest import make_initramfs

# Debian's drivers in the order in which they can be loaded.
PCI = ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev",
       "virtio/virtio_pci_modern_dev", "virtio/virtio_pci"]
DRIVERS = {
    "rng": ["char/hw_random/virtio-rng"],
    "blk": ["block/virtio_blk"],
    "net": ["net/core/failover", "net/net_failover", "net/virtio_net"],
    "console": ["char/virtio_console"],
    "balloon": ["virtio/virtio_balloon"],
    "9p": ["fs/netfs/netfs", "fs/fscache/fscache", "net/9p/9pnet", "net/9p/9pnet_virtio",
           "fs/9p/9p"],
}

# For udhcpc: take the lease and say what it is.
DHCP_SCRIPT = """#!/bin/sh
case $1 in bound)
    ip addr add $ip/$mask dev $interface
    ip route add default via $router
    echo "LEASE $ip router $router dns $dns"
esac
"""


def find_module(kernel, name):
    folder = os.path.join(os.path.dirname(kernel), "modules", "kernel")
    for path in (os.path.join(folder, "drivers", name + ".ko"), os.path.join(folder, name + ".ko")):
        if os.path.exists(path):
            return path
    return None


def make_guest(directory, kernel, drivers, session, *files):
    """An initramfs that loads the drivers and runs the session; built-in drivers have no file."""
    names = PCI + [name for driver in drivers for name in DRIVERS[driver]]
    modules = [find_module(kernel, name) for name in names]
    modules = [path for path in modules if path]
    load = "".join(f"insmod /modules/{os.path.basename(path)}\n" for path in modules)
    script, dhcp = os.path.join(directory, "session"), os.path.join(directory, "dhcp")
    with open(script, "w") as out:
        out.write(load + session)
    with open(dhcp, "w") as out:
        out.write(DHCP_SCRIPT)
    return make_initramfs(os.path.join(directory, "initrd.gz"), f"{script}:/session/main",
                          f"{dhcp}:/bin/dhcp-script",
                          *(f"{path}:/modules/{os.path.basename(path)}" for path in modules), *files)


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
