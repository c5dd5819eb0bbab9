//! What Junos says of a sampled packet that its forwarding engine threw away.
//!
//! Inline monitoring repeats IE 137 of enterprise 2636, a *common property*, several times in a record, each of 2 or 4 bytes:
//!
//! ```text
//!  0                   1
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 …
//! +-----------+---------------------
//! | property  | value
//! +-----------+---------------------
//! ```
//!
//! Property 2 is the forwarding exception: 0 where there was none, else the reason why the packet was not forwarded
//! (`cpid-forwarding-exception-code`, Junos *primary-data-record-fields*; the numbers as Wireshark reads them).

use super::spec::{TemplateKind, TemplateSpec, VARIABLE_LENGTH};

const JUNIPER: u32 = 2636;
const COMMON_PROPERTIES: u16 = 137;
const FORWARDING_EXCEPTION: u8 = 2;
const PROPERTY_BITS: u32 = 6;

/// Where a record's common properties lie: their places in the template and, where no length is variable, their offsets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct CommonProperties {
    fields: Vec<(usize, usize, usize)>,
    is_variable: bool,
}

impl CommonProperties {
    pub(super) fn find(spec: &TemplateSpec) -> CommonProperties {
        let mut found = CommonProperties {
            fields: Vec::new(),
            is_variable: spec.fields.iter().any(|field| field.length == VARIABLE_LENGTH),
        };
        if spec.kind != TemplateKind::Data {
            return found;
        }
        let mut offset = 0;
        for (index, field) in spec.fields.iter().enumerate() {
            let length = usize::from(field.length);
            if (field.enterprise, field.element) == (JUNIPER, COMMON_PROPERTIES) {
                found.fields.push((index, offset, length));
            }
            offset += length;
        }
        found
    }

    /// Whether records have any.
    pub(super) fn is_there(&self) -> bool {
        !self.fields.is_empty()
    }

    /// Whether the packet of a record met a forwarding exception. `spans` are those of this record where lengths are variable.
    pub(super) fn is_forwarding_exception(&self, record: &[u8], spans: &[(u32, u32)]) -> bool {
        self.fields.iter().any(|(index, offset, length)| {
            let (start, end) = if self.is_variable {
                let span = spans.get(*index).copied().unwrap_or_default();
                (span.0 as usize, span.1 as usize)
            } else {
                (*offset, offset + length)
            };
            is_exception(record.get(start..end).unwrap_or_default())
        })
    }
}

fn is_exception(property: &[u8]) -> bool {
    let Some((first, rest)) = property.split_first() else {
        return false;
    };
    let value_bits = u8::BITS - PROPERTY_BITS;
    let has_value = first & ((1 << value_bits) - 1) != 0 || rest.iter().any(|byte| *byte != 0);
    first >> value_bits == FORWARDING_EXCEPTION && has_value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exception_with_a_reason_is_one() {
        assert!(is_exception(&[0x08, 0x11]), "property 2, reason 17");
        assert!(is_exception(&[0x09, 0x00]), "reason 256");
        assert!(is_exception(&[0x08, 0, 0, 0x42]));
        assert!(!is_exception(&[0x08, 0]), "no exception");
        assert!(!is_exception(&[0x04, 0x11]), "property 1 is the forwarding class");
        assert!(
            !is_exception(&[0x18, 0, 2, 0x41]),
            "property 6 is the ingress interface"
        );
        assert!(!is_exception(&[]));
    }
}
