//! NetFlow v9: see [`fuzz::check`] for what must hold.
#![no_main]

use collector::decode::netflow::NetflowDecoder;
use fuzz::input::Input;
use fuzz::mutate::{Family, mutate};
use fuzz::netflow::keep_versions;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::parse(data);
    keep_versions(&mut input, &[9]);
    fuzz::check::run::<NetflowDecoder>(&input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, Family::V9, fuzzer_mutate)
});
