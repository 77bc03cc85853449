//! A store, and clients that say anything.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzzed::store(data));
