//! Imported captures: see [`fuzz::pcap`] for what must hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzz::pcap::run(data);
});
