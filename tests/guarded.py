"""Driving the guard of Triton's sockets as gRPC does: frames in, frames out, epoll."""

import ctypes
import os
import platform
import select
import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
CONTINUATION = 9
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_WINDOW = 2**31 - 1
EPOLL_CTL = {"x86_64": 233, "aarch64": 21}[platform.machine()]
#: What tritonserver waits with: epoll_wait, and epoll_pwait where there is no such call.
EPOLL_WAIT = {"x86_64": 232, "aarch64": 22}[platform.machine()]
EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET
AGAIN = None


class Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    _fields_ = (
        *(("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32)),
        *(("pieces", ctypes.POINTER(Piece)), ("count", ctypes.c_size_t)),
        *(("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t)),
        ("flags", ctypes.c_int),
    )


class Event(ctypes.Structure):
    _pack_ = 1 if platform.machine() == "x86_64" else 8
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class Guarded:
    """A connection between a client and a reader that goes through the guard as gRPC does."""

    def __init__(self, guard):
        self.guard = guard
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.client = socket.create_connection(listening.getsockname())
            self.server = listening.accept()[0]
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.setblocking(False)
        self.fd, self.epoll = self.server.fileno(), select.epoll()
        event = Event(EDGES, 4711)
        self.guard.syscall(
            EPOLL_CTL, self.epoll.fileno(), 1, self.fd, ctypes.addressof(event), None, 0
        )
        self.woken()

    def sends(self, *frames):
        self.client.sendall(b"".join(frames))

    def woken(self, timeout=0.0):
        """Say whether the reader is told that there is something to read."""
        got = (Event * 4)()
        count = self.guard.syscall(
            *(EPOLL_WAIT, self.epoll.fileno(), ctypes.addressof(got), 4),
            *(int(timeout * 1000), None, 8),
        )
        return any(one.events & select.EPOLLIN for one in got[: max(count, 0)])

    def read(self, size=8192):
        """Return what gRPC reads; AGAIN where there is nothing."""
        buffer = ctypes.create_string_buffer(size)
        piece = Piece(ctypes.addressof(buffer), size)
        got = self.guard.recvmsg(self.fd, ctypes.byref(Message(pieces=piece_at(piece), count=1)), 0)
        if got < 0:
            error = ctypes.get_errno()
            if error == 11:
                return AGAIN
            raise OSError(error, os.strerror(error))
        return buffer.raw[:got]

    def reads(self, size=8192):
        """Return all that gRPC reads once something comes, until it has to wait or the end."""
        select.select([self.server], [], [], 10)
        got = b""
        while more := self.read(size):
            got += more
        return got

    def answers(self, *frames):
        """Send as gRPC does, in two pieces."""
        data = b"".join(frames)
        first, second = data[:5], data[5:]
        buffers = [ctypes.create_string_buffer(part, len(part)) for part in (first, second)]
        pieces = (Piece * 2)(*(Piece(ctypes.addressof(one), len(one)) for one in buffers))
        return self.guard.sendmsg(self.fd, ctypes.byref(Message(pieces=pieces, count=2)), 0)

    def close(self):
        self.guard.close(self.server.detach())
        self.client.close()
        self.epoll.close()


def piece_at(piece):
    return ctypes.cast(ctypes.byref(piece), ctypes.POINTER(Piece))


def frame(kind, payload=b"", *, stream=0, flags=0):
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def request(stream, *, ended=True, block=b"\x83\x86"):
    return frame(HEADERS, block, stream=stream, flags=END_HEADERS) + frame(
        DATA, b"question", stream=stream, flags=END_STREAM if ended else 0
    )


def reset(stream):
    return frame(RST_STREAM, b"\0\0\0\x08", stream=stream)


def credit(stream, increment):
    return frame(WINDOW_UPDATE, increment.to_bytes(4, "big"), stream=stream)


def answer(stream, data=b"answer"):
    return (
        frame(HEADERS, b"\x88", stream=stream, flags=END_HEADERS)
        + frame(DATA, data, stream=stream)
        + frame(HEADERS, b"\xbf", stream=stream, flags=END_HEADERS | END_STREAM)
    )
