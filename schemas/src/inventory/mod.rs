//! Who and what is metered: customers, their services, and the targets assigned to each service over time.
//!
//! Writes take the caller's connection, so that a caller can batch any number of them into one transaction; reads of one
//! statement take any executor. Two promises hold here:
//!
//! * One target has one service at one time. An assignment that would overlap another is refused inside the transaction
//!   that writes it, and the refusal names the service that holds the target.
//! * An assignment that changes the past leaves a row in `attribution_changes`, so that stored flows are attributed anew
//!   and the windows they touch are recomputed (U1).

mod assigned;
mod corrections;
mod customer;
mod entity;
mod service;

pub use assigned::{
    AssignmentRow, AttributionChange, NewAssignment, assign, assign_all, assignments, assignments_of,
    assignments_revision, end_assignment, load_assignments, mark_attribution_change_applied,
    pending_attribution_changes, prefix_length_min,
};
pub use corrections::{
    CORRECTIONS_PER_EXPORTER_MAX, CorrectionRow, MAX_CORRECTION_REASON_CHARS, add_correction, corrections,
    mark_correction_applied, pending_corrections,
};
pub use customer::{
    BillingProfile, Customer, NewCustomer, active_customer, change_billing_profile, change_email, create_customer,
    customer, customer_by_email, customer_deleted_at_ms, customers, customers_between, mark_customer_deleted,
    zone_named,
};
pub use entity::{Entity, EntityProfile, FIRST_ENTITY, change_entity, create_entity, entities, entity};
pub use service::{
    NewService, Service, ServiceStatus, create_service, hand_over, service, services, services_of,
    services_subscribed_by,
};

use ipnet::IpNet;

use crate::address::Address;
use crate::assignment::Target;
use crate::ids::{AssignmentId, CustomerId, EntityId, ServiceId};
use crate::metering::correction::CorrectionError;
use crate::money::MoneyError;
use crate::percent::PercentError;
use crate::text::is_plain_text;
use crate::window::instant_text;

/// Characters in a name at most.
pub const MAX_NAME_CHARS: usize = 120;
/// Characters in an email address at most (RFC 5321 §4.5.3.1.3, without the angle brackets).
pub const MAX_EMAIL_CHARS: usize = 254;
/// Characters in the name of a site or service type at most.
pub const MAX_LABEL_CHARS: usize = 40;

/// Characters in a line of an address or a reference at most.
pub const MAX_PROFILE_CHARS: usize = 200;

/// Why the inventory could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("a {field} has between 1 and {max} characters and no control characters or invisible ones, not {text:?}")]
    Text {
        field: &'static str,
        max: usize,
        text: String,
    },
    #[error("an email address looks like name@example.net, not {0:?}")]
    Email(String),
    #[error("the email address {email} belongs to {holder}")]
    EmailTaken { email: String, holder: CustomerId },
    #[error("a country is two capital letters of ISO 3166-1, such as DE, not {0:?}")]
    Country(String),
    #[error("{0:?} is not a time zone of the IANA database, such as Europe/Berlin or UTC")]
    TimeZone(String),
    #[error("the tax rate {0:?} is not a decimal number")]
    TaxRate(String),
    #[error("the tax rate is out of range")]
    TaxRange(#[from] PercentError),
    #[error("the currency is not understood")]
    Currency(#[from] MoneyError),
    #[error("no entity {0}")]
    NoEntity(EntityId),
    #[error("a prefix of invoice numbers has at most 10 capital letters and digits, not {0:?}")]
    NumberPrefix(String),
    #[error("the prefix {prefix:?} of invoice numbers is that of {holder}")]
    NumberPrefixTaken { prefix: String, holder: EntityId },
    #[error(transparent)]
    VatId(#[from] crate::vat_number::VatNumberError),
    #[error("no customer {0}")]
    NoCustomer(CustomerId),
    #[error("the account of {customer} was deleted on {}", instant_text(*at_ms))]
    Deleted { customer: CustomerId, at_ms: i64 },
    #[error("no service {0}")]
    NoService(ServiceId),
    #[error("{0} is archived")]
    Archived(ServiceId),
    #[error("no assignment {0}")]
    NoAssignment(AssignmentId),
    #[error("the assignment would end ({}) before it starts ({})", instant_text(*to_ms), instant_text(*from_ms))]
    EndsBeforeStart { from_ms: i64, to_ms: i64 },
    #[error("{assignment} already ends at {}, before {}", instant_text(*ends_ms), instant_text(*asked_ms))]
    AlreadyEnded {
        assignment: AssignmentId,
        ends_ms: i64,
        asked_ms: i64,
    },
    #[error("{net} is too wide for one service, the widest is a /{min_bits}: give the prefixes that are its own")]
    WidePrefix { net: IpNet, min_bits: u8 },
    #[error("{target} already belongs to {holder} ({holder_name}) from {} on", instant_text(*from_ms))]
    Overlap {
        target: Target,
        holder: ServiceId,
        holder_name: String,
        from_ms: i64,
    },
    #[error("the correction cannot be made")]
    Correction(#[from] CorrectionError),
    #[error("{exporter} has {max} corrections already, as many as are kept for one exporter")]
    TooManyCorrections { exporter: Address, max: i64 },
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

crate::error_codes! {
    InventoryError: "inventory";
    of [Database, TaxRange, Currency, VatId, Correction]
    source []
    NotFound:
        NoEntity = "no_entity", NoCustomer = "no_customer", NoService = "no_service", NoAssignment = "no_assignment";
    Refused:
        Text = "text", Email = "email", Country = "country", TimeZone = "time_zone", TaxRate = "tax_rate",
        NumberPrefix = "number_prefix", WidePrefix = "wide_prefix", EndsBeforeStart = "ends_before_start";
    Conflict:
        EmailTaken = "email_taken", NumberPrefixTaken = "number_prefix_taken", Archived = "archived", Deleted = "deleted",
        AlreadyEnded = "already_ended", Overlap = "overlap";
    Limit: TooManyCorrections = "too_many_corrections";
    Fault: Corrupt = "corrupt";
}

/// Trims a text people typed and checks its length.
fn checked_text(field: &'static str, text: &str, max: usize) -> Result<String, InventoryError> {
    let trimmed = text.trim();
    let chars = trimmed.chars().count();
    if chars == 0 || chars > max || !is_plain_text(trimmed) {
        return Err(InventoryError::Text {
            field,
            max,
            text: text.to_owned(),
        });
    }
    Ok(trimmed.to_owned())
}

/// As [`checked_text`], of a text that may be empty.
fn checked_optional(field: &'static str, text: &str, max: usize) -> Result<String, InventoryError> {
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    checked_text(field, text, max)
}

/// A country by its two capital letters, which must be those of one.
fn country_named(text: &str) -> Result<String, InventoryError> {
    let country = text.trim();
    if !crate::iso::is_country(country) {
        return Err(InventoryError::Country(text.to_owned()));
    }
    Ok(country.to_owned())
}

#[cfg(test)]
mod tests;
