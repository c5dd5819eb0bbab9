//! `ezscale plan`: the catalog.

use activity::act::Note;
use analytics::UsageMode;
use anyhow::{Context as _, bail};
use billing::catalog::{
    self, Badge, BaseTiming, CYCLES_MONTHS, NewPlan, NewPrice, Plan, PlanEdit, PlanKind, QuotaUnit, Spec, Terms,
};
use billing::catalog_act;
use billing::price::UsagePrice;
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use rust_decimal::Decimal;
use schemas::ids::PlanId;
use schemas::money::{Currency, Money};
use schemas::percent::Percent;

use super::{audit, price};
use crate::options::{Data, now_ms, plain_decimal};
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a plan with its prices; prints the ids
    Add(Add),
    /// List plans; `ezscale price list` lists their prices
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a plan with its prices
    Show {
        /// The plan (pln_N)
        plan: PlanId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Add a price, or a new version of one; subscriptions that exist keep theirs
    ///
    /// Without --usage-rate the usage price of a new version is that of the current version in that currency and cycle.
    Price(PriceArgs),
    /// Change what customers read of a plan: its specifications, description and badge
    Edit(Edit),
    /// Set how many more can be sold
    Stock {
        /// The plan (pln_N)
        plan: PlanId,
        /// How many; without it unlimited
        count: Option<i64>,
        #[command(flatten)]
        data: Data,
    },
    /// Archive a plan: new subscriptions are refused, existing ones continue
    Archive {
        /// The plan (pln_N)
        plan: PlanId,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct Edit {
    /// The plan (pln_N)
    plan: PlanId,
    /// Set a specification, or remove it with an empty value: vcpu=8, gpu=; repeatable
    #[arg(long = "spec", value_name = "NAME=VALUE", value_parser = spec)]
    specs: Vec<(String, String)>,
    /// What the plan page says of the plan
    #[arg(long)]
    description: Option<String>,
    /// What the plan page says of it
    #[arg(long, value_enum)]
    badge: Option<PlanBadge>,
    #[command(flatten)]
    data: Data,
}

#[derive(clap::Args, Debug)]
struct PriceArgs {
    /// The plan (pln_N)
    plan: PlanId,
    #[command(flatten)]
    terms: PriceTerms,
    /// From when on (RFC 3339, or a day), today or later where there is such a price already [default: now]
    #[arg(long, value_parser = crate::options::instant)]
    from: Option<Timestamp>,
    #[command(flatten)]
    data: Data,
}

/// What a plan costs.
#[derive(clap::Args, Debug)]
struct PriceTerms {
    /// Base price per cycle, such as 19.99; with --all-cycles per month
    #[arg(long, value_parser = plain_decimal)]
    price: Option<Decimal>,
    /// Currency of the price (ISO 4217)
    #[arg(long, default_value = "USD", value_parser = crate::options::currency)]
    currency: Currency,
    /// Months in a cycle
    #[arg(long, default_value_t = 1)]
    months: i64,
    /// Prices for 1, 3, 6, 12 and 24 months, by the plan's discounts
    #[arg(long, conflicts_with = "months")]
    all_cycles: bool,
    /// Price of one unit over the included transfer, or of one Mbit/s over the commit: 0.05, or
    /// graduated:10=1.5,110=1,*=0.5, volume:10=1.5,*=1, package:10=100 [default: 0 for a new plan, that of the current
    /// version for a new version of a price]
    #[arg(long)]
    usage_rate: Option<UsagePrice>,
}

#[derive(clap::Args, Debug)]
struct Add {
    /// A plan that is ready made; --name, --type, --currency and --stock are yours
    #[arg(
        long,
        value_enum,
        conflicts_with_all = ["model", "included", "unit", "mode", "commit_mbps", "in_arrears", "description", "specs",
            "trial_days", "trial_each_time", "badge", "addon", "private", "free", "semi_annual_discount"]
    )]
    preset: Option<Preset>,
    /// Name of the plan, as customers see it
    #[arg(long, required_unless_present = "preset")]
    name: Option<String>,
    /// Kind of service the plan is for
    #[arg(long = "type", default_value = "vps")]
    service_type: String,
    /// How usage is charged
    #[arg(long, value_enum, default_value = "transfer")]
    model: Model,
    /// Included transfer per month, whatever the cycle, in units (transfer) [default: 0]
    #[arg(long)]
    included: Option<i64>,
    /// GB = 1000³ bytes, GiB = 1024³ bytes (transfer) [default: GiB]
    #[arg(long)]
    unit: Option<QuotaUnit>,
    /// Which directions count (transfer, percentile) [default: sum]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Mbit/s that the base price covers (percentile) [default: 0]
    #[arg(long)]
    commit_mbps: Option<Decimal>,
    #[command(flatten)]
    terms: PriceTerms,
    /// From when on the prices hold (RFC 3339, or a day); in the past, for subscriptions that run already [default: now]
    #[arg(long, value_parser = crate::options::instant)]
    from: Option<Timestamp>,
    /// Charge the base price at the end of each cycle, not at its start
    #[arg(long)]
    in_arrears: bool,
    /// What the plan page says of the plan
    #[arg(long, default_value = "")]
    description: String,
    /// What a service has by it; repeatable. Known: vcpu, ram_gib, disk_gb, disk_type, port_mbps, and transfer in words
    /// where it is not metered; any other name is shown as it is
    #[arg(long = "spec", visible_alias = "attribute", value_name = "NAME=VALUE", value_parser = spec)]
    specs: Vec<(String, String)>,
    /// Days before the first charge, of a customer's first subscription to it
    #[arg(long, default_value_t = 0)]
    trial_days: i64,
    /// Give a customer the trial with each subscription, not only with the first
    #[arg(long)]
    trial_each_time: bool,
    /// How many can be sold [default: unlimited]
    #[arg(long)]
    stock: Option<i64>,
    /// What the plan page says of it
    #[arg(long, value_enum, default_value = "none")]
    badge: PlanBadge,
    /// Beside a plan, and ends with it
    #[arg(long, conflicts_with = "private")]
    addon: bool,
    /// Agreed with one customer; not listed
    #[arg(long)]
    private: bool,
    /// The free developer plan
    #[arg(long)]
    free: bool,
    /// Discount of six months paid at once, in percent
    #[arg(long, default_value = "10")]
    semi_annual_discount: Decimal,
    #[command(flatten)]
    data: Data,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Preset {
    /// The free developer tier: 1 vCPU, 512 MiB RAM, 10 GB disk, 500 GiB transfer, one for each account
    Free,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlanBadge {
    None,
    Popular,
    BestValue,
}

impl PlanBadge {
    fn badge(self) -> Badge {
        match self {
            PlanBadge::None => Badge::None,
            PlanBadge::Popular => Badge::Popular,
            PlanBadge::BestValue => Badge::BestValue,
        }
    }
}

/// `vcpu=4`
fn spec(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as vcpu=4")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Model {
    Flat,
    Transfer,
    Percentile,
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Model::Flat => "flat",
            Model::Transfer => "transfer",
            Model::Percentile => "percentile",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Sum,
    In,
    Out,
    Max,
}

impl Add {
    fn plan(&self) -> anyhow::Result<NewPlan<'_>> {
        if let Some(Preset::Free) = self.preset {
            let preset = NewPlan::free_tier();
            return Ok(NewPlan {
                name: self.name.as_deref().unwrap_or(preset.name),
                service_type: &self.service_type,
                stock: self.stock,
                ..preset
            });
        }
        let name = self.name.as_deref().context("--name is needed")?;
        Ok(NewPlan {
            kind: match (self.addon, self.private) {
                (true, _) => PlanKind::Addon,
                (_, true) => PlanKind::Private,
                (false, false) => PlanKind::Plan,
            },
            description: &self.description,
            base_timing: if self.in_arrears {
                BaseTiming::Arrears
            } else {
                BaseTiming::Advance
            },
            trial_days: self.trial_days,
            trial_repeats: self.trial_each_time,
            attributes: self.specs.iter().cloned().collect(),
            badge: self.badge.badge(),
            stock: self.stock,
            is_free: self.free,
            semi_annual_discount: Percent::new(self.semi_annual_discount).context("--semi-annual-discount")?,
            ..NewPlan::new(name, &self.service_type, self.usage_terms()?)
        })
    }

    fn usage_terms(&self) -> anyhow::Result<Terms> {
        self.refuse_inapplicable_options()?;
        let mode = match self.mode.unwrap_or(Mode::Sum) {
            Mode::Sum => UsageMode::Sum,
            Mode::In => UsageMode::In,
            Mode::Out => UsageMode::Out,
            Mode::Max => UsageMode::Max,
        };
        Ok(match self.model {
            Model::Flat => Terms::Flat,
            Model::Transfer => Terms::Transfer {
                included_units: self.included.unwrap_or(0),
                unit: self.unit.unwrap_or_default(),
                mode,
            },
            Model::Percentile => Terms::Percentile {
                commit_mbps: self.commit_mbps.unwrap_or_default(),
                mode,
            },
        })
    }

    /// A setting of another model would be taken and do nothing.
    fn refuse_inapplicable_options(&self) -> anyhow::Result<()> {
        let given = [
            ("--included", self.included.is_some(), [Model::Transfer].as_slice()),
            ("--unit", self.unit.is_some(), &[Model::Transfer]),
            ("--mode", self.mode.is_some(), &[Model::Transfer, Model::Percentile]),
            ("--commit-mbps", self.commit_mbps.is_some(), &[Model::Percentile]),
        ];
        for (flag, _, fits) in given.iter().filter(|(_, is_given, _)| *is_given) {
            if fits.contains(&self.model) {
                continue;
            }
            let instead = match self.model {
                Model::Flat => "a flat plan charges its price alone",
                Model::Transfer => "a transfer plan includes units with --included",
                Model::Percentile => "a percentile plan includes Mbit/s with --commit-mbps",
            };
            bail!("{flag} does not fit --model {}: {instead}", self.model.name());
        }
        Ok(())
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add(add) => {
            // Before a data folder is made for it.
            let new = add.plan()?;
            let (_, database) = add.data.open_or_create().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (plan, note) = catalog_act::add_plan(act.connection(), new, now_ms).await?;
            let terms = match (add.preset, add.terms.price) {
                // What is free costs nothing.
                (Some(Preset::Free), None) => PriceTerms {
                    price: Some(Decimal::ZERO),
                    ..add.terms
                },
                _ => add.terms,
            };
            let terms = PriceTerms {
                usage_rate: terms.usage_rate.or(Some(UsagePrice::FREE)),
                ..terms
            };
            let from_ms = add.from.map_or(now_ms, Timestamp::as_millisecond);
            let prices = add_prices(act.connection(), &plan, &terms, from_ms, now_ms).await?;
            let (prices, notes): (Vec<String>, Vec<Note>) = prices.into_iter().unzip();
            act.commit(catalog_act::plan_note(note, notes)).await?;
            say!("{} {}", plan.id, prices.join(" "));
        }
        Command::Price(new) => {
            let (_, database) = new.data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let plan = catalog::plan(act.connection(), new.plan).await?;
            let from_ms = new.from.map_or(now_ms, Timestamp::as_millisecond);
            let prices = add_prices(act.connection(), &plan, &new.terms, from_ms, now_ms).await?;
            let (prices, notes): (Vec<String>, Vec<Note>) = prices.into_iter().unzip();
            act.commit(catalog_act::prices_note(plan.id, notes)).await?;
            say!("{}", prices.join(" "));
        }
        Command::Edit(edit) => {
            let (_, database) = edit.data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let mut specs = catalog::plan(act.connection(), edit.plan).await?.attributes;
            for (name, value) in edit.specs {
                match value.as_str() {
                    "" => drop(specs.remove(&name)),
                    _ => drop(specs.insert(name, value)),
                }
            }
            let wanted = PlanEdit {
                description: edit.description.as_deref(),
                badge: edit.badge.map(PlanBadge::badge),
                specs: Some(specs),
            };
            let (before, after) = catalog::edit_plan(act.connection(), edit.plan, &wanted).await?;
            let change = catalog::edit_change(&before, &after);
            act.commit(Note::new("plan.edit", after.id).change(change)).await?;
            let specs: Vec<String> = after.specs().iter().map(Spec::words).collect();
            say!("{} {}: {}", after.id, after.name, specs.join(", "));
        }
        Command::Stock { plan, count, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let note = catalog_act::change_stock(act.connection(), plan, count).await?;
            act.commit(note).await?;
        }
        Command::Archive { plan, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let note = catalog_act::archive_plan(act.connection(), plan, now_ms).await?;
            act.commit(note).await?;
        }
        // A plan is listed with its prices, a row for each.
        Command::List { format, data } => list(format, &data).await?,
        Command::Show { plan, format, data } => show(plan, format, &data).await?,
    }
    Ok(())
}

/// A row for each plan.
async fn list(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let mut listing = Listing::new([
        text("plan"),
        text("name"),
        text("kind"),
        text("type"),
        text("model"),
        number("prices"),
        text("currencies"),
        number("stock").or("unlimited"),
        text("archived_at"),
    ]);
    for plan in catalog::plans(database.pool()).await? {
        let prices = catalog::prices_of(database.pool(), plan.id).await?;
        // In order already.
        let mut currencies: Vec<String> = prices.iter().map(|price| price.currency().to_string()).collect();
        currencies.dedup();
        listing.row([
            shown(plan.id),
            plan.label().into(),
            plan.kind.name().into(),
            plan.service_type.as_str().into(),
            plan.terms.name().into(),
            prices.len().into(),
            Cell::json(&currencies)?,
            plan.stock.into(),
            plan.archived_at_ms.map(at).into(),
        ]);
    }
    listing.print(format, "no plans: add one with `ezscale plan add`")
}

/// Adds the price that was typed, or those of all cycles, and returns their ids with what each changed. Where no usage price was
/// typed, a new version keeps the current one.
async fn add_prices(
    connection: &mut sqlx::AnyConnection,
    plan: &Plan,
    terms: &PriceTerms,
    valid_from_ms: i64,
    now_ms: i64,
) -> anyhow::Result<Vec<(String, Note)>> {
    let price = terms.price.context("--price is needed")?;
    let base = Money::exact_from_major(price, terms.currency).context("--price")?;
    let cycles: &[i64] = if terms.all_cycles {
        &CYCLES_MONTHS
    } else {
        &[terms.months]
    };
    let mut made = Vec::with_capacity(cycles.len());
    for &cycle_months in cycles {
        let given = terms.usage_rate.as_ref();
        let usage =
            catalog::usage_or_current(&mut *connection, plan, terms.currency, cycle_months, given, now_ms).await?;
        let new = NewPrice {
            plan: plan.id,
            cycle_months,
            base: if terms.all_cycles {
                plan.derived_base(base, cycle_months)?
            } else {
                base
            },
            usage,
            valid_from_ms,
        };
        let (price, note) = catalog_act::add_price(&mut *connection, new, now_ms).await?;
        made.push((price.id.to_string(), note));
    }
    Ok(made)
}

async fn show(plan: PlanId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let plan = catalog::plan(database.pool(), plan).await?;
    let prices = catalog::prices_of(database.pool(), plan.id).await?;
    let attributes: Vec<String> = plan
        .attributes
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let (included, unit, mode) = match &plan.terms {
        Terms::Flat => (None, None, None),
        Terms::Transfer {
            included_units,
            unit,
            mode,
        } => (
            Some(Decimal::from(*included_units)),
            Some(unit.to_string()),
            Some(catalog::mode_name(*mode)),
        ),
        Terms::Percentile { commit_mbps, mode } => (
            Some(*commit_mbps),
            Some("Mbit/s".to_owned()),
            Some(catalog::mode_name(*mode)),
        ),
    };
    let label = plan.label();
    let listed = price::listing(&plan, &prices, format == ShowFormat::Table);
    Record::new()
        .field(text("id"), shown(plan.id))
        .field(text("name"), label)
        .field(text("kind"), plan.kind.name())
        .field(text("description"), plan.description)
        .field(text("type"), plan.service_type)
        .field(text("model"), plan.terms.name())
        .field(number("included"), included)
        .field(text("included_unit"), unit)
        .field(text("mode"), mode)
        .field(text("base_timing"), plan.base_timing.name())
        .field(number("trial_days"), plan.trial_days)
        .field(text("trial_each_time"), plan.trial_repeats)
        .field(text("attributes"), Some(attributes.join(", ")))
        .field(text("badge"), plan.badge.name())
        .field(number("stock").or("unlimited"), plan.stock)
        .field(text("is_free"), plan.is_free)
        .field(
            number("semi_annual_discount_percent"),
            plan.semi_annual_discount.value(),
        )
        .field(text("created_at"), at(plan.created_at_ms))
        .field(text("archived_at"), plan.archived_at_ms.map(at))
        .list("prices", listed)
        .print(format)
}
