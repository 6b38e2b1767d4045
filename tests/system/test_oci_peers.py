"""The same bundle under Lodge, runc and crun: what the program finds is the same."""
import os
import shutil
import subprocess

import pytest

# crun refuses hosts with controllers in both trees.
PLAIN = """mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified
exec "$@\""""

LOOK = """
id; umask; pwd; env | sort; hostname; echo $#
grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status
cat /proc/self/oom_score_adj /proc/self/limits | grep -v 'Max cpu time'
for f in /dev/*; do stat -c '%n %F %a %u:%g %t:%T' $f; done | grep -v -E 'console|core|pts|shm'
for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done
cut -d' ' -f5,6 /proc/self/mountinfo | grep -E '^/(proc|dev|sys|data| )' \
    | grep -v -E 'cgroup|/proc/(acpi|asound|keys|timer_list|scsi)|/sys/firmware' \
    | sed 's/,relatime//' | sort | uniq
ls /proc/self/fd | wc -l; cat /proc/keys /proc/timer_list 2>/dev/null | wc -c
touch /x 2>/dev/null && echo writable; cut -d: -f3- /proc/self/cgroup | sort | uniq
ip addr 2>/dev/null | grep -c UP
"""


@pytest.fixture(params=["runc", "crun"])
def peer(request, oci):
    program = shutil.which(request.param)
    if not program:
        pytest.skip(f"{request.param} is not installed")
    command = ["unshare", "-m", "sh", "-c", PLAIN, "sh"]

    def run(bundle):
        bundle.save()
        words = ["run", "--bundle", bundle.path]
        results = []
        for runtime in ([program, "--root", oci.directory + "/peer"], oci.command):
            result = subprocess.run(
                [*command, *runtime, *words, oci.new_id()],
                input="",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
            results.append((result.returncode, result.stdout))
        return results

    return run


def plain(oci):
    bundle = oci.bundle().shell(LOOK)
    bundle.config["ociVersion"] = "1.0.2"
    bundle.linux["resources"]["devices"] = [{"allow": False, "access": "rwm"}]
    return bundle


def change_nothing(oci, bundle):
    pass


def change_user(oci, bundle):
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "umask": 0o27, "additionalGids": [5, 6]}
    bundle.process["cwd"] = "/tmp"
    bundle.process["oomScoreAdj"] = 50


def change_capabilities(oci, bundle):
    names = ["CAP_NET_RAW", "CAP_CHOWN"]
    bundle.process["capabilities"] = {
        kind: names for kind in ("bounding", "effective", "permitted", "inheritable")
    }
    bundle.process["noNewPrivileges"] = False
    bundle.config["root"]["readonly"] = False


def change_mounts(oci, bundle):
    os.mkdir(oci.directory + "/data")
    bundle.config["mounts"] += [
        {
            "destination": "/data",
            "type": "bind",
            "source": oci.directory + "/data",
            "options": ["rbind", "ro", "nosuid", "nodev", "noexec"],
        },
        {
            "destination": "/data2",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "size=64k", "mode=700"],
        },
    ]


def change_seccomp(oci, bundle):
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}],
    }


def change_devices(oci, bundle):
    bundle.linux["devices"] = [
        {"path": "/dev/extra", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 7}
    ]


@pytest.mark.parametrize(
    "change",
    [
        change_nothing,
        change_user,
        change_capabilities,
        change_mounts,
        change_seccomp,
        change_devices,
    ],
)
def test_a_program_finds_what_it_finds_under_the_peer(oci, peer, change):
    bundle = plain(oci)
    change(oci, bundle)
    theirs, ours = peer(bundle)
    if theirs[0] and not theirs[1]:
        pytest.skip("the peer does not run this here")
    assert ours == theirs


@pytest.mark.parametrize("script,status", [("exit 7", 7), ("kill -9 $$; exit 1", 1)])
def test_exit_statuses_are_those_of_the_peer(oci, peer, script, status):
    bundle = plain(oci).shell(script)
    theirs, ours = peer(bundle)
    assert ours == theirs == (status, "")
