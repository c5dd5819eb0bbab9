//! Template records, and the data records that they lay out: fields by element, the plain way.

use collector::sampling::{SamplingElements, Selector};
use schemas::address::Address;
use tables::flow::DIRECTION_UNKNOWN;

use super::{Field, Template, VARIABLE_LENGTH, be16, be32, number};

/// Elements that speak of one column, best first; those of one rank are alike.
pub(super) type Ranks<'a> = &'a [&'a [u16]];

/// One record: its fields with their values, those of no length and of enterprises left out, but for reverse ones (RFC 5103).
pub(super) struct Values<'a> {
    fields: Vec<Value<'a>>,
    /// All fields that have a length.
    all: Vec<Told<'a>>,
    pub(super) has_packet_section: bool,
}

#[derive(Clone, Copy)]
struct Value<'a> {
    element: u16,
    is_scope: bool,
    is_reverse: bool,
    bytes: &'a [u8],
}

/// A field of options data with what its template says of it.
#[derive(Clone, Copy)]
struct Told<'a> {
    element: u16,
    enterprise: u32,
    is_scope: bool,
    place: u16,
    bytes: &'a [u8],
}

impl Told<'_> {
    /// Narrows what a record of options data holds for, in a way that nobody understands.
    fn is_not_understood(&self, is_v9: bool) -> bool {
        const BESIDE: [u16; 11] = [58, 59, 138, 141, 142, 234, 235, 236, 243, 254, 301];
        const UNDERSTOOD: [u16; 20] = [
            10, 14, 252, 253, 61, 145, 149, 82, 83, 34, 50, 305, 306, 309, 310, 311, 302, 48, 160, 36,
        ];
        const OF_THE_DOMAIN: [u16; 9] = [130, 131, 211, 212, 143, 144, 403, 404, 405];
        match (self.is_scope, is_v9) {
            (true, true) => ![1, 2, 5].contains(&self.element),
            (true, false) => {
                self.enterprise != 0 || !(UNDERSTOOD.contains(&self.element) || OF_THE_DOMAIN.contains(&self.element))
            }
            (false, _) => self.enterprise == 0 && BESIDE.contains(&self.element),
        }
    }

    /// The name of an interface.
    fn is_name(&self, is_v9: bool) -> bool {
        self.enterprise == 0 && [82, 83].contains(&self.element) && !(is_v9 && self.is_scope)
    }
}

