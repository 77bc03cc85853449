//! Requests, as the store reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzzed::requests(data));
