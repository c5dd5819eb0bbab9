//! The journal's reader: see [`fuzz::journal`] for what must hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: fuzz::journal::check_format(),
    |data: &[u8]| {
        fuzz::journal::run(data);
    }
);
