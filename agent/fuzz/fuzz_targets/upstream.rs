#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otelagent_fuzz::upstream(bytes));
