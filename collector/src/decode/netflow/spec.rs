//! Templates as exporters describe them, read from template sets (RFC 3954 §5.2 and §6.1, RFC 7011 §3.4).

use serde::{Deserialize, Serialize};

use super::wire::{be16, be32};

/// Length of a field that carries its length in front of it (IPFIX).
pub(super) const VARIABLE_LENGTH: u16 = 65535;
/// The bit of an IPFIX field specifier that says an enterprise number follows.
const ENTERPRISE_BIT: u16 = 0x8000;
/// Templates of data sets have ids from here on; lower ids are reserved for kinds of sets.
pub(super) const FIRST_TEMPLATE_ID: u16 = 256;

/// One field of a template as the exporter described it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FieldSpec {
    /// Information element (v9: field type; in a v9 options scope: scope type).
    pub(super) element: u16,
    /// Bytes, or [`VARIABLE_LENGTH`].
    pub(super) length: u16,
    /// Private enterprise number, 0 for IANA's elements.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) enterprise: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a template's records are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateKind {
    Data,
    Options,
}

/// A template as the exporter described it, without its id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct TemplateSpec {
    pub(super) kind: TemplateKind,
    /// How many fields at the front are scopes.
    pub(super) scope_fields: u16,
    /// Of version 9: scope fields carry scope types, not elements.
    pub(super) is_v9: bool,
    pub(super) fields: Vec<FieldSpec>,
}

/// One template record of a template set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TemplateRecord {
    Define {
        id: u16,
        spec: TemplateSpec,
    },
    /// IPFIX only; the ids 2 and 3 mean all templates of that kind.
    Withdraw {
        id: u16,
    },
    /// Not to be used; `id` where the record was understood.
    Reject {
        id: Option<u16>,
    },
}

/// Reads the template records of one set. Answers `None` at its end or padding; a record that is cut off is a [`TemplateRecord::Reject`]
/// and ends the set.
#[derive(Debug)]
pub(super) struct TemplateReader<'a> {
    body: &'a [u8],
    kind: TemplateKind,
    is_ipfix: bool,
    max_fields: usize,
}

impl<'a> TemplateReader<'a> {
    pub(super) fn new(body: &'a [u8], kind: TemplateKind, is_ipfix: bool, max_fields: usize) -> TemplateReader<'a> {
        TemplateReader {
            body,
            kind,
            is_ipfix,
            max_fields,
        }
    }

    fn take16(&mut self) -> Option<u16> {
        let value = be16(self.body, 0)?;
        self.body = &self.body[2..];
        Some(value)
    }

    /// The field count and how many of them are scopes; `Some(None)` is a withdrawal.
    fn counts(&mut self) -> Option<Option<(usize, usize)>> {
        let first = usize::from(self.take16()?);
        if self.kind == TemplateKind::Data {
            return Some(if first == 0 && self.is_ipfix {
                None
            } else {
                Some((first, 0))
            });
        }
        if self.is_ipfix {
            if first == 0 {
                return Some(None);
            }
            return Some(Some((first, usize::from(self.take16()?))));
        }
        // v9 gives both as bytes of field specifiers.
        let (scope_bytes, option_bytes) = (first, usize::from(self.take16()?));
        if !scope_bytes.is_multiple_of(4) || !option_bytes.is_multiple_of(4) {
            return None;
        }
        Some(Some(((scope_bytes / 4) + (option_bytes / 4), scope_bytes / 4)))
    }

    fn fields(&mut self, count: usize) -> Option<Vec<FieldSpec>> {
        let mut fields = Vec::with_capacity(count.min(self.max_fields));
        for _ in 0..count {
            let mut element = self.take16()?;
            let length = self.take16()?;
            let mut enterprise = 0;
            if self.is_ipfix && element & ENTERPRISE_BIT != 0 {
                element &= !ENTERPRISE_BIT;
                enterprise = be32(self.body, 0)?;
                self.body = &self.body[4..];
            }
            if fields.len() < self.max_fields {
                fields.push(FieldSpec {
                    element,
                    length,
                    enterprise,
                });
            }
        }
        Some(fields)
    }

    fn record(&mut self) -> Option<TemplateRecord> {
        let id = self.take16()?;
        let Some((count, scopes)) = self.counts()? else {
            return Some(TemplateRecord::Withdraw { id });
        };
        let fields = self.fields(count)?;
        let usable = id >= FIRST_TEMPLATE_ID && count > 0 && count <= self.max_fields && scopes <= count;
        if !usable {
            return Some(TemplateRecord::Reject { id: Some(id) });
        }
        let spec = TemplateSpec {
            kind: self.kind,
            scope_fields: u16::try_from(scopes).ok()?,
            is_v9: !self.is_ipfix,
            fields,
        };
        Some(TemplateRecord::Define { id, spec })
    }
}

impl Iterator for TemplateReader<'_> {
    type Item = TemplateRecord;

    fn next(&mut self) -> Option<TemplateRecord> {
        if self.body.len() < 4 {
            return None;
        }
        if self.body[..2] == [0, 0] {
            // Padding, unless something follows; looked at once, since a set may be full of zeros.
            let is_padding = self.body.iter().all(|byte| *byte == 0);
            self.body = &[];
            return if is_padding {
                None
            } else {
                Some(TemplateRecord::Reject { id: None })
            };
        }
        let record = self.record();
        if record.is_none() {
            self.body = &[];
        }
        Some(record.unwrap_or(TemplateRecord::Reject { id: None }))
    }
}
