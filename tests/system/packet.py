"""A second opinion on packets: their checksums, by the book."""
import struct


def checksum(data):
    """RFC 1071: 0 over what has its own checksum in it."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


def checksums_are_right(frame):
    """Of an Ethernet frame with TCP over IPv4: both, and the lengths."""
    header = (frame[14] & 15) * 4
    total = struct.unpack(">H", frame[16:18])[0]
    tcp = frame[14 + header:14 + total]
    pseudo = frame[26:34] + struct.pack(">BBH", 0, 6, len(tcp))
    return (14 + total <= max(len(frame), 60) and checksum(frame[14:14 + header]) == 0 and
            checksum(pseudo + tcp) == 0)
