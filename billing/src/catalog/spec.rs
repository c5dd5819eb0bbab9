//! What a service has by its plan: vCPU, RAM, disk, transfer and port, each in one unit, and whatever else is named.
//!
//! | name | value | shown as |
//! |---|---|---|
//! | `vcpu` | number | 4 vCPU |
//! | `ram_gib` | number; `ram_mb` is read as MiB and kept as `ram_gib` | 8 GiB RAM, 512 MiB RAM |
//! | `disk_gb`, `disk_type` | number; text | 160 GB NVMe disk |
//! | `transfer` | text, of plans that do not meter it | unmetered transfer |
//! | `port_mbps` | number | 1 Gbit/s port |
//! | any other name | text | its name and value |
//!
//! They are kept with the plan ([`Attributes`]) and are facts for people: nothing is charged by them. The transfer that a plan
//! includes is part of how it is charged ([`Terms`]), and shown from there.

use rust_decimal::Decimal;
use schemas::ids::PlanId;
use schemas::usage::UsageMode;
use sqlx::AnyConnection;

use super::{Attributes, Badge, MAX_ATTRIBUTE_CHARS, MAX_ATTRIBUTES, MAX_DESCRIPTION_CHARS, Plan, Terms, plan};
use crate::BillingError;
use crate::field::{check_range, checked_text};

/// Virtual processors.
pub(super) const VCPU: &str = "vcpu";
/// Memory, GiB.
pub(super) const RAM_GIB: &str = "ram_gib";
/// Disk, GB (10⁹ bytes, as disks are sold).
pub(super) const DISK_GB: &str = "disk_gb";
/// Kind of disk, such as NVMe.
pub(super) const DISK_TYPE: &str = "disk_type";
/// Transfer in words, where it is not metered.
pub(super) const TRANSFER: &str = "transfer";
/// Speed of the port, Mbit/s.
pub(super) const PORT_MBPS: &str = "port_mbps";
/// As written before; kept as `ram_gib`.
const RAM_MB: &str = "ram_mb";

/// The names that pages have a field for, in the order in which they are shown.
pub const KNOWN: [&str; 6] = [VCPU, RAM_GIB, DISK_GB, DISK_TYPE, TRANSFER, PORT_MBPS];

/// Greatest number in a specification.
const MAX_NUMBER: i64 = 1_000_000_000;
/// Decimal places in a specification at most.
const MAX_PLACES: u32 = 3;

/// One thing that a service has.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Spec {
    /// As in a list of facts: `RAM`.
    pub label: String,
    /// With its unit: `8 GiB`.
    pub value: String,
    /// What follows the value in a sentence: `RAM`, `port`.
    pub noun: String,
}

impl Spec {
    fn new(label: &str, value: String, noun: &str) -> Spec {
        Spec {
            label: label.to_owned(),
            value,
            noun: noun.to_owned(),
        }
    }

    /// `8 GiB RAM`.
    pub fn words(&self) -> String {
        format!("{} {}", self.value, self.noun).trim_end().to_owned()
    }
}

/// Checks specifications and writes numbers one way: `04.50` is `4.5`.
///
/// # Errors
/// When a known one is no number of its kind, there are too many, or a name or value is too long.
pub fn checked_specs(attributes: &Attributes) -> Result<Attributes, BillingError> {
    let count = i64::try_from(attributes.len()).unwrap_or(i64::MAX);
    check_range("number of attributes", count, 0, MAX_ATTRIBUTES)?;
    let mut checked = Attributes::new();
    for (name, value) in attributes {
        let name = checked_text("attribute", name, MAX_ATTRIBUTE_CHARS)?;
        let value = checked_text("attribute", value, MAX_ATTRIBUTE_CHARS)?;
        match name.as_str() {
            VCPU | RAM_GIB | DISK_GB | PORT_MBPS => {
                let number = checked_number(&name, &value)?;
                checked.insert(name, number.normalize().to_string());
            }
            RAM_MB => {
                let gib = checked_number(&name, &value)? / Decimal::from(1024);
                // Of two names for one thing the present one holds.
                checked.entry(RAM_GIB.to_owned()).or_insert(gib.normalize().to_string());
            }
            _ => {
                checked.insert(name, value);
            }
        }
    }
    Ok(checked)
}

