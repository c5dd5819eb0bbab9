//! Names of interfaces in options data: IE 82 (interfaceName) and 83 (interfaceDescription) beside the interface that they name,
//! as IOS, IOS XR, EOS and Junos send them.
//!
//! They are no part of any flow: losing some in a crash loses nothing that the next options do not bring again.

use schemas::address::Address;
use schemas::interfaces::KnownInterface;

use super::spec::{TemplateKind, TemplateSpec, VARIABLE_LENGTH};
use super::wire::unsigned;

const INGRESS_INTERFACE: u16 = 10;
const EGRESS_INTERFACE: u16 = 14;
const INTERFACE_NAME: u16 = 82;
const INTERFACE_DESCRIPTION: u16 = 83;
/// Scope type of v9 (RFC 3954 §6.1).
const V9_SCOPE_INTERFACE: u16 = 2;

/// What options data said of one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnouncedInterface {
    pub exporter: Address,
    pub if_index: u32,
    pub interface: KnownInterface,
}

/// Where a field lies: by its place in the template, and by its offset where no length is variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FieldAt {
    index: usize,
    offset: usize,
    length: usize,
}

/// The fields of an options template that name an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InterfaceNames {
    interface: FieldAt,
    name: Option<FieldAt>,
    description: Option<FieldAt>,
    is_variable: bool,
}

impl InterfaceNames {
    /// Those fields; `None` where the template names nothing, or no interface.
    pub(super) fn find(spec: &TemplateSpec) -> Option<InterfaceNames> {
        if spec.kind != TemplateKind::Options {
            return None;
        }
        let is_variable = spec.fields.iter().any(|field| field.length == VARIABLE_LENGTH);
        let (mut interface, mut name, mut description, mut offset) = (None, None, None, 0_usize);
        for (index, field) in spec.fields.iter().enumerate() {
            let length = usize::from(field.length);
            let at = Some(FieldAt { index, offset, length });
            let is_v9_scope = spec.is_v9 && index < usize::from(spec.scope_fields);
            match (is_v9_scope, field.enterprise, field.element) {
                (true, 0, V9_SCOPE_INTERFACE) | (false, 0, INGRESS_INTERFACE | EGRESS_INTERFACE) => {
                    interface = interface.or(at);
                }
                (false, 0, INTERFACE_NAME) => name = name.or(at),
                (false, 0, INTERFACE_DESCRIPTION) => description = description.or(at),
                _ => {}
            }
            offset += length;
        }
        if name.is_none() && description.is_none() {
            return None;
        }
        Some(InterfaceNames {
            interface: interface?,
            name,
            description,
            is_variable,
        })
    }

    /// What a record says; `None` where it names interface 0. `spans` are those of this record where lengths are variable.
    pub(super) fn read(self, record: &[u8], spans: &[(u32, u32)]) -> Option<(u32, KnownInterface)> {
        let if_index = u32::try_from(unsigned(self.field(self.interface, record, spans))).ok()?;
        let text = |at: Option<FieldAt>| {
            at.map(|at| KnownInterface::text(self.field(at, record, spans)))
                .unwrap_or_default()
        };
        let interface = KnownInterface {
            name: text(self.name),
            description: text(self.description),
            ..KnownInterface::default()
        };
        let says_something = !interface.name.is_empty() || !interface.description.is_empty();
        (if_index != 0 && says_something).then_some((if_index, interface))
    }

    fn field<'a>(self, at: FieldAt, record: &'a [u8], spans: &[(u32, u32)]) -> &'a [u8] {
        let (start, end) = if self.is_variable {
            spans
                .get(at.index)
                .map_or((0, 0), |(start, end)| (*start as usize, *end as usize))
        } else {
            (at.offset, at.offset + at.length)
        };
        record.get(start..end).unwrap_or_default()
    }
}
