#![no_main]
//! See `opamp_fuzz`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| opamp_fuzz::run("lazy", input));