fn checked_number(name: &str, value: &str) -> Result<Decimal, BillingError> {
    let wrong = || BillingError::Spec {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let number: Decimal = value.parse().map_err(|_| wrong())?;
    if number <= Decimal::ZERO || number > Decimal::from(MAX_NUMBER) || number.normalize().scale() > MAX_PLACES {
        return Err(wrong());
    }
    Ok(number)
}

impl Plan {
    /// A known number, such as `vcpu`; `None` where the plan has none.
    pub fn spec_number(&self, name: &str) -> Option<Decimal> {
        self.attributes.get(name)?.parse().ok()
    }

    /// What a service has by this plan, in the order in which people look for it.
    pub fn specs(&self) -> Vec<Spec> {
        let text = |name: &str| self.attributes.get(name).map(String::as_str);
        let mut specs = Vec::new();
        if let Some(vcpu) = text(VCPU) {
            specs.push(Spec::new("vCPU", vcpu.to_owned(), "vCPU"));
        }
        let ram_mib = self.spec_number(RAM_MB).or_else(|| {
            let gib = self.spec_number(RAM_GIB)?;
            gib.checked_mul(Decimal::from(1024))
        });
        if let Some(ram) = ram_mib {
            specs.push(Spec::new("RAM", binary(ram), "RAM"));
        } else if let Some(ram) = text(RAM_GIB) {
            specs.push(Spec::new("RAM", ram.to_owned(), "RAM"));
        }
        match (text(DISK_GB), text(DISK_TYPE)) {
            (Some(size), Some(kind)) => specs.push(Spec::new("Disk", format!("{} GB {kind}", grouped(size)), "disk")),
            (Some(size), None) => specs.push(Spec::new("Disk", format!("{} GB", grouped(size)), "disk")),
            (None, Some(kind)) => specs.push(Spec::new("Disk", kind.to_owned(), "disk")),
            (None, None) => {}
        }
        if let Some(transfer) = text(TRANSFER) {
            specs.push(Spec::new("Transfer", transfer.to_owned(), "transfer"));
        }
        if let Some(port) = text(PORT_MBPS) {
            specs.push(Spec::new("Port", rate(port), "port"));
        }
        for (name, value) in &self.attributes {
            if KNOWN.contains(&name.as_str()) || name == RAM_MB {
                continue;
            }
            let label = name.replace('_', " ");
            specs.push(Spec::new(&label, value.clone(), &label));
        }
        specs
    }

    /// What transfer the plan includes, by its terms: `500 GiB a month, in and out`.
    pub fn included_transfer(&self) -> String {
        match &self.terms {
            Terms::Flat => self
                .attributes
                .get(TRANSFER)
                .map_or("not charged", String::as_str)
                .to_owned(),
            Terms::Transfer {
                included_units,
                unit,
                mode,
            } => format!(
                "{} {unit} a month, {}",
                grouped(&included_units.to_string()),
                directions(*mode)
            ),
            Terms::Percentile { commit_mbps, mode } => format!(
                "{} committed, 95th percentile, {}",
                rate(&commit_mbps.normalize().to_string()),
                directions(*mode)
            ),
        }
    }
}

fn directions(mode: UsageMode) -> &'static str {
    match mode {
        UsageMode::Sum => "in and out",
        UsageMode::In => "in",
        UsageMode::Out => "out",
        UsageMode::Max => "the greater of in and out",
    }
}

/// Whole GiB from 1 GiB on, MiB below.
fn binary(mib: Decimal) -> String {
    let gib = mib / Decimal::from(1024);
    if gib >= Decimal::ONE {
        format!("{} GiB", grouped(&gib.normalize().to_string()))
    } else {
        format!("{} MiB", mib.normalize())
    }
}

/// `1 Gbit/s` of a whole thousand Mbit/s, else Mbit/s.
fn rate(rate_mbps: &str) -> String {
    let thousand = Decimal::from(1000);
    match rate_mbps.parse::<Decimal>() {
        Ok(rate) if rate >= thousand && (rate % Decimal::from(100)).is_zero() => {
            format!("{} Gbit/s", (rate / thousand).normalize())
        }
        _ => format!("{rate_mbps} Mbit/s"),
    }
}

