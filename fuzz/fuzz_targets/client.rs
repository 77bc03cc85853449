//! A client, and a store that says anything.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzzed::client(data));
