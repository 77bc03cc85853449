"""Does what it is told, one line at a time, with Arrow's Python client of Plasma.

    python_client.py SOCKET

Each line on standard input is an operation with its arguments, each line on standard output its
answer: "ok" with results, or "error KIND MESSAGE". Bytes are written as hexadecimal digits, as
"HH*N" for one byte N times, or as "-" for none.
"""

import select
import struct
import sys
import warnings

warnings.simplefilter("ignore")

import pyarrow.plasma as plasma  # noqa: E402


def encoded(content):
    content = bytes(content)
    if not content:
        return "-"
    if len(content) > 32 and content == content[:1] * len(content):
        return "%02x*%d" % (content[0], len(content))
    return content.hex()


def decoded(word):
    if word == "-":
        return b""
    digits, times, count = word.partition("*")
    return bytes.fromhex(digits) * (int(count) if times else 1)


class Client:
    def __init__(self, socket):
        self.plasma = plasma.connect(socket, 0)
        # Buffers that keep objects in use, by id.
        self.held = {}
        self.notifications = None

    def settle(self):
        """What was sent without an answer has been done once something else is answered."""
        self.plasma.contains(plasma.ObjectID(b"settled".ljust(20)))

    def create(self, name, size, metadata):
        buffer = self.plasma.create(identity(name), int(size), decoded(metadata))
        self.held.setdefault(name, []).append(buffer)

    def write(self, name, data):
        memoryview(self.held[name][-1]).cast("B")[:] = decoded(data)

    def seal(self, name):
        self.plasma.seal(identity(name))

    def put(self, name, data, metadata):
        self.plasma.create_and_seal(identity(name), decoded(data), decoded(metadata))

    def get(self, timeout, *names):
        ids = [identity(name) for name in names]
        found = self.plasma.get_buffers(ids, int(timeout), with_meta=True)
        answer = []
        for name, (metadata, data) in zip(names, found):
            if data is None:
                answer.append(".")
            else:
                self.held.setdefault(name, []).append(data)
                answer.append(encoded(data) + "/" + encoded(metadata))
        return answer

    def release(self, name):
        self.held[name].pop()
        self.settle()

    def contains(self, name):
        return [str(int(self.plasma.contains(identity(name))))]

    def delete(self, *names):
        self.plasma.delete([identity(name) for name in names])

    def list(self):
        return [
            "%s:%d:%d:%d:%d"
            % (
                name.binary().hex(),
                info["data_size"],
                info["metadata_size"],
                info["ref_count"],
                info["state"] == "sealed",
            )
            for name, info in self.plasma.list().items()
        ]

    def evict(self, count):
        return [str(self.plasma.evict(int(count)))]

    def options(self, name, quota):
        self.plasma.set_client_options(decoded(name).decode(), int(quota))

    def debug(self):
        return [encoded(self.plasma.debug_string().encode())]

    def subscribe(self):
        self.plasma.subscribe()
        self.notifications = self.plasma.get_notification_socket()
        self.settle()

    def notification(self, timeout):
        """All that one message tells."""
        if not select.select([self.notifications], [], [], int(timeout) / 1000)[0]:
            return []
        (length,) = struct.unpack("<q", self.receive(8))
        told = self.plasma.decode_notifications(self.receive(length))
        return [
            "%s:%d:%d" % (name.binary().hex(), data_size, metadata_size)
            for name, data_size, metadata_size in zip(*told)
        ]

    def receive(self, length):
        received = b""
        while len(received) < length:
            part = self.notifications.recv(length - len(received))
            if not part:
                raise EOFError("the store ended the subscription")
            received += part
        return received

    def capacity(self):
        return [str(self.plasma.store_capacity())]

    def digest(self, name):
        return [self.plasma.hash(identity(name)).hex()]


def identity(name):
    return plasma.ObjectID(bytes.fromhex(name))


KINDS = {
    plasma.PlasmaObjectExists: "exists",
    plasma.PlasmaStoreFull: "full",
    plasma.PlasmaObjectNotFound: "notfound",
}


def main():
    client = Client(sys.argv[1])
    for line in sys.stdin:
        operation, *arguments = line.split()
        try:
            results = getattr(client, operation)(*arguments) or []
            print("ok", *results, flush=True)
        except Exception as error:
            # There is no exception of its own for it.
            sealed = "object is already sealed" in str(error)
            kind = "sealed" if sealed else KINDS.get(type(error), "other")
            message = " ".join(str(error).split())
            print("error", kind, type(error).__name__, message, flush=True)


if __name__ == "__main__":
    main()