/// Whole numbers with commas: `2,000`.
pub(crate) fn grouped(number: &str) -> String {
    if number.len() <= 3 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut out = String::new();
    for (at, digit) in number.chars().enumerate() {
        if at > 0 && (number.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What of a plan can be changed after it was made: what people read of it, never what is charged.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PlanEdit<'a> {
    pub description: Option<&'a str>,
    pub badge: Option<Badge>,
    /// All of them, in place of those before.
    pub specs: Option<Attributes>,
}

/// Changes what people read of a plan, and returns it as it was and as it is.
///
/// # Errors
/// When there is no such plan, or a field is out of range.
pub async fn edit_plan(
    connection: &mut AnyConnection,
    id: PlanId,
    edit: &PlanEdit<'_>,
) -> Result<(Plan, Plan), BillingError> {
    let before = plan(&mut *connection, id).await?;
    let mut after = before.clone();
    if let Some(description) = edit.description {
        after.description = match description.trim() {
            "" => String::new(),
            text => checked_text("description", text, MAX_DESCRIPTION_CHARS)?,
        };
    }
    if let Some(badge) = edit.badge {
        after.badge = badge;
    }
    if let Some(specs) = &edit.specs {
        after.attributes = checked_specs(specs)?;
    }
    refuse_transfer_in_words(&after.terms, &after.attributes)?;
    sqlx::query("UPDATE plans SET description = $2, badge = $3, attributes = $4 WHERE id = $1")
        .bind(id.0)
        .bind(&after.description)
        .bind(after.badge.name())
        .bind(serde_json::to_string(&after.attributes)?)
        .execute(connection)
        .await?;
    Ok((before, after))
}

/// What an edit changed, for the audit log.
pub fn edit_change(before: &Plan, after: &Plan) -> serde_json::Value {
    let told = |plan: &Plan| {
        serde_json::json!({
            "description": plan.description, "badge": plan.badge, "attributes": plan.attributes,
        })
    };
    serde_json::json!({"before": told(before), "after": told(after)})
}

/// Where transfer is metered, what is included is part of the terms: words beside it would say something else one day.
pub(super) fn refuse_transfer_in_words(terms: &Terms, attributes: &Attributes) -> Result<(), BillingError> {
    match attributes.get(TRANSFER) {
        Some(_) if *terms != Terms::Flat => Err(BillingError::TransferIsMetered),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use schemas::percent::Percent;

    use super::*;
    use crate::catalog::{BaseTiming, NewPlan, PlanKind, QuotaUnit, create_plan};
    use crate::testing::World;

    fn plan_with(terms: Terms, attributes: &[(&str, &str)]) -> Plan {
        Plan {
            id: PlanId(1),
            kind: PlanKind::Plan,
            name: "VPS".to_owned(),
            description: String::new(),
            service_type: "vps".to_owned(),
            terms,
            base_timing: BaseTiming::Advance,
            trial_days: 0,
            trial_repeats: false,
            attributes: owned(attributes),
            badge: Badge::None,
            stock: None,
            is_free: false,
            semi_annual_discount: Percent::new(10.into()).unwrap(),
            created_at_ms: 0,
            archived_at_ms: None,
        }
    }

    fn owned(pairs: &[(&str, &str)]) -> Attributes {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn specifications_are_shown_in_one_order_and_in_their_units() {
        let plan = plan_with(
            Terms::Flat,
            &[
                ("port_mbps", "10000"),
                ("gpu_model", "L4"),
                ("disk_type", "NVMe"),
                ("disk_gb", "1600"),
                ("ram_gib", "0.5"),
                ("vcpu", "4"),
                ("transfer", "unmetered"),
            ],
        );
        let words: Vec<String> = plan.specs().iter().map(Spec::words).collect();
        let expected = [
            "4 vCPU",
            "512 MiB RAM",
            "1,600 GB NVMe disk",
            "unmetered transfer",
            "10 Gbit/s port",
            "L4 gpu model",
        ];
        assert_eq!(words, expected);
        // As plans were written before.
        let old = plan_with(Terms::Flat, &[("ram_mb", "2048"), ("port_mbps", "250")]);
        let words: Vec<String> = old.specs().iter().map(Spec::words).collect();
        assert_eq!(words, ["2 GiB RAM", "250 Mbit/s port"]);
        assert_eq!(old.included_transfer(), "not charged");
        let metered = Terms::Transfer {
            included_units: 2000,
            unit: QuotaUnit::Gib,
            mode: UsageMode::Sum,
        };
        assert_eq!(
            plan_with(metered, &[]).included_transfer(),
            "2,000 GiB a month, in and out"
        );
    }

    #[test]
    fn numbers_are_numbers_and_written_one_way() {
        let checked = checked_specs(&owned(&[("vcpu", "04"), ("ram_mb", "512"), ("rack", "any text")])).unwrap();
        assert_eq!(
            checked,
            owned(&[("vcpu", "4"), ("ram_gib", "0.5"), ("rack", "any text")])
        );
        for (name, value) in [
            ("vcpu", "four"),
            ("vcpu", "0"),
            ("ram_gib", "-1"),
            ("disk_gb", "1.2345"),
            ("port_mbps", ""),
        ] {
            assert!(checked_specs(&owned(&[(name, value)])).is_err(), "{name}={value}");
        }
    }

    #[tokio::test]
    async fn a_plan_is_edited_and_its_terms_stay() {
        let world = World::new().await;
        let mut connection = world.database.begin_write().await.unwrap();
        let metered = Terms::Transfer {
            included_units: 100,
            unit: QuotaUnit::Gib,
            mode: UsageMode::Out,
        };
        let new = NewPlan {
            attributes: owned(&[("vcpu", "1")]),
            ..NewPlan::new("VPS 1", "vps", metered)
        };
        let made = create_plan(&mut connection, new, 0).await.unwrap();
        let edit = PlanEdit {
            description: Some(" Small. "),
            badge: Some(Badge::Popular),
            specs: Some(owned(&[("vcpu", "2"), ("ram_gib", "4")])),
        };
        let (before, after) = edit_plan(&mut connection, made.id, &edit).await.unwrap();
        assert_eq!(before, made);
        assert_eq!(plan(&mut *connection, made.id).await.unwrap(), after);
        assert_eq!((after.description.as_str(), after.badge), ("Small.", Badge::Popular));
        assert_eq!(after.terms, made.terms);
        let words = PlanEdit {
            specs: Some(owned(&[("transfer", "unmetered")])),
            ..PlanEdit::default()
        };
        let refused = edit_plan(&mut connection, made.id, &words).await;
        assert!(matches!(refused, Err(BillingError::TransferIsMetered)), "{refused:?}");
        let nothing = edit_plan(&mut connection, made.id, &PlanEdit::default()).await.unwrap();
        assert_eq!(nothing.0, nothing.1);
    }
}
