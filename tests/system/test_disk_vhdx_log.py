"""VHDX images that were not closed: what their logs hold is read as if it had been written."""
import struct

import pytest

from system.disk import ok, refused, run

SIZE, SECTOR = 64 << 20, 4096
HEADERS = (64 << 10, 128 << 10)
GUID = bytes(range(1, 17))
WRITES = ("write -P 17 1M 64k", "write -P 34 5000k 300k", "write -P 51 40M 3M")


def crc_table():
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


TABLE = list(crc_table())


def sealed(data):
    """A structure with its checksum, CRC-32C, in bytes 4 to 7."""
    data = bytearray(data)
    data[4:8] = bytes(4)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    struct.pack_into("<I", data, 4, crc ^ 0xFFFFFFFF)
    return bytes(data)


class Image:
    """A VHDX file in memory whose log can be taken apart and written anew."""

    def __init__(self, path):
        self.path, self.data = path, bytearray(path.read_bytes())
        self.log_length, self.log = struct.unpack_from("<IQ", self.data, HEADERS[0] + 68)

    def save(self):
        self.path.write_bytes(self.data)

    def mark_open(self):
        """Both headers name the log: it is to be replayed."""
        for at in HEADERS:
            self.data[at + 48:at + 64] = GUID
            self.data[at:at + SECTOR] = sealed(self.data[at:at + SECTOR])

    def take_back(self):
        """The sectors that the log of qemu would have written, newest last; they are zeroed in
        the file, and the log is emptied."""
        changes = []
        for at in range(self.log, self.log + self.log_length, SECTOR):
            if self.data[at:at + 4] != b"loge":
                continue
            count, = struct.unpack_from("<I", self.data, at + 24)
            for i in range(count):
                trailing, leading, place = struct.unpack_from("<4s8sQ", self.data, at + 68 + i * 32)
                sector = at + SECTOR * (1 + i)
                changes.append((place, leading + self.data[sector + 8:sector + 4092] + trailing))
        for place, _ in changes:
            self.data[place:place + SECTOR] = bytes(SECTOR)
        self.data[self.log:self.log + self.log_length] = bytes(self.log_length)
        return changes

    def put_entry(self, at, sequence, tail, changes):
        """An entry at a place of the log, around its end where it does not fit. A change's data
        is a sector, or how many bytes of zeroes. Returns the place behind it."""
        sectors = [c for c in changes if isinstance(c[1], bytes)]
        length = SECTOR * (1 + len(sectors))
        entry = struct.pack("<4s4xIIQI4x16sQQ", b"loge", length, tail, sequence, len(changes),
                            GUID, len(self.data), len(self.data))
        for place, data in changes:
            if isinstance(data, bytes):
                entry += struct.pack("<4s4s8sQQ", b"desc", data[4092:], data[:8], place, sequence)
            else:
                entry += struct.pack("<4s4xQQQ", b"zero", data, place, sequence)
        entry = entry.ljust(SECTOR, b"\0")
        for _, data in sectors:
            entry += struct.pack("<4sI", b"data", sequence >> 32) + data[8:4092]
            entry += struct.pack("<I", sequence & 0xFFFFFFFF)
        for i, part in enumerate(sealed(entry)):
            self.data[self.log + (at + i) % self.log_length] = part
        return (at + length) % self.log_length


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of an image that qemu-io wrote to, and a raw disk with the same content."""
    folder = tmp_path_factory.mktemp("written")
    ok("qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M,log_size=1M",
       folder / "image", SIZE)
    ok("qemu-img", "create", "-q", "-f", "raw", folder / "raw", SIZE)
    for fmt, name in (("vhdx", "image"), ("raw", "raw")):
        ok("qemu-io", "-f", fmt, *(w for c in WRITES for w in ("-c", c)), folder / name)
    return (folder / "image").read_bytes(), folder / "raw"


@pytest.fixture
def image(written, tmp_path):
    (tmp_path / "image").write_bytes(written[0])
    image = Image(tmp_path / "image")
    image.mark_open()
    return image


def same_and_untouched(lodge, image, raw):
    """Lodge reads what qemu reads once it has replayed the log, and leaves the file alone."""
    image.save()
    assert '"format": "vhdx"' in ok(lodge, "disk", "info", image.path, "--json")
    ok(lodge, "disk", "compare", image.path, raw, "-F", "raw")
    ok(lodge, "disk", "convert", image.path, image.path.with_name("copy"), "-O", "raw")
    ok("cmp", raw, image.path.with_name("copy"))
    assert image.path.read_bytes() == image.data
    ok("qemu-img", "check", "-r", "all", image.path)
    ok("qemu-img", "compare", "-f", "vhdx", "-F", "raw", image.path, raw)


def test_changes_that_are_in_the_log_alone_are_read(lodge, written, image):
    at, changes = 0, image.take_back()
    assert changes
    for i, change in enumerate(changes):
        at = image.put_entry(at, 7 + i, 0, [change])
    same_and_untouched(lodge, image, written[1])


def test_an_entry_goes_around_the_end_of_the_log(lodge, written, image):
    changes, at = image.take_back(), image.log_length - SECTOR
    tail = at
    for i, change in enumerate(changes):
        at = image.put_entry(at, (1 << 32) - 1 + i, tail, [change])
    same_and_untouched(lodge, image, written[1])


def test_the_newest_whole_sequence_counts(lodge, written, image):
    """Beside an older one, one whose end is torn, and one without its tail."""
    changes = image.take_back()
    place = changes[0][0]
    image.put_entry(0, 3, 0, [(place, b"\xAA" * SECTOR)])
    at = tail = 64 << 10
    for i, change in enumerate(changes):
        at = image.put_entry(at, 10 + i, tail, [change])
    image.put_entry(at, 10 + len(changes), tail, [(place, b"\xBB" * SECTOR)])
    image.data[image.log + at + SECTOR + 100] ^= 1
    whole = bytes(image.data)
    same_and_untouched(lodge, image, written[1])
    # qemu takes a sequence without its tail for whole; [MS-VHDX] does not.
    image.data[:] = whole
    image.put_entry(256 << 10, 90, 300 << 10, [(place, b"\xCC" * SECTOR)])
    image.save()
    ok(lodge, "disk", "compare", image.path, written[1], "-F", "raw")


def test_entries_before_the_tail_are_done_with(lodge, written, image):
    changes = image.take_back()
    second = image.put_entry(0, 20, 0, [(changes[0][0], b"\xAA" * SECTOR), (SIZE // 16, 8192)])
    at = second
    for i, change in enumerate(changes):
        at = image.put_entry(at, 21 + i, second, [change])
    same_and_untouched(lodge, image, written[1])


def test_zeroes_in_the_log_come_in_their_order(lodge, written, image):
    changes = image.take_back()
    place = changes[0][0]
    image.data[place:place + SECTOR] = b"\xEE" * SECTOR
    at = image.put_entry(0, 1, 0, [(place, b"\xAA" * SECTOR), (place, SECTOR)])
    for i, change in enumerate(changes):
        at = image.put_entry(at, 2 + i, 0, [change])
    same_and_untouched(lodge, image, written[1])


def damage_all(image):
    image.take_back()


def damage_guid(image):
    image.put_entry(0, 1, 0, image.take_back())
    for at in HEADERS:
        image.data[at + 48] ^= 255
        image.data[at:at + SECTOR] = sealed(image.data[at:at + SECTOR])


def damage_place(image):
    image.put_entry(0, 1, 0, [(image.take_back()[0][0] + 1, bytes(SECTOR))])


def damage_tail(image):
    image.put_entry(0, 1, image.log_length, image.take_back())


def damage_length(image):
    """The file is shorter than it was."""
    image.put_entry(0, 1, 0, image.take_back())
    del image.data[-(1 << 20):]


@pytest.mark.parametrize("damage", [damage_all, damage_guid, damage_place, damage_tail,
                                    damage_length])
def test_a_damaged_log_is_refused(lodge, image, damage):
    damage(image)
    image.save()
    assert "log" in refused(lodge, "disk", "info", image.path)


def test_a_log_outside_the_file_is_refused(lodge, image):
    for at in HEADERS:
        for length, place in ((1 << 20, 1 << 40), (0xFFF00000, 1 << 20), (0, 1 << 20), (5, 5)):
            struct.pack_into("<IQ", image.data, at + 68, length, place)
            image.data[at:at + SECTOR] = sealed(image.data[at:at + SECTOR])
            for other in HEADERS:
                image.data[other:other + SECTOR] = image.data[at:at + SECTOR]
            image.save()
            assert "log" in refused(lodge, "disk", "info", image.path)


def test_an_image_with_a_log_is_not_written(lodge, image):
    image.put_entry(0, 1, 0, image.take_back())
    image.save()
    assert run(lodge, "disk", "resize", image.path, "1G").returncode == 1
    assert image.path.read_bytes() == image.data
