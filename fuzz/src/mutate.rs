//! Changes to an input that keep its framing whole: lengths and counts follow what they frame.
//!
//! libFuzzer changes bytes and knows no formats; left alone it spends its time on lengths that do not fit. Here a change is
//! made to one datagram, one set, one sample or one record, by libFuzzer's own means or by a rule of the format, and the frame
//! is then made whole again, except one time in eight, when bytes change where they lie.

use crate::input::{Input, Packet};

/// Longest piece that libFuzzer changes at once.
const PIECE_MAX: usize = 4096;

/// What kind of datagrams an input holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// v5 and v7.
    Fixed,
    V9,
    Ipfix,
    Sflow,
}

/// A small generator of numbers: the mutator must depend on its seed alone.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u32) -> Dice {
        Dice(u64::from(seed) << 1 | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// 0 to `count` − 1; 0 for none.
    fn below(&mut self, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        (self.next() % count as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Changes `data[..size]` in place and answers its new size. `mutate_bytes` is libFuzzer's own mutation.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    family: Family,
    mutate_bytes: fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut dice = Dice::new(seed);
    if dice.one_in(8) {
        return mutate_bytes(data, size, max_size);
    }
    let mut input = Input::parse(&data[..size]);
    if input.packets.is_empty() {
        input.packets.push(fresh_packet(&mut dice, family));
    }
    let mut mutator = Mutator {
        dice,
        family,
        mutate_bytes,
    };
    for _ in 0..=mutator.dice.below(3) {
        mutator.change(&mut input);
    }
    let bytes = input.to_bytes(max_size);
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

fn fresh_packet(dice: &mut Dice, family: Family) -> Packet {
    let payload = match family {
        Family::Fixed => [vec![0, dice.of(&[5, 7]), 0, 1], dice.bytes(20 + 48)].concat(),
        Family::V9 => [vec![0, 9, 0, 1], vec![0; 16]].concat(),
        Family::Ipfix => [vec![0, 10, 0, 16], vec![0; 12]].concat(),
        Family::Sflow => [vec![0, 0, 0, 5, 0, 0, 0, 1, 192, 0, 2, 1], vec![0; 16]].concat(),
    };
    Packet { who: 0, payload }
}

struct Mutator {
    dice: Dice,
    family: Family,
    mutate_bytes: fn(&mut [u8], usize, usize) -> usize,
}

impl Mutator {
    fn change(&mut self, input: &mut Input) {
        let count = input.packets.len();
        let index = self.dice.below(count);
        match self.dice.below(16) {
            0 => input.packets.push(input.packets[index].clone()),
            1 => input.packets.swap(index, self.dice.below(count)),
            2 if count > 1 => drop(input.packets.remove(index)),
            3 => input.packets[index].who = self.dice.next() as u8,
            4 => input.settings.0 = self.dice.next() as u8,
            5 => self.bytes(&mut input.packets[index].payload),
            _ => match self.family {
                Family::Fixed => self.fixed(&mut input.packets[index].payload),
                Family::V9 | Family::Ipfix => self.sets(input, index),
                Family::Sflow => self.sflow(&mut input.packets[index].payload),
            },
        }
    }

    /// libFuzzer's own mutation of a piece, which may change its length.
    fn bytes(&mut self, piece: &mut Vec<u8>) {
        let size = piece.len().min(PIECE_MAX);
        let room = (size + 64).min(PIECE_MAX);
        let behind = piece.split_off(size);
        piece.resize(room, 0);
        let changed = (self.mutate_bytes)(piece, size, room);
        piece.truncate(changed);
        piece.extend_from_slice(&behind);
    }

    /// A change of bytes that keeps the length.
    fn bytes_in_place(&mut self, piece: &mut [u8]) {
        if piece.is_empty() {
            return;
        }
        let size = piece.len().min(PIECE_MAX);
        let mut copy = piece[..size].to_vec();
        let changed = (self.mutate_bytes)(&mut copy, size, size);
        piece[..changed].copy_from_slice(&copy[..changed]);
    }

    fn fixed(&mut self, payload: &mut Vec<u8>) {
        const HEADER_BYTES: usize = 24;
        let record_bytes = if payload.get(1) == Some(&7) { 52 } else { 48 };
        if payload.len() < HEADER_BYTES {
            *payload = fresh_packet(&mut self.dice, self.family).payload;
        }
        match self.dice.below(4) {
            0 => self.bytes_in_place(&mut payload[2..HEADER_BYTES]),
            1 => {
                let records = 1 + self.dice.below(3);
                payload.extend(self.dice.bytes(records * record_bytes));
            }
            2 => payload.truncate(HEADER_BYTES + self.dice.below(3) * record_bytes),
            _ => self.bytes_in_place(&mut payload[HEADER_BYTES..]),
        }
        let count = (payload.len() - HEADER_BYTES) / record_bytes;
        payload[2..4].copy_from_slice(&(count as u16).to_be_bytes());
    }

    // ---- v9 and IPFIX ------------------------------------------------------------------------------------------------------

    fn sets(&mut self, input: &mut Input, index: usize) {
        let is_ipfix = self.family == Family::Ipfix;
        let header_bytes = if is_ipfix { 16 } else { 20 };
        let known: Vec<KnownTemplate> = input
            .packets
            .iter()
            .flat_map(|packet| known_templates(packet, header_bytes, is_ipfix))
            .collect();
        let payload = &mut input.packets[index].payload;
        payload.resize(payload.len().max(header_bytes), 0);
        payload[..2].copy_from_slice(&[0, if is_ipfix { 10 } else { 9 }]);
        let mut sets = split_sets(&payload[header_bytes..]);
        let at = self.dice.below(sets.len() + 1);
        match self.dice.below(12) {
            0 => sets.insert(at, self.template_set(is_ipfix, false)),
            1 => sets.insert(at, self.template_set(is_ipfix, true)),
            2..=4 if !known.is_empty() => {
                let template = &known[self.dice.below(known.len())];
                let set = self.data_set(template);
                sets.insert(at, set);
            }
            5 if at < sets.len() => {
                let copy = sets[at].clone();
                sets.insert(self.dice.below(sets.len()), copy);
            }
            6 if at < sets.len() => drop(sets.remove(at)),
            7 if at < sets.len() => {
                let id = self.set_id(is_ipfix, &known);
                sets[at].id = id;
            }
            8 if at < sets.len() => self.field(&mut sets[at], is_ipfix),
            9 if is_ipfix => sets.insert(at, self.withdrawal(&known)),
            10 => self.bytes_in_place(&mut payload[2..header_bytes]),
            _ if at < sets.len() => self.bytes(&mut sets[at].body),
            _ => sets.push(self.template_set(is_ipfix, false)),
        }
        payload.truncate(header_bytes);
        for set in &sets {
            let length = u16::try_from(set.body.len() + 4).unwrap_or(u16::MAX);
            payload.extend_from_slice(&set.id.to_be_bytes());
            payload.extend_from_slice(&length.to_be_bytes());
            payload.extend_from_slice(&set.body);
        }
        if is_ipfix {
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            payload[2..4].copy_from_slice(&length.to_be_bytes());
        }
    }

    fn template_id(&mut self) -> u16 {
        self.dice.of(&[256, 256, 257, 257, 258, 259, 260, 300, 65535])
    }

    fn set_id(&mut self, is_ipfix: bool, known: &[KnownTemplate]) -> u16 {
        match self.dice.below(4) {
            0 if is_ipfix => self.dice.of(&[2, 3]),
            0 => self.dice.of(&[0, 1]),
            1 => self.dice.of(&[0, 1, 2, 3, 4, 255]),
            2 if !known.is_empty() => known[self.dice.below(known.len())].id,
            _ => self.template_id(),
        }
    }

    fn template_set(&mut self, is_ipfix: bool, is_options: bool) -> Set {
        let mut body = Vec::new();
        for _ in 0..=self.dice.below(2) {
            let mut scopes = if is_options { self.dice.below(3) } else { 0 };
            if is_options && is_ipfix {
                scopes = scopes.max(1);
            }
            let count = scopes + 1 + self.dice.below(if is_options { 5 } else { 14 });
            let word = |value: usize| (value as u16).to_be_bytes();
            body.extend_from_slice(&self.template_id().to_be_bytes());
            match (is_options, is_ipfix) {
                (false, _) => body.extend_from_slice(&word(count)),
                (true, true) => body.extend_from_slice(&[word(count), word(scopes)].concat()),
                (true, false) => body.extend_from_slice(&[word(scopes * 4), word((count - scopes) * 4)].concat()),
            }
            for field in 0..count {
                if !is_ipfix && field < scopes {
                    body.extend_from_slice(&[word(1 + self.dice.below(5)), word(self.dice.of(&[0, 2, 4]))].concat());
                    continue;
                }
                let spec = self.field_spec(is_ipfix, is_options);
                body.extend_from_slice(&spec);
            }
        }
        let id = match (is_ipfix, is_options) {
            (false, false) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (true, true) => 3,
        };
        Set { id, body }
    }

    fn field_spec(&mut self, is_ipfix: bool, is_options: bool) -> Vec<u8> {
        let (element, usual) = if is_options && !self.dice.one_in(4) {
            self.dice.of(OPTIONS_ELEMENTS)
        } else {
            self.dice.of(ELEMENTS)
        };
        let length = match self.dice.below(12) {
            0 => self.dice.of(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 255, 256]),
            1 => 65535,
            _ => usual,
        };
        let length = length.to_be_bytes();
        if is_ipfix && self.dice.one_in(12) {
            let enterprise: u32 = self.dice.of(&[0, 2636, 9, 29305]);
            return [
                &(element | 0x8000).to_be_bytes()[..],
                &length,
                &enterprise.to_be_bytes(),
            ]
            .concat();
        }
        [element.to_be_bytes(), length].concat()
    }

    /// Changes one field specifier of a template set, or anything of a data set.
    fn field(&mut self, set: &mut Set, is_ipfix: bool) {
        let template_ids = if is_ipfix { 2..=3 } else { 0..=1 };
        if !template_ids.contains(&set.id) || set.body.len() < 8 {
            return self.bytes_in_place(&mut set.body);
        }
        let spec = self.field_spec(false, set.id % 2 == 1);
        let slots = (set.body.len() - 4) / 4;
        // Specifiers lie four bytes apart behind a head of four (options of IPFIX and v9: six).
        let head = if template_ids.end() == &set.id { 6 } else { 4 };
        let at = (head + 4 * self.dice.below(slots)).min(set.body.len() - 4);
        set.body[at..at + 4].copy_from_slice(&spec);
    }

    fn withdrawal(&mut self, known: &[KnownTemplate]) -> Set {
        let id = self.dice.of(&[2, 3]);
        let withdrawn = match self.dice.below(4) {
            0 => id,
            1 if !known.is_empty() => known[self.dice.below(known.len())].id,
            _ => self.template_id(),
        };
        Set {
            id,
            body: [withdrawn.to_be_bytes(), [0, 0]].concat(),
        }
    }

    /// Records of a known template, each field of a plausible or a random value.
    fn data_set(&mut self, template: &KnownTemplate) -> Set {
        let mut body = Vec::new();
        for _ in 0..=self.dice.below(4) {
            for length in &template.lengths {
                let length = match *length {
                    65535 => {
                        let length = self.dice.of(&[0, 1, 2, 4, 8, 16, 20, 254, 255, 300]);
                        if length >= 255 || self.dice.one_in(4) {
                            body.push(255);
                            body.extend_from_slice(&(length as u16).to_be_bytes());
                        } else {
                            body.push(length as u8);
                        }
                        length
                    }
                    fixed => usize::from(fixed).min(PIECE_MAX),
                };
                match self.dice.below(4) {
                    0 => body.extend(std::iter::repeat_n(0, length)),
                    1 => body.extend(std::iter::repeat_n(0xff, length)),
                    2 => body.extend((0..length).map(|at| u8::from(at + 1 == length))),
                    _ => body.extend(self.dice.bytes(length)),
                }
            }
            if body.len() > PIECE_MAX {
                break;
            }
        }
        let padding = self.dice.of(&[0, 0, 1, 2, 3, 7]);
        body.extend(std::iter::repeat_n(0, padding));
        Set { id: template.id, body }
    }

    // ---- sFlow -------------------------------------------------------------------------------------------------------------

    fn sflow(&mut self, payload: &mut Vec<u8>) {
        let head_bytes = match payload.get(7) {
            Some(1) => 28,
            Some(2) => 40,
            _ => 24,
        };
        if payload.len() < head_bytes {
            *payload = fresh_packet(&mut self.dice, self.family).payload;
            return;
        }
        let mut samples = split_records(&payload[head_bytes..]);
        let at = self.dice.below(samples.len() + 1);
        match self.dice.below(10) {
            0 => self.bytes_in_place(&mut payload[4..head_bytes]),
            1 if at < samples.len() => samples.push(samples[at].clone()),
            2 if at < samples.len() => drop(samples.remove(at)),
            3 => samples.insert(at, self.fresh_sample()),
            _ if at < samples.len() => self.sample(&mut samples[at]),
            _ => samples.push(self.fresh_sample()),
        }
        payload.truncate(head_bytes);
        join_records(&samples, payload);
        let count = (samples.len() as u32).to_be_bytes();
        payload[head_bytes - 4..head_bytes].copy_from_slice(&count);
    }

    /// Bytes of a sample's head, behind which its records lie: up to and with their number.
    fn sample_head_bytes(format: u32) -> Option<usize> {
        match format {
            1 => Some(32),
            2 => Some(12),
            3 => Some(44),
            4 => Some(16),
            _ => None,
        }
    }

    fn sample(&mut self, sample: &mut TaggedRecord) {
        let Some(head_bytes) = Mutator::sample_head_bytes(sample.format).filter(|head| sample.body.len() >= *head)
        else {
            return self.bytes(&mut sample.body);
        };
        let mut records = split_records(&sample.body[head_bytes..]);
        let at = self.dice.below(records.len() + 1);
        match self.dice.below(10) {
            0 => self.bytes_in_place(&mut sample.body[..head_bytes - 4]),
            1 if at < records.len() => records.push(records[at].clone()),
            2 if at < records.len() => drop(records.remove(at)),
            3 if at < records.len() => records[at].format = self.dice.of(RECORD_FORMATS),
            4 => records.insert(at, self.fresh_record(sample.format % 2 == 1)),
            5 => {
                // Another kind of sample with the same records.
                let format = self.dice.of(&[1, 2, 3, 4, 5]);
                if let Some(head_bytes) = Mutator::sample_head_bytes(format) {
                    let mut body = sample.body.clone();
                    body.resize(head_bytes, 0);
                    join_records(&records, &mut body);
                    body[head_bytes - 4..head_bytes].copy_from_slice(&(records.len() as u32).to_be_bytes());
                    sample.body = body;
                }
                sample.format = format;
                return;
            }
            6 if at < records.len() && records[at].body.len() > 16 => {
                // The sampled header alone: its own length must follow.
                let mut header = records[at].body.split_off(16);
                self.bytes(&mut header);
                records[at].body[12..16].copy_from_slice(&(header.len() as u32).to_be_bytes());
                records[at].body.extend_from_slice(&header);
            }
            7 if at < records.len() => self.bytes_in_place(&mut records[at].body),
            _ if at < records.len() => self.bytes(&mut records[at].body),
            _ => records.push(self.fresh_record(sample.format % 2 == 1)),
        }
        sample.body.truncate(head_bytes);
        join_records(&records, &mut sample.body);
        sample.body[head_bytes - 4..head_bytes].copy_from_slice(&(records.len() as u32).to_be_bytes());
    }

    fn fresh_sample(&mut self) -> TaggedRecord {
        let format = self.dice.of(&[1, 2, 3, 4]);
        let head_bytes = Mutator::sample_head_bytes(format).unwrap_or(32);
        let mut body = self.dice.bytes(head_bytes);
        body[head_bytes - 4..].copy_from_slice(&[0, 0, 0, 1]);
        join_records(&[self.fresh_record(format % 2 == 1)], &mut body);
        TaggedRecord { format, body }
    }

    fn fresh_record(&mut self, of_flow_sample: bool) -> TaggedRecord {
        if !of_flow_sample {
            let body = self.dice.bytes(88);
            return TaggedRecord { format: 1, body };
        }
        let format = self.dice.of(RECORD_FORMATS);
        let body = match format {
            1 => {
                let header = self.sampled_header();
                let protocol: u32 = self.dice.of(&[1, 1, 1, 11, 12, 13, 7]);
                let length = (header.len() as u32).to_be_bytes();
                let frame: u32 = self.dice.of(&[64, 1518, 9018, 0, u32::MAX]);
                [
                    &protocol.to_be_bytes()[..],
                    &frame.to_be_bytes(),
                    &[0, 0, 0, 4],
                    &length,
                    &header,
                ]
                .concat()
            }
            1002 | 1003 => [vec![0, 0, 0, self.dice.of(&[0, 1, 2, 3])], self.dice.bytes(44)].concat(),
            _ => self.dice.bytes(56),
        };
        TaggedRecord { format, body }
    }

    /// An Ethernet frame with up to three tags, or something near it.
    fn sampled_header(&mut self) -> Vec<u8> {
        let mut header = self.dice.bytes(12);
        for _ in 0..self.dice.below(4) {
            let tag: u16 = self.dice.of(&[0x8100, 0x88a8, 0x9100]);
            header.extend_from_slice(&tag.to_be_bytes());
            header.extend(self.dice.bytes(2));
        }
        let kind: u16 = self.dice.of(&[0x0800, 0x0800, 0x86dd, 0x8847, 0x8864, 0x0806]);
        header.extend_from_slice(&kind.to_be_bytes());
        let mut ip = self.dice.bytes(64);
        if kind == 0x86dd {
            ip[0] = 0x60;
            ip[6] = self.dice.of(&[0, 6, 17, 43, 44, 47, 50, 51, 58, 60, 135]);
        } else {
            ip[0] = self.dice.of(&[0x45, 0x45, 0x46, 0x4f]);
            ip[6..8].copy_from_slice(&[0, self.dice.of(&[0, 0, 8])]);
            ip[9] = self.dice.of(&[1, 6, 17, 47, 50]);
        }
        header.extend_from_slice(&ip);
        header
    }
}

/// Information elements that the decoder knows, with their usual lengths.
#[rustfmt::skip]
const ELEMENTS: &[(u16, u16)] = &[
    (1, 8), (1, 4), (85, 8), (23, 8), (171, 8), (231, 8), (2, 8), (86, 4), (24, 8), (172, 8), (298, 8), (4, 1), (5, 1), (6, 1),
    (6, 2), (7, 2), (180, 2), (182, 2), (11, 2), (181, 2), (183, 2), (8, 4), (27, 16), (12, 4), (28, 16), (9, 1), (29, 1),
    (13, 1), (30, 1), (10, 4), (252, 4), (14, 4), (253, 4), (15, 4), (62, 16), (18, 4), (63, 16), (16, 4), (17, 4), (152, 8),
    (154, 8), (156, 8), (22, 4), (150, 4), (158, 4), (153, 8), (155, 8), (157, 8), (21, 4), (151, 4), (159, 4), (161, 4),
    (162, 4), (32, 2), (139, 2), (176, 1), (178, 1), (177, 1), (179, 1), (58, 2), (243, 2), (59, 2), (254, 2), (61, 1),
    (89, 4), (89, 1), (34, 4), (50, 4), (305, 4), (306, 4), (309, 4), (310, 4), (311, 4), (311, 8), (302, 8), (48, 1),
    (160, 8), (82, 65535), (312, 2), (313, 40), (315, 65535), (137, 4), (210, 6),
];

/// Elements that options data speaks of.
#[rustfmt::skip]
const OPTIONS_ELEMENTS: &[(u16, u16)] = &[
    (34, 4), (50, 4), (305, 4), (306, 4), (309, 4), (310, 4), (311, 8), (302, 8), (48, 1), (160, 8), (10, 4), (14, 4), (144, 4),
    (149, 4), (35, 1), (36, 2), (37, 2), (82, 32),
];

const RECORD_FORMATS: &[u32] = &[1, 1, 1, 2, 3, 4, 1001, 1002, 1003, 1004, 1031];

#[derive(Clone, Debug)]
struct Set {
    id: u16,
    body: Vec<u8>,
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?)))
}