impl<'a> Values<'a> {
    /// The fields of these elements, in the record's order. A scope of v9 is none: its types are no elements.
    pub(super) fn of(&self, elements: &[u16]) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(|value| !value.is_scope && !value.is_reverse && elements.contains(&value.element))
            .map(|value| value.bytes)
    }

    /// Of the answering direction: the first value that is not 0 of the best of (is reverse, element) that the record has.
    pub(super) fn answer(&self, ranks: &[(bool, u16)]) -> Option<u64> {
        let of = |(is_reverse, element): (bool, u16)| {
            self.fields
                .iter()
                .filter(move |value| !value.is_scope && (value.is_reverse, value.element) == (is_reverse, element))
                .map(|value| number(value.bytes))
        };
        let best = ranks.iter().find(|rank| of(**rank).next().is_some())?;
        Some(of(*best).find(|value| *value != 0).unwrap_or(0))
    }

    pub(super) fn has(&self, ranks: Ranks<'_>) -> bool {
        ranks.iter().any(|elements| self.of(elements).next().is_some())
    }

    /// The first value that is not 0 among the best elements that the record has.
    pub(super) fn number(&self, ranks: Ranks<'_>) -> u64 {
        let best = ranks.iter().find(|elements| self.of(elements).next().is_some());
        best.map_or(0, |elements| self.number_by_value(&[elements]))
    }

    /// As [`Values::number`], of what a column of so many bits keeps of a value.
    pub(super) fn kept(&self, ranks: Ranks<'_>, bits: u32) -> u64 {
        let best = ranks.iter().find(|elements| self.of(elements).next().is_some());
        best.map_or(0, |elements| self.first(&[elements], bits))
    }

    /// As [`Values::number_by_value`], of what a column of so many bits keeps of a value.
    pub(super) fn first(&self, ranks: Ranks<'_>, bits: u32) -> u64 {
        ranks
            .iter()
            .flat_map(|elements| self.of(elements))
            .map(|field| number(field) & ((1 << bits) - 1))
            .find(|value| *value != 0)
            .unwrap_or(0)
    }

    /// The VLAN of one side; of the other side where the record has no element of this one.
    pub(super) fn vlan(&self, side: Ranks<'_>, other: Ranks<'_>) -> u16 {
        self.first(if self.has(side) { side } else { other }, 12) as u16
    }

    /// The first value that is not 0, best elements first.
    pub(super) fn number_by_value(&self, ranks: Ranks<'_>) -> u64 {
        ranks
            .iter()
            .flat_map(|elements| self.of(elements))
            .map(number)
            .find(|value| *value != 0)
            .unwrap_or(0)
    }

    /// The last address that is not zero, of the innermost header; else the first field's, which may be the zero of either
    /// family.
    pub(super) fn address(&self, elements: &[u16]) -> Address {
        let mut fields: Vec<&[u8]> = self.of(elements).collect();
        fields.reverse();
        let found = fields
            .iter()
            .find_map(|field| address(field).filter(|_| field.iter().any(|byte| *byte != 0)));
        found
            .or_else(|| address(fields.last()?))
            .unwrap_or(Address::UNSPECIFIED)
    }

    pub(super) fn next_hop(&self) -> Address {
        let ranks: Ranks<'_> = &[&[15, 62], &[18, 63]];
        let best = ranks.iter().find(|elements| self.of(elements).next().is_some());
        let found = best.and_then(|elements| {
            self.of(elements)
                .filter(|field| field.iter().any(|byte| *byte != 0))
                .find_map(address)
        });
        found.unwrap_or(Address::UNSPECIFIED)
    }

    pub(super) fn sampler(&self) -> u64 {
        self.number_by_value(&[&[302], &[48]])
    }

    pub(super) fn sampling(&self) -> SamplingElements {
        let probability = |field: &[u8]| match *field {
            [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => 0.0,
        };
        SamplingElements {
            interval: self.number(&[&[34]]),
            random_interval: self.number(&[&[50]]),
            packet_interval: self.number(&[&[305]]),
            packet_space: self.has(&[&[306]]).then(|| self.number(&[&[306]])),
            size: self.number(&[&[309]]),
            population: self.number(&[&[310]]),
            // Repeated: the first field, as it is.
            probability: self.of(&[311]).map(probability).next().unwrap_or(0.0),
        }
    }

    /// A common property of Juniper says that the packet met a forwarding exception: six bits are 2, and the value after them is not 0.
    pub(super) fn met_exception(&self) -> bool {
        let mut properties = self
            .all
            .iter()
            .filter(|value| (value.enterprise, value.element) == (2_636, 137));
        properties.any(|property| match property.bytes {
            [first, rest @ ..] => first >> 2 == 2 && (first & 3 != 0 || rest.iter().any(|byte| *byte != 0)),
            [] => false,
        })
    }

    /// Octets of both directions in elements of Procera; `None` where the first is missing.
    pub(super) fn procera(&self) -> Option<u64> {
        let of = |element| {
            let fields = self
                .all
                .iter()
                .filter(|value| (value.enterprise, value.element) == (15_397, element));
            let numbers: Vec<u64> = fields.map(|value| number(value.bytes)).collect();
            (!numbers.is_empty()).then(|| {
                (
                    numbers.iter().copied().find(|value| *value != 0),
                    numbers.iter().fold(0_u64, |sum, value| sum.saturating_add(*value)),
                )
            })
        };
        let incoming = of(3)?.0.unwrap_or(0);
        Some(incoming.saturating_add(of(4).map_or(0, |(_, sum)| sum)))
    }

    /// The observation domain that options data names, in its scopes or beside them.
    pub(super) fn named_domain(&self, is_v9: bool) -> Option<u32> {
        let named = self
            .all
            .iter()
            .filter(|value| value.enterprise == 0 && value.element == 149 && !(is_v9 && value.is_scope));
        let numbers: Vec<u64> = named.map(|value| number(value.bytes)).collect();
        let first = numbers.iter().find(|value| **value != 0).or(numbers.first())?;
        u32::try_from(*first).ok()
    }

    /// What options data holds for: what it names, in its scopes and beside them.
    pub(super) fn selector(&self, is_v9: bool) -> Selector {
        let sought = |of_scope: &[u16], of_element: &[u16]| {
            let named = self.all.iter().filter(|value| {
                let sought = if is_v9 && value.is_scope { of_scope } else { of_element };
                value.enterprise == 0 && sought.contains(&value.element)
            });
            let mut numbers = named.map(|value| number(value.bytes));
            numbers.find(|value| *value != 0).unwrap_or(0)
        };
        // A value that no direction has is any; of several fields the last that is not 0 counts, as of the first.
        let direction = self
            .all
            .iter()
            .filter(|value| value.enterprise == 0 && value.element == 61 && !(is_v9 && value.is_scope));
        let directions: Vec<u64> = direction.map(|value| number(value.bytes)).collect();
        let direction = match directions.iter().copied().find(|value| *value != 0) {
            Some(1) => 1,
            Some(_) => DIRECTION_UNKNOWN,
            None if directions.is_empty() => DIRECTION_UNKNOWN,
            None => 0,
        };
        let fingerprint = |is_sought: &dyn Fn(&Told<'_>) -> bool| {
            let mut print = 0_u64;
            for value in self.all.iter().rev().filter(|value| is_sought(value)) {
                let mut hash = print ^ 0xcbf2_9ce4_8422_2325;
                for byte in value.place.to_be_bytes().iter().chain(value.bytes) {
                    hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                }
                print = hash.max(1);
            }
            print
        };
        let other = Selector::other_of(
            fingerprint(&|value| value.is_not_understood(is_v9)),
            fingerprint(&|value| value.is_name(is_v9)),
        );
        Selector {
            sampler: self.sampler(),
            interface: u32::try_from(sought(&[2], &[10, 14, 252, 253])).unwrap_or(0),
            direction,
            template: u16::try_from(sought(&[5], &[145])).unwrap_or(0),
            other,
        }
    }
}

