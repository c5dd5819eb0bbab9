//! The tables' Parquet encoder: see [`fuzz::table`] for what must hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzz::table::run(data);
});
