//! How a fuzzer's bytes become datagrams.
//!
//! ```text
//! settings (1) · datagrams: length (2) · who and when (1) · payload
//! ```
//!
//! Any bytes are an input: a length that reaches too far means the rest.

use schemas::address::Address;

/// The first datagram is received at this instant, UTC ms.
const START_MS: i64 = 1_700_000_000_000;
/// Bytes before a datagram's payload.
const FRAME_BYTES: usize = 3;
/// Datagrams of one input; more only cost time.
pub const DATAGRAMS_MAX: usize = 64;
/// What a datagram may come after the one before it: from the same instant to a day, and a clock that was set back.
const STEPS_MS: [i64; 8] = [0, 1, 20, 1_000, 60_000, 36 * 60_000, 86_400_000, -7_000];

/// How the decoder is set up for an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings(pub u8);

impl Settings {
    /// Limits so low that an input of a few kilobytes reaches each of them.
    pub fn tight_limits(self) -> bool {
        self.0 & 1 != 0
    }

    /// One exporter has a configured rate, another a default.
    pub fn configured_rates(self) -> bool {
        self.0 & 2 != 0
    }

    /// All 16 bits of a v5 sampling word are the interval.
    pub fn plain_sampling_word(self) -> bool {
        self.0 & 4 != 0
    }

    /// Before which of `datagrams` the state is kept and restored.
    pub fn split(self, datagrams: usize) -> usize {
        usize::from(self.0 >> 3) % (datagrams + 1)
    }
}

/// One datagram of an input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// Two bits of source, three of [`STEPS_MS`], three of port.
    pub who: u8,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn source(&self) -> Address {
        sources()[usize::from(self.who & 3)]
    }

    /// The UDP port that it came from. Where the model judges, an exporter keeps its port: which session goes on under
    /// another one is for the decoder's own tests.
    pub fn source_port(&self, settings: Settings) -> u16 {
        let of_source = 2_055 + u16::from(self.who & 3);
        match settings.tight_limits() {
            true => of_source + (u16::from(self.who >> 5) << 2),
            false => of_source,
        }
    }

    fn step_ms(&self) -> i64 {
        STEPS_MS[usize::from(self.who >> 2 & 7)]
    }
}

/// The exporters that an input can speak as.
pub fn sources() -> [Address; 4] {
    let mut v6 = [0; 16];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    v6[15] = 1;
    [
        Address::from_v4([192, 0, 2, 1]),
        Address::from_v4([192, 0, 2, 2]),
        Address::from_v4([198, 51, 100, 7]),
        Address(v6),
    ]
}

/// A fuzzer's input, understood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Input {
    pub settings: Settings,
    pub packets: Vec<Packet>,
}

impl Input {
    pub fn parse(bytes: &[u8]) -> Input {
        let Some((settings, mut rest)) = bytes.split_first() else {
            return Input::default();
        };
        let mut packets = Vec::new();
        while let Some(([high, low, who], behind)) = rest.split_first_chunk::<FRAME_BYTES>() {
            if packets.len() >= DATAGRAMS_MAX {
                break;
            }
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
            let (payload, behind) = behind.split_at(length);
            packets.push(Packet {
                who: *who,
                payload: payload.to_vec(),
            });
            rest = behind;
        }
        Input {
            settings: Settings(*settings),
            packets,
        }
    }

    /// The bytes of this input, as far as whole datagrams fit.
    pub fn to_bytes(&self, max_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![self.settings.0];
        for packet in &self.packets {
            let Ok(length) = u16::try_from(packet.payload.len()) else {
                continue;
            };
            if bytes.len() + FRAME_BYTES + packet.payload.len() > max_bytes {
                continue;
            }
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.push(packet.who);
            bytes.extend_from_slice(&packet.payload);
        }
        bytes
    }

    /// When each datagram is received, UTC ms.
    pub fn times_ms(&self) -> Vec<i64> {
        let mut at_ms = START_MS;
        let mut times = Vec::with_capacity(self.packets.len());
        for packet in &self.packets {
            at_ms += packet.step_ms();
            times.push(at_ms);
        }
        times
    }
}
