"""SIGKILL at any moment of a guest's life leaves nothing that `rm` and `prune` do not remove."""
import os
import random
import subprocess
import time

import pytest

from system.test_guest import box, host, patient, start_vm  # noqa: F401

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")
MOMENTS = 12


def killed_at(box, seconds, *command):
    """The process of a verb, with all that it started for itself, ended at that moment."""
    process = subprocess.Popen([box.lodge, *map(str, command)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
    process.wait()


def duration(box, *command):
    start = time.monotonic()
    box(*command)
    return time.monotonic() - start


def is_all_gone(box, names):
    for name in names:
        subprocess.run([box.lodge, "rm", "-f", "--store", box.store.path, name],
                       stderr=subprocess.DEVNULL, timeout=120)
    if set(names) & set(os.listdir(f"{box.store.path}/holds")):
        box("prune", "--store", box.store.path)  # which removes what has ended of others, too
    for name in names:
        for directory in ("/var/lib/lodge/guests", "/run/lodge/guests"):
            assert not os.path.exists(f"{directory}/{name}")
        assert f"guests/{name}/" not in open("/proc/mounts").read()
        groups = subprocess.run(["find", "/sys/fs/cgroup", "-name", name], stdout=subprocess.PIPE)
        assert not groups.stdout
        assert name not in os.listdir(f"{box.store.path}/holds")
    return True


VERBS = {
    "rename": (False, lambda store, name, other: ("rename", *store, name, other)),
    "start": (False, lambda store, name, other: ("start", *store, name)),
    "rm": (False, lambda store, name, other: ("rm", *store, name)),
    "stop": (True, lambda store, name, other: ("stop", "-t", "0", name)),
    "rm -f": (True, lambda store, name, other: ("rm", "-f", *store, name)),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_a_verb_that_is_killed_leaves_nothing_that_cannot_be_removed(patient, isolation, verb):
    runs, command = VERBS[verb]
    store = ("--store", patient.store.path)
    chance = random.Random(f"{verb} {isolation}")
    moments = MOMENTS if isolation == "container" else 3
    longest = None
    for _ in range(moments + 1):
        if isolation == "vm":
            name = start_vm(patient, "box:1", "sleep", "600")
        else:
            name = patient.detach("box:1", "sleep", "600")
        other = patient.name()
        if not runs:
            patient("stop", "-t", "0", name)
        words = command(store, name, other)
        if longest is None:  # once to its end
            longest = duration(patient, *words)
        else:
            killed_at(patient, chance.uniform(0, longest), *words)
        assert is_all_gone(patient, (name, other))


def test_a_guest_whose_renaming_was_killed_keeps_its_image(box):
    store = ("--store", box.store.path)
    name, other = box.detach("box:1", "echo", "here"), box.name()
    box.wait(name)
    guests = "/var/lib/lodge/guests"
    os.rename(f"{guests}/{name}", f"{guests}/{other}")  # as far as it came
    assert box.inspect(other)["name"] == other and "no guest" in box.fails("inspect", name)
    box.store("rm", "box:1")
    assert box("start", "-a", *store, other) == "here\n"
    assert is_all_gone(box, (name, other))
