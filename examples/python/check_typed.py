"""Checks that Python sees what the program `typed_writer` wrote.

    typed_writer -- python3 examples/python/check_typed.py
"""

import ast
import hashlib
import sys

import numpy

import read_typed
from read_typed import plasma


def check(name, found, expected):
    if found != expected:
        sys.exit(f"{name} is {found!r}, and should be {expected!r}")


def main(socket):
    client = plasma.connect(socket)

    def get(name):
        # The id that ObjectId::from_name gives it in Rust.
        digest = hashlib.sha1(f"typed_writer/{name}".encode()).digest()
        found = read_typed.get(client, plasma.ObjectID(digest), 5000)
        # The writer says what it takes the type for in numpy.
        theirs = numpy.dtype(ast.literal_eval(found.user_meta.decode()))
        check(f"{name}'s dtype", read_typed.dtype_of(found.schema), theirs)
        check(f"the dtype of {name}'s array", found.value.dtype, theirs.base)
        check(f"that {name} can be written", found.value.flags.writeable, False)
        check(f"that {name} is a copy", found.value.flags.owndata, False)
        return found

    station = get("station")
    check("schema", read_typed.title(station.schema["type"]), "weather.Station v2")
    check(
        "station",
        read_typed.plain(station.value, station.schema["type"]),
        {
            "serial": 1 << 100,
            "place": {"north": 52.52, "east": 13.405},
            "history": [[sensor + step / 4 for step in range(4)] for sensor in range(3)],
            "offset": -300,
            "state": "Fine",
            "battery_powered": True,
            "symbol": "☂",
            "alarms": ["Off", "Fine", "Off", "Broken"],
            "interval_s": 1,
            "_pad": [0] * 2,
        },
    )
    check("history's shape", station.value["history"].shape, (3, 4))
    check("state's number", int(station.value["state"]), 1)
    check("state's names", station.value.dtype["state"].metadata["names"][255], "Broken")

    readings = get("readings").value
    check("readings' shape", readings.shape, (1000,))
    check("the last reading's time", int(readings["ts_ns"][-1]), 999_000_000_000)
    check("the mean of the readings", float(readings["celsius"].mean()), 999 / 16)

    check("wind", get("wind").value.tolist(), [[0.5, 0.0, -0.5], [1.5, 0.25, -2.0]])
    check("grid", get("grid").value.tolist(), [[1, 2, 3], [4, 5, 6]])
    check("alarms", get("alarms").value.shape, (0,))
    check("greeting", get("greeting").text(), "Grüße aus Rust")

    image = get("image")
    check("image", image.value.tolist(), (5, 3))
    check("pixels", image.tail.tolist(), list(range(0, 150, 10)))
    check("that the pixels can be written", image.tail.flags.writeable, False)
    print("Python read what Rust wrote: 7 typed objects")


if __name__ == "__main__":
    main(*sys.argv[1:])
