//! Writes v9 and IPFIX datagrams.

/// An IPFIX message in the making.
#[derive(Clone, Debug)]
pub(super) struct Ipfix {
    pub(super) domain: u32,
    pub(super) sequence: u32,
    pub(super) export_s: u32,
    pub(super) sets: Vec<u8>,
}

fn push_set(sets: &mut Vec<u8>, id: u16, body: &[u8]) {
    sets.extend(id.to_be_bytes());
    sets.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    sets.extend(body);
}

/// Field specifiers of elements without an enterprise.
pub(super) fn fields(specs: &[(u16, u16)]) -> Vec<u8> {
    specs
        .iter()
        .flat_map(|(element, length)| [element.to_be_bytes(), length.to_be_bytes()].concat())
        .collect()
}

fn template(id: u16, specs: &[(u16, u16)]) -> Vec<u8> {
    let count = u16::try_from(specs.len()).unwrap();
    [id.to_be_bytes().to_vec(), count.to_be_bytes().to_vec(), fields(specs)].concat()
}

impl Ipfix {
    pub(super) fn new() -> Ipfix {
        Ipfix {
            domain: 1,
            sequence: 0,
            export_s: super::NOW_S,
            sets: Vec::new(),
        }
    }

    pub(super) fn domain(mut self, domain: u32) -> Ipfix {
        self.domain = domain;
        self
    }

    pub(super) fn sequence(mut self, sequence: u32) -> Ipfix {
        self.sequence = sequence;
        self
    }

    pub(super) fn set(mut self, id: u16, body: &[u8]) -> Ipfix {
        push_set(&mut self.sets, id, body);
        self
    }

    pub(super) fn template(self, id: u16, specs: &[(u16, u16)]) -> Ipfix {
        self.set(2, &template(id, specs))
    }

    pub(super) fn options_template(self, id: u16, scopes: u16, specs: &[(u16, u16)]) -> Ipfix {
        let mut body = template(id, specs);
        body.splice(4..4, scopes.to_be_bytes());
        self.set(3, &body)
    }

    pub(super) fn withdraw(self, set: u16, id: u16) -> Ipfix {
        self.set(set, &[id.to_be_bytes(), [0, 0]].concat())
    }

    pub(super) fn build(self) -> Vec<u8> {
        let length = u16::try_from(16 + self.sets.len()).unwrap();
        let mut message = [10_u16.to_be_bytes(), length.to_be_bytes()].concat();
        for word in [self.export_s, self.sequence, self.domain] {
            message.extend(word.to_be_bytes());
        }
        message.extend(self.sets);
        message
    }
}

/// A version 9 datagram in the making.
#[derive(Clone, Debug)]
pub(super) struct V9 {
    pub(super) sequence: u32,
    pub(super) uptime_ms: u32,
    pub(super) sets: Vec<u8>,
}

impl V9 {
    pub(super) fn new() -> V9 {
        V9 {
            sequence: 0,
            uptime_ms: 600_000,
            sets: Vec::new(),
        }
    }

    pub(super) fn sequence(mut self, sequence: u32) -> V9 {
        self.sequence = sequence;
        self
    }

    pub(super) fn set(mut self, id: u16, body: &[u8]) -> V9 {
        push_set(&mut self.sets, id, body);
        self
    }

    pub(super) fn template(self, id: u16, specs: &[(u16, u16)]) -> V9 {
        self.set(0, &template(id, specs))
    }

    pub(super) fn options_template(self, id: u16, scopes: &[(u16, u16)], options: &[(u16, u16)]) -> V9 {
        let bytes = |specs: &[(u16, u16)]| u16::try_from(specs.len() * 4).unwrap().to_be_bytes();
        let body = [
            &id.to_be_bytes()[..],
            &bytes(scopes),
            &bytes(options),
            &fields(scopes),
            &fields(options),
        ]
        .concat();
        self.set(1, &body)
    }

    pub(super) fn build(self) -> Vec<u8> {
        let mut message = [9_u16.to_be_bytes(), 1_u16.to_be_bytes()].concat();
        for word in [self.uptime_ms, super::NOW_S, self.sequence, 1] {
            message.extend(word.to_be_bytes());
        }
        message.extend(self.sets);
        message
    }
}

/// A version 5 datagram with `records` equal records of 1500 bytes and one packet.
pub(super) fn v5(sequence: u32, sampling_word: u16, records: u16) -> Vec<u8> {
    let uptime_ms = 600_000_u32;
    let mut message = [5_u16.to_be_bytes(), records.to_be_bytes()].concat();
    for word in [uptime_ms, super::NOW_S, 500_000_000, sequence] {
        message.extend(word.to_be_bytes());
    }
    message.extend([1, 2]);
    message.extend(sampling_word.to_be_bytes());
    for _ in 0..records {
        message.extend([10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 3]);
        message.extend([0, 7, 0, 8]);
        for word in [1, 1500, uptime_ms - 5000, uptime_ms - 1000] {
            message.extend(word.to_be_bytes());
        }
        message.extend([1, 187, 200, 0, 0, 0x12, 6, 0x20, 0xfd, 0xe8, 0xfd, 0xe9, 24, 16, 0, 0]);
    }
    message
}
