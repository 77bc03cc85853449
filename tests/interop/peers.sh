#!/usr/bin/env bash
# Installs Arrow's own Plasma (the last release that is whole: 11.0.0) for the interop tests, into
# $PLASMA_PEERS_CACHE or ~/.cache/plasma-rs-peers. Does nothing where that has been done.
set -euo pipefail

cache=${PLASMA_PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/plasma-rs-peers}
# pandas and pytest are for Arrow's test suite: pyarrow 11 knows neither numpy 2 nor later pandas.
packages=('pyarrow==11.0.0' 'numpy==1.26.4' 'pandas==2.2.3' 'pytest<10')
stamp="$cache/venv/installed"

if [[ -f $stamp && $(<"$stamp") == "${packages[*]}" ]]; then
    echo "Arrow's Plasma is in $cache"
    exit
fi

# There are wheels of it up to CPython 3.11.
python=
for candidate in python3.11 python3.10 python3.9 python3; do
    if command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 12))'; then
        python=$candidate
        break
    fi
done
if [[ -z $python ]]; then
    echo "peers.sh: Arrow's Plasma needs CPython 3.9, 3.10 or 3.11, and none is on the path" >&2
    exit 1
fi

echo "installing Arrow's Plasma into $cache"
mkdir -p "$cache"
rm -rf "$cache/venv"
"$python" -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
echo "${packages[*]}" >"$stamp"
