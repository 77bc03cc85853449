//! Replies and notifications, as the client reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzzed::replies(data));
