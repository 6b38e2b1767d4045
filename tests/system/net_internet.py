"""The servers of the internet in net_world.py."""
import http.server
import socket
import socketserver
import struct
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        size = int(self.path[6:]) if self.path.startswith("/blob/") else 0
        self.wfile.write(bytes(range(256)) * (size // 256) if size else
                         self.client_address[0].removeprefix("::ffff:").encode() + b"\n")

    def log_message(self, *arguments):
        pass


class HTTP(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


class UDP(socketserver.UDPServer):
    address_family = socket.AF_INET6


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        data, connection = self.request
        who = self.client_address[0].removeprefix("::ffff:").encode()
        connection.sendto(who + b" said " + data, self.client_address)


class Names(socketserver.BaseRequestHandler):
    def handle(self):
        query, connection = self.request
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]])
            at += 1 + query[at]
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        known = labels[-1] == b"example"
        answer = (b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([10, 99, 99, 1])
                  if known and kind == 1 else b"")
        connection.sendto(query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1,
                                                  1 if answer else 0, 0, 0)
                          + query[12:at + 5] + answer, self.client_address)


class Discard(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(1 << 16):
            pass


class TCP(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


for server in (TCP(("::", 9), Discard), HTTP(("::", 80), Handler), UDP(("::", 7), Echo),
               UDP(("::", 53), Names)):
    threading.Thread(target=server.serve_forever).start()
print("serving", flush=True)
