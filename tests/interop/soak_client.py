"""Lives with a store as the soak's other clients do, through Arrow's Python client of Plasma.

    soak_client.py SOCKET NAMES

It makes, reads and deletes objects until its standard input ends. What an object's name says of its
content is what `tests/soak/content.rs` says. A line on standard output now and then: how many it has
created, read and deleted since the last. It fails where content is not what it has to be.
"""

import hashlib
import random
import sys
import threading
import time
import warnings

warnings.simplefilter("ignore")

import pyarrow.plasma as plasma  # noqa: E402

REPORT_EVERY_S = 0.2
MOST_HELD = 8


def content_of(name):
    """Data and metadata."""
    limit = {0: 1 << 20, 1: 1 << 16, 2: 1 << 16, 3: 1 << 16}.get(name[0] % 16, 1 << 12)
    size = int.from_bytes(name[1:5], "little") % (limit + 1)
    data = (name * (size // len(name) + 1))[:size]
    return data, name[: name[5] % 21]


def check(name, metadata, data):
    expected = content_of(name)
    if (bytes(data), bytes(metadata)) != expected:
        sys.exit("WRONG content of %s" % name.hex())


class Life:
    def __init__(self, socket, names):
        self.plasma = plasma.connect(socket, 0)
        self.names = names
        self.held = []
        self.created = self.read = self.deleted = 0

    def name(self):
        return hashlib.sha1(b"soak %d" % random.randrange(self.names)).digest()

    def create(self):
        name = self.name()
        data, metadata = content_of(name)
        try:
            buffer = self.plasma.create(plasma.ObjectID(name), len(data), metadata)
        except (plasma.PlasmaObjectExists, plasma.PlasmaStoreFull):
            return
        memoryview(buffer).cast("B")[:] = data
        self.plasma.seal(plasma.ObjectID(name))
        self.created += 1

    def put(self):
        name = self.name()
        data, metadata = content_of(name)
        try:
            self.plasma.create_and_seal(plasma.ObjectID(name), data, metadata)
        except (plasma.PlasmaObjectExists, plasma.PlasmaStoreFull):
            return
        self.created += 1

    def get(self):
        names = [self.name() for _ in range(random.choice([1, 1, 1, 5]))]
        ids = [plasma.ObjectID(name) for name in names]
        timeout_ms = random.choice([0, 0, 0, 5])
        for name, (metadata, data) in zip(names, self.plasma.get_buffers(ids, timeout_ms, with_meta=True)):
            if data is not None:
                check(name, metadata, data)
                self.read += 1
                self.held.append((name, metadata, data))

    def release(self):
        if self.held:
            # It was held, so it is what it was.
            check(*self.held.pop(random.randrange(len(self.held))))

    def delete(self):
        self.plasma.delete([plasma.ObjectID(self.name())])
        self.deleted += 1

    def contains(self):
        self.plasma.contains(plasma.ObjectID(self.name()))

    def list(self):
        self.plasma.list()

    def live(self, stop):
        steps = (
            [self.create] * 20
            + [self.put] * 20
            + [self.get] * 60
            + [self.release] * 50
            + [self.delete] * 10
            + [self.contains] * 10
            + [self.list]
        )
        reported = time.monotonic()
        while not stop.is_set():
            random.choice(steps)()
            while len(self.held) > MOST_HELD:
                self.release()
            if time.monotonic() - reported > REPORT_EVERY_S:
                print(self.created, self.read, self.deleted, flush=True)
                self.created = self.read = self.deleted = 0
                reported = time.monotonic()
        while self.held:
            self.release()
        print(self.created, self.read, self.deleted, flush=True)


def main():
    stop = threading.Event()

    def wait():
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    Life(sys.argv[1], int(sys.argv[2])).live(stop)


if __name__ == "__main__":
    main()
