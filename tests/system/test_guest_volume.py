"""Volumes with a name, which containers and virtual machines share."""
import concurrent.futures
import json
import os
import subprocess

import pytest

import images
from images import directory, file
from system.test_guest import box, busybox, host, patient  # noqa: F401

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")


@pytest.fixture
def volume(lodge):
    """A name that no volume has, now and afterwards."""
    name = f"test-{os.getpid()}"
    yield name
    subprocess.run([lodge, "volume", "rm", name], stderr=subprocess.DEVNULL, timeout=60)
    assert not os.path.exists(f"/var/lib/lodge/volumes/{name}")


@pytest.fixture
def filled(patient, tmp_path):
    patient.load(tmp_path, busybox(directory("data", uid=1000, gid=1001, mode=0o750),
                                   file("data/one", b"1\n", uid=1000, gid=1001, mode=0o600)))
    return patient


def test_a_volume_is_made_and_listed_and_removed(box, volume):
    assert box("volume", "create", "-l", "a=b", volume) == volume + "\n"
    assert "already" in box.fails("volume", "create", volume)
    assert volume in box("volume", "ls")
    [one] = json.loads(box("volume", "inspect", volume))
    assert (one["name"], one["labels"], one["guests"]) == (volume, {"a": "b"}, [])
    assert os.listdir(one["path"]) == []
    box("volume", "rm", volume)
    assert "no volume" in box.fails("volume", "rm", volume)
    assert volume not in box("volume", "ls")


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "", "lock", "x" * 200])
def test_no_name_leads_out_of_the_store(box, name):
    box.fails("volume", "create", name)
    box.fails("volume", "rm", name)


SEE = "ls -ln /data | tail -n +2 | /bin/busybox awk '{print $1, $3, $4, $9}'; ls -lnd /data |" \
      "/bin/busybox awk '{print $1, $3, $4}'; cat /data/*"


@pytest.mark.parametrize("first,second", [
    ("container", "vm"), pytest.param("vm", "container", marks=pytest.mark.long)])
def test_a_volume_is_filled_once_and_both_isolations_see_the_same(filled, full_kernel, volume,
                                                                  first, second):
    one = filled.run("--isolation", first, "-v", f"{volume}:/data", "box:1", "sh", "-c",
                     SEE + "; echo 2 >/data/two; chown 5:6 /data/two; chmod 640 /data/two;"
                     "mkdir /data/z")
    assert one.stdout == (
        "-rw------- 1000 1001 one\n"
        "drwxr-x--- 1000 1001\n1\n"), one.stderr
    other = filled.run("--isolation", second, "-v", f"{volume}:/data:ro", "box:1", "sh", "-c",
                       "/bin/busybox rmdir /data/z 2>&1; cat /data/one /data/two;"
                       "ls -ln /data/two | /bin/busybox awk '{print $1, $3, $4}'")
    assert other.stdout.splitlines()[1:] == ["1", "2", "-rw-r----- 5 6"], other
    assert "Read-only" in other.stdout


def test_a_volume_that_was_used_or_is_not_to_be_filled_stays_as_it_is(filled, volume):
    def names(*options):
        return filled.run(*options, "box:1", "ls", "/data").stdout.split()

    assert names("-v", f"{volume}:/data:nocopy") == []
    assert names("-v", f"{volume}:/data") == ["one"]
    assert filled.run("-v", f"{volume}:/data", "box:1", "/bin/busybox", "rm",
                      "/data/one").returncode == 0
    assert names("-v", f"{volume}:/data") == []
    filled("volume", "rm", volume)
    filled("volume", "create", volume)
    [one] = json.loads(filled("volume", "inspect", volume))
    open(one["path"] + "/mine", "w").close()
    assert names("--mount", f"type=volume,source={volume},target=/data") == ["mine"]


def test_a_volume_in_use_is_not_removed(box, volume):
    name = box.detach("-v", f"{volume}:/data", "box:1", "sleep", "100")
    assert name in box.fails("volume", "rm", volume)
    assert volume not in box("volume", "prune")
    box("stop", "-t", "0", name)
    assert name in box.fails("volume", "rm", volume)  # it may be started again
    box("rm", "--store", box.store.path, name)
    assert volume in box("volume", "prune")


def test_guests_that_begin_at_once_see_a_volume_filled(filled, volume):
    def see(_):
        return filled.run("-v", f"{volume}:/data", "box:1", "cat", "/data/one")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(see, range(8)))
    assert [one.stdout for one in results] == ["1\n"] * 8, results


def test_what_a_killed_process_left_of_a_volume_is_done_anew(filled, volume):
    filled("volume", "create", volume)
    [one] = json.loads(filled("volume", "inspect", volume))
    place = os.path.dirname(one["path"])
    os.makedirs(place + "/filling/half")  # killed while it was filled
    assert filled.run("-v", f"{volume}:/data", "box:1", "ls", "/data").stdout == "one\n"
    assert sorted(os.listdir(place)) == ["data", "volume.json"]
    os.rename(one["path"], place + "/filling")  # killed while it was removed
    assert volume not in filled("volume", "ls")
    filled("volume", "create", volume)
    assert os.listdir(one["path"]) == []


def test_a_hostile_image_fills_a_volume_with_its_own_files_only(patient, volume, tmp_path):
    patient.load(tmp_path, busybox(("data", dict(type=images.LINK, linkname="/../../etc"))))
    out = patient.run("-v", f"{volume}:/data", "box:1", "ls", "/data").stdout.split()
    assert set(out) <= {"passwd", "group", "hosts", "hostname", "resolv.conf"}


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_anonymous_volumes_have_what_the_image_has_and_go_with_the_guest(patient, full_kernel,
                                                                         tmp_path, isolation):
    patient.load(tmp_path, busybox(directory("data"), file("data/one", b"1\n")),
                 Volumes={"/data": {}, "/tmp/": {}, "/proc/x": {}, "/": {}, "/../etc": {}})
    name, command = patient.name(), ("box:1", "sh", "-c", "cat /data/one; echo 2 >/mine/two")
    patient("run", "--store", patient.store.path, "--isolation", isolation, "--name", name,
            "-v", "/mine", "--tmpfs", "/tmp", *command)
    made = {one["target"]: one["name"] for one in patient.inspect(name)["volumes"]}
    assert set(made) == {"/mine", "/data"}

    def there():
        return {one["name"] for one in json.loads(patient("volume", "ls", "--json"))}

    [two] = json.loads(patient("volume", "inspect", made["/mine"]))
    assert os.listdir(two["path"]) == ["two"] and set(made.values()) <= there()
    patient("rm", "--store", patient.store.path, name)
    assert set(made.values()) <= there()  # podman's rm leaves them, too
    patient("volume", "rm", *made.values())

    before = there()
    name = patient.name()
    patient("run", "--store", patient.store.path, "--isolation", isolation, "--name", name,
            "--mount", "type=volume,target=/mine", *command)
    assert len(there()) == len(before) + 3
    patient("rm", "--volumes", "--store", patient.store.path, name)
    assert there() == before
    assert patient.run("--isolation", isolation, "-v", "/mine", *command).stdout == "1\n"
    assert patient.run("-v", "/mine", "-v", "/other:not", *command).returncode != 0
    assert there() == before
