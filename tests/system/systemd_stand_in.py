"""A stand-in for systemd on a bus of its own: it makes scopes as systemd does on a host with v1
trees, and writes down what it was asked. usage: systemd_stand_in.py BUS-ADDRESS LOG"""
import json
import os
import sys

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

MANAGER = "org.freedesktop.systemd1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
TREE = "/sys/fs/cgroup/systemd"


def group_of(slice_name, unit):
    stem = slice_name[: -len(".slice")].split("-")
    parents = ["-".join(stem[: i + 1]) + ".slice" for i in range(len(stem))]
    return os.path.join(TREE, *parents, unit)


class Manager(dbus.service.Object):
    def __init__(self, bus, log):
        self.log, self.jobs, self.groups = log, 0, {}
        name = dbus.service.BusName("org.freedesktop.systemd1", bus)
        super().__init__(name, "/org/freedesktop/systemd1")

    def note(self, what, unit, values):
        def plain(value):
            if isinstance(value, dbus.Array):
                return [int(item) for item in value]
            return str(value) if isinstance(value, dbus.String) else int(value)
        entry = {str(name): plain(value) for name, value in values}
        with open(self.log, "a") as file:
            file.write(json.dumps([what, str(unit), entry]) + "\n")

    def job(self, unit, result="done"):
        self.jobs += 1
        path = dbus.ObjectPath(f"/org/freedesktop/systemd1/job/{self.jobs}")
        GLib.timeout_add(5, lambda: self.JobRemoved(self.jobs, path, unit, result) and False)
        return path

    @dbus.service.method(MANAGER)
    def Subscribe(self):
        pass

    @dbus.service.method(PROPERTIES, in_signature="ss", out_signature="v")
    def Get(self, interface, name):
        assert (interface, name) == (MANAGER, "ControlGroup")
        return ""

    @dbus.service.method(MANAGER, in_signature="ssa(sv)a(sa(sv))", out_signature="o")
    def StartTransientUnit(self, unit, mode, properties, auxiliary):
        self.note("start", unit, properties)
        values = dict(properties)
        if unit.startswith("refused"):
            raise dbus.DBusException("it is refused", name="org.freedesktop.systemd1.Refused")
        if unit.startswith("failing"):
            return self.job(unit, "failed")
        group = self.groups[str(unit)] = group_of(str(values["Slice"]), str(unit))
        os.makedirs(group, exist_ok=True)
        for pid in values["PIDs"]:
            with open(os.path.join(group, "cgroup.procs"), "w") as file:
                file.write(str(int(pid)))
        return self.job(unit)

    @dbus.service.method(MANAGER, in_signature="sba(sv)")
    def SetUnitProperties(self, unit, runtime, properties):
        self.note("set", unit, properties)

    @dbus.service.method(MANAGER, in_signature="s")
    def ResetFailedUnit(self, unit):
        pass

    @dbus.service.method(MANAGER, in_signature="ss", out_signature="o")
    def StopUnit(self, unit, mode):
        self.note("stop", unit, [])
        return self.job(unit)

    @dbus.service.signal(MANAGER, signature="uoss")
    def JobRemoved(self, number, job, unit, result):
        pass


def main():
    dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
    bus = dbus.bus.BusConnection(sys.argv[1])
    Manager(bus, sys.argv[2])
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
