//! Objects, as the typed layer reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plasma_typed::fuzzing::object(data));