pub(super) fn address(field: &[u8]) -> Option<Address> {
    match field.len() {
        4 => Some(Address::from_v4(*field.first_chunk()?)),
        16 => Some(Address(*field.first_chunk()?)),
        _ => None,
    }
}

impl Template {
    pub(super) fn record_min_bytes(&self) -> usize {
        let lengths = self.fields.iter().map(|field| match field.length {
            VARIABLE_LENGTH => 1,
            length => usize::from(length),
        });
        lengths.sum()
    }

    /// One record from the front of `bytes`, and what is behind it.
    pub(super) fn read<'a>(&self, bytes: &'a [u8], is_v9: bool) -> Option<(Values<'a>, &'a [u8])> {
        let mut rest = bytes;
        let mut values = Vec::new();
        let mut all = Vec::new();
        for (index, field) in self.fields.iter().enumerate() {
            let mut length = usize::from(field.length);
            if field.length == VARIABLE_LENGTH {
                length = usize::from(*rest.first()?);
                rest = &rest[1..];
                if length == 255 {
                    length = usize::from(be16(rest, 0)?);
                    rest = &rest[2..];
                }
            }
            let (bytes, behind) = rest.split_at_checked(length)?;
            rest = behind;
            if field.length > 0 {
                all.push(Told {
                    element: field.element,
                    enterprise: field.enterprise,
                    is_scope: index < self.scopes,
                    place: index as u16,
                    bytes,
                });
            }
            let is_interface = matches!((is_v9, field.element), (true, _) | (false, 10 | 14));
            const REVERSE: u32 = 29305;
            let is_reverse = field.enterprise == REVERSE;
            if (field.enterprise == 0 || is_reverse) && field.length > 0 {
                values.push(Value {
                    is_reverse,
                    element: field.element,
                    is_scope: index < self.scopes && is_interface,
                    bytes,
                });
            }
        }
        let section = |field: &Field| field.enterprise == 0 && [104, 313, 315].contains(&field.element);
        let values = Values {
            fields: values,
            all,
            has_packet_section: self.fields.iter().any(section),
        };
        Some((values, rest))
    }
}

/// One record of a template set: its id, the template (`None`: a withdrawal), and what is behind it. `None` when it is cut off.
pub(super) fn template_record(set: &[u8], is_v9: bool, is_options: bool) -> Option<(u16, Option<Template>, &[u8])> {
    let id = be16(set, 0)?;
    let first = usize::from(be16(set, 2)?);
    let mut at = 4;
    if !is_v9 && first == 0 {
        return Some((id, None, &set[at..]));
    }
    let (mut count, mut scopes) = (first, 0);
    if is_options {
        let second = usize::from(be16(set, at)?);
        at += 2;
        if is_v9 {
            if first % 4 != 0 || second % 4 != 0 {
                return None;
            }
            (count, scopes) = (first / 4 + second / 4, first / 4);
        } else {
            scopes = second;
        }
    }
    let mut fields = Vec::new();
    for _ in 0..count {
        let mut field = Field {
            element: be16(set, at)?,
            length: be16(set, at + 2)?,
            enterprise: 0,
        };
        at += 4;
        if !is_v9 && field.element & 0x8000 != 0 {
            field.element &= 0x7fff;
            field.enterprise = be32(set, at)?;
            at += 4;
        }
        fields.push(field);
    }
    let template = Template {
        is_options,
        scopes,
        fields,
    };
    Some((id, Some(template), &set[at..]))
}