/// The sets behind a header; what is no whole set becomes the body of the last.
fn split_sets(mut rest: &[u8]) -> Vec<Set> {
    let mut sets = Vec::new();
    while let (Some(id), Some(length)) = (be16(rest, 0), be16(rest, 2)) {
        let end = length.clamp(4, rest.len());
        sets.push(Set {
            id: id as u16,
            body: rest[4..end].to_vec(),
        });
        rest = &rest[end..];
    }
    sets
}

#[derive(Clone, Debug)]
struct KnownTemplate {
    id: u16,
    lengths: Vec<u16>,
}

/// The templates that a datagram defines, as far as they can be read.
fn known_templates(packet: &Packet, header_bytes: usize, is_ipfix: bool) -> Vec<KnownTemplate> {
    let mut known = Vec::new();
    for set in split_sets(packet.payload.get(header_bytes..).unwrap_or_default()) {
        let is_options = match (is_ipfix, set.id) {
            (false, 0) | (true, 2) => false,
            (false, 1) | (true, 3) => true,
            _ => continue,
        };
        let mut at = 0;
        while let (Some(id), Some(first)) = (be16(&set.body, at), be16(&set.body, at + 2)) {
            at += 4;
            let mut count = first;
            if is_options {
                let Some(second) = be16(&set.body, at) else { break };
                at += 2;
                if !is_ipfix {
                    count = first / 4 + second / 4;
                }
            }
            let mut lengths = Vec::new();
            for _ in 0..count {
                let (Some(element), Some(length)) = (be16(&set.body, at), be16(&set.body, at + 2)) else {
                    break;
                };
                at += if is_ipfix && element & 0x8000 != 0 { 8 } else { 4 };
                lengths.push(length as u16);
            }
            if id < 256 || lengths.is_empty() {
                break;
            }
            known.push(KnownTemplate { id: id as u16, lengths });
        }
    }
    known
}

/// A sample of a datagram or a record of a sample.
#[derive(Clone, Debug)]
struct TaggedRecord {
    format: u32,
    body: Vec<u8>,
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn split_records(mut rest: &[u8]) -> Vec<TaggedRecord> {
    let mut records = Vec::new();
    while let (Some(format), Some(length)) = (be32(rest, 0), be32(rest, 4)) {
        let end = 8 + (length as usize).min(rest.len() - 8);
        records.push(TaggedRecord {
            format,
            body: rest[8..end].to_vec(),
        });
        rest = rest.get(end.next_multiple_of(4)..).unwrap_or_default();
    }
    records
}

fn join_records(records: &[TaggedRecord], out: &mut Vec<u8>) {
    for record in records {
        out.extend_from_slice(&record.format.to_be_bytes());
        out.extend_from_slice(&(record.body.len() as u32).to_be_bytes());
        out.extend_from_slice(&record.body);
        let padding = record.body.len().wrapping_neg() % 4;
        out.extend(std::iter::repeat_n(0, padding));
    }
}
