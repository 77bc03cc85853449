//! Histories of the store's rules, beside a model of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plasma_store::fuzzing::history(data));
