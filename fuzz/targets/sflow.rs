//! sFlow version 5: see [`fuzz::check`] for what must hold.
#![no_main]

use collector::decode::sflow::SflowDecoder;
use fuzz::input::Input;
use fuzz::mutate::{Family, mutate};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| {
    let input = Input::parse(data);
    fuzz::check::run::<SflowDecoder>(&input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, Family::Sflow, fuzzer_mutate)
});
