"""A small NBD client that knows what was acknowledged: write, flush and read, one at a time."""
import socket
import struct


class Gone(Exception):
    """The server has ended the connection."""


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.receive(18)
        self.socket.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 0))
        self.size, self.flags = struct.unpack(">QH", self.receive(10))
        self.cookie = 0

    def receive(self, length):
        data = b""
        while len(data) < length:
            try:
                part = self.socket.recv(length - len(data))
            except ConnectionError:
                part = b""
            if not part:
                raise Gone
            data += part
        return data

    def request(self, command, offset, length, data=b"", flags=0):
        """The error number, 0 when all is well."""
        self.cookie += 1
        header = struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length)
        try:
            self.socket.sendall(header + data)
        except ConnectionError:
            raise Gone from None
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert magic == 0x67446698 and cookie == self.cookie
        return error

    def write(self, offset, data, durable=True):
        return self.request(1, offset, len(data), data, 1 if durable else 0)

    def read(self, offset, length):
        assert self.request(0, offset, length) == 0
        return self.receive(length)
