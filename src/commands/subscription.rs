//! `ezscale subscription`: begin, change, cancel, resume, suspend, show.

use activity::act::Note;
use analytics::MeteredUsage;
use anyhow::Context as _;
use billing::approval::wanted;
use billing::catalog;
use billing::invoice::{self, Horizon};
use billing::subscription::change::{self, CancellationTime, Change};
use billing::subscription::schedule::{self, ScheduledAction};
use billing::subscription::state::HoldCause;
use billing::subscription::{self, Contract, NewSubscription};
use clap::Subcommand;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::clock;
use schemas::db::Database;
use schemas::ids::{ChangeId, CustomerId, PriceId, ServiceId, SubscriptionId};
use schemas::period::local_date;
use schemas::window::instant_text;
use serde_json::json;
use sqlx::AnyConnection;

use super::audit;
use crate::config::Config;
use crate::options::{Data, billing_now_ms, open_current};
use crate::output::{Format, Listing, Record, ShowFormat, at, money, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Subscribe a service at a price and print the subscription's id; where the service is subscribed to just that and
    /// cancelled, reverse the cancellation
    Add(Add),
    /// List subscriptions
    List {
        /// Only this customer's (cus_N)
        #[arg(long)]
        customer: Option<CustomerId>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show one with its phases, scheduled changes and history
    Show {
        /// The subscription (sub_N)
        subscription: SubscriptionId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Change plan, price, cycle or quantity: today, or at a time
    Change {
        /// The subscription (sub_N)
        subscription: SubscriptionId,
        /// The new price (prc_N), which names plan and cycle
        #[arg(long)]
        price: PriceId,
        /// How many units of the plan
        #[arg(long, default_value_t = 1)]
        quantity: i64,
        /// When (RFC 3339, or a day) [default: now]
        #[arg(long, value_parser = crate::options::instant)]
        at: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
    /// Cancel: with the cycle that is paid for, today, or with the day before a date
    Cancel {
        /// The subscription (sub_N)
        subscription: SubscriptionId,
        /// Why, for the subscription's history
        #[arg(long, default_value = "cancelled")]
        reason: String,
        /// End it now; today is not charged any more
        #[arg(long, conflicts_with = "on")]
        now: bool,
        /// The first local day on which it does not run any more, such as 2026-12-24
        #[arg(long)]
        on: Option<Date>,
        #[command(flatten)]
        data: Data,
    },
    /// Reverse a cancellation
    Resume {
        /// The subscription (sub_N)
        subscription: SubscriptionId,
        #[command(flatten)]
        data: Data,
    },
    /// Cancel a scheduled change (chg_N)
    Unschedule {
        /// The scheduled change (chg_N)
        change: ChangeId,
        /// Why, for the subscription's history
        #[arg(long, default_value = "cancelled")]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
    /// Suspend the service
    Suspend {
        /// The subscription (sub_N)
        subscription: SubscriptionId,
        /// Why, for the subscription's history
        #[arg(long)]
        reason: String,
        /// It abuses the network
        #[arg(long)]
        abuse: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Lift a manual suspension
    Unsuspend {
        /// The subscription (sub_N)
        subscription: SubscriptionId,
        /// The one that was placed for abuse
        #[arg(long)]
        abuse: bool,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct Add {
    /// The service (svc_N)
    service: ServiceId,
    /// The price (prc_N), which names the plan
    #[arg(long)]
    price: PriceId,
    /// How many units of the plan
    #[arg(long, default_value_t = 1)]
    quantity: i64,
    /// Day of the month on which periods start [default: the day of the start]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=31))]
    anchor_day: Option<i64>,
    /// First instant (RFC 3339, or a day) [default: now]
    #[arg(long, value_parser = crate::options::instant)]
    from: Option<Timestamp>,
    /// A coupon's code
    #[arg(long)]
    coupon: Option<String>,
    /// For an add-on: the subscription that it is beside (sub_N)
    #[arg(long)]
    beside: Option<SubscriptionId>,
    #[command(flatten)]
    data: Data,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add(add) => begin(add).await,
        Command::List { customer, format, data } => list(customer, format, &data).await,
        Command::Show {
            subscription,
            format,
            data,
        } => show(subscription, format, &data).await,
        Command::Change {
            subscription,
            price,
            quantity,
            at,
            data,
        } => {
            let (config, database) = data.open_database().await?;
            let now_ms = billing_now_ms(&config, &database).await?;
            let change = Change { price, quantity };
            let mut act = audit::begin(&database, now_ms).await?;
            match at.map(Timestamp::as_millisecond).filter(|&at_ms| at_ms > now_ms) {
                Some(at_ms) => {
                    let planned = ScheduledAction::Change(change);
                    let (connection, by) = act.parts();
                    let id = schedule::schedule(connection, subscription, planned, at_ms, "asked for", by.name, now_ms);
                    let id = id.await?;
                    let entry = json!({"after": {
                        "change": id, "at_ms": at_ms, "price": price, "quantity": quantity,
                    }});
                    act.commit(Note::new("subscription.schedule", subscription).change(entry))
                        .await?;
                    say!("{id}");
                }
                None => {
                    let at_ms = at.map_or(now_ms, Timestamp::as_millisecond);
                    let before = subscription::contract(act.connection(), subscription).await?;
                    let phase = before.last_phase();
                    let entry = json!({
                        "before": {"price": phase.price.id, "quantity": phase.quantity},
                        "after": {"price": price, "quantity": quantity, "at_ms": at_ms},
                    });
                    let (connection, by) = act.parts();
                    change::change(connection, subscription, change, at_ms, by.name, now_ms).await?;
                    act.commit(Note::new("subscription.change", subscription).change(entry))
                        .await?;
                }
            }
            print_charges(&config, &database, subscription, now_ms).await
        }
        Command::Cancel {
            subscription,
            reason,
            now,
            on,
            data,
        } => {
            let (config, database) = data.open_database().await?;
            let now_ms = billing_now_ms(&config, &database).await?;
            let end = match (now, on) {
                (true, _) => CancellationTime::Now,
                (false, Some(date)) => CancellationTime::On(date),
                (false, None) => CancellationTime::CycleEnd,
            };
            let mut act = audit::begin(&database, now_ms).await?;
            let ends = subscription::subscription(act.connection(), subscription).await?;
            let is_at_once = match end {
                CancellationTime::Now => true,
                CancellationTime::On(date) => date <= local_date(now_ms, &ends.time_zone)?,
                CancellationTime::CycleEnd => false,
            };
            if is_at_once {
                let what = subscription.to_string();
                let wanted = wanted::termination(
                    act.connection(),
                    ends.customer,
                    vec![subscription],
                    (&what, &reason),
                    now_ms,
                );
                let wanted = wanted.await?;
                act = match audit::gate(act, &wanted).await? {
                    Some(act) => act,
                    None => return Ok(()),
                };
            }
            let (connection, by) = act.parts();
            change::cancel(connection, subscription, end, &reason, by.name, now_ms).await?;
            let end = match end {
                CancellationTime::Now => "now".to_owned(),
                CancellationTime::CycleEnd => "cycle end".to_owned(),
                CancellationTime::On(date) => date.to_string(),
            };
            let entry = json!({"after": {"end": end, "reason": reason}});
            act.commit(Note::new("subscription.cancel", subscription).change(entry))
                .await?;
            print_charges(&config, &database, subscription, now_ms).await
        }
        Command::Resume { subscription, data } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (connection, by) = act.parts();
            change::resume(connection, subscription, by.name, now_ms).await?;
            let entry = json!({"after": {"cancel_at_ms": null}});
            act.commit(Note::new("subscription.resume", subscription).change(entry))
                .await?;
            Ok(())
        }
        Command::Unschedule { change, reason, data } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let planned = schedule::scheduled(act.connection(), change).await?;
            schedule::cancel(act.connection(), change, &reason, now_ms).await?;
            let entry = json!({
                "before": {"change": change, "at_ms": planned.at_ms},
                "after": {"status": "cancelled", "reason": reason},
            });
            act.commit(Note::new("subscription.unschedule", planned.subscription).change(entry))
                .await?;
            Ok(())
        }
        Command::Suspend {
            subscription,
            reason,
            abuse,
            data,
        } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (connection, by) = act.parts();
            change::hold(connection, subscription, cause(abuse), &reason, by.name, now_ms).await?;
            let entry = json!({"after": {"suspended": true, "abuse": abuse, "reason": reason}});
            act.commit(Note::new("subscription.suspend", subscription).change(entry))
                .await?;
            Ok(())
        }
        Command::Unsuspend {
            subscription,
            abuse,
            data,
        } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (connection, by) = act.parts();
            change::release(connection, subscription, cause(abuse), by.name, now_ms).await?;
            let entry = json!({"after": {"suspended": false, "abuse": abuse}});
            act.commit(Note::new("subscription.unsuspend", subscription).change(entry))
                .await?;
            Ok(())
        }
    }
}

/// Prints what is charged or given back now, by the next close, and what is charged next: as the portal shows it.
async fn print_charges(config: &Config, database: &Database, id: SubscriptionId, now_ms: i64) -> anyhow::Result<()> {
    let usage = MeteredUsage::new(open_current(config).await?, &config.metering());
    let mut connection = database.pool().acquire().await?;
    let contract = subscription::contract(&mut connection, id).await?;
    let customer = contract.subscription.customer;
    let zone = &contract.subscription.time_zone;
    let due = invoice::prospect(&mut connection, &usage, customer, Horizon::DueBy { at_ms: now_ms }).await?;
    let next_ms = invoice::next_charge_ms(&contract, now_ms)?;
    let ahead = match next_ms {
        Some(at_ms) => Some(invoice::prospect(&mut connection, &usage, customer, Horizon::DueBy { at_ms }).await?),
        None => None,
    };
    drop(connection);
    let now = due.drafts(&usage, now_ms).await?;
    let now: Vec<_> = now.iter().filter(|draft| !draft.lines.is_empty()).collect();
    if now.is_empty() {
        tell!("nothing is charged or credited today");
    }
    for draft in now {
        tell!("today: {} with tax, by `ezscale invoice close`", draft.total);
    }
    if let Some(ahead) = ahead {
        let drafts = ahead.drafts(&usage, now_ms).await?;
        if let Some(next) = drafts.iter().rfind(|draft| Some(draft.due_ms) == next_ms) {
            let day = local_date(next.due_ms, zone)?;
            tell!(
                "next on {day}: {} with tax; usage not measured yet is not included",
                next.total
            );
        }
    }
    Ok(())
}

fn cause(abuse: bool) -> HoldCause {
    if abuse { HoldCause::Abuse } else { HoldCause::Admin }
}

async fn open(data: &Data) -> anyhow::Result<(Database, i64)> {
    let (_, database) = data.open_database().await?;
    let now_ms = clock::of(database.pool()).await?.now_ms();
    Ok((database, now_ms))
}

/// For what changes something: refused while billing is stopped.
async fn open_to_change(data: &Data) -> anyhow::Result<(Database, i64)> {
    let (config, database) = data.open_database().await?;
    let now_ms = billing_now_ms(&config, &database).await?;
    Ok((database, now_ms))
}

async fn begin(add: Add) -> anyhow::Result<()> {
    let (database, now_ms) = open_to_change(&add.data).await?;
    let started_at_ms = add.from.map_or(now_ms, Timestamp::as_millisecond);
    let new = NewSubscription {
        quantity: add.quantity,
        anchor_day: add.anchor_day,
        coupon: add.coupon.as_deref(),
        parent: add.beside,
        ..NewSubscription::new(add.service, add.price, started_at_ms)
    };
    let mut act = audit::begin(&database, now_ms).await?;
    if let Some(id) = cancelled_to_the_same(act.connection(), &add).await? {
        let (connection, by) = act.parts();
        change::resume(connection, id, by.name, now_ms).await?;
        let entry = json!({"after": {"cancel_at_ms": null}});
        act.commit(Note::new("subscription.resume", id).change(entry)).await?;
        tell!("{id} was cancelled and has not ended: its cancellation is reversed");
        say!("{id}");
        return Ok(());
    }
    let (connection, by) = act.parts();
    let made = subscription::subscribe(connection, new, by.name, now_ms).await?;
    let entry =
        json!({"after": {"service": add.service, "price": add.price, "quantity": add.quantity, "coupon": add.coupon}});
    act.commit(Note::new("subscription.add", made.id).change(entry)).await?;
    say!("{}", made.id);
    Ok(())
}

/// The subscription of the service, where it was cancelled, has not ended, and is what is asked for again.
async fn cancelled_to_the_same(connection: &mut AnyConnection, add: &Add) -> anyhow::Result<Option<SubscriptionId>> {
    let asks_more = add.beside.is_some() || add.coupon.is_some() || add.from.is_some() || add.anchor_day.is_some();
    let Some(found) = subscription::subscription_of(&mut *connection, add.service).await? else {
        return Ok(None);
    };
    if asks_more || found.cancel_at_ms.is_none() {
        return Ok(None);
    }
    let contract = subscription::contract(connection, found.id).await?;
    let phase = contract.last_phase();
    let is_same = phase.price.id == add.price && phase.quantity == add.quantity;
    Ok(is_same.then_some(found.id))
}

async fn list(customer: Option<CustomerId>, format: Format, data: &Data) -> anyhow::Result<()> {
    let (database, now_ms) = open(data).await?;
    let mut connection = database.pool().acquire().await?;
    let all = match customer {
        Some(customer) => subscription::subscriptions_of(&mut *connection, customer).await?,
        None => subscription::subscriptions(&mut *connection).await?,
    };
    let mut listing = Listing::new([
        text("id"),
        text("customer"),
        text("service"),
        text("service_name"),
        text("plan"),
        text("price"),
        number("quantity").only_data(),
        money("base"),
        number("cycle_months"),
        text("state"),
        text("started_at").only_data(),
        text("ends_at"),
    ]);
    for found in all {
        let contract = subscription::contract(&mut connection, found.id).await?;
        let phase = contract.phase_at(now_ms)?;
        listing.row([
            shown(found.id),
            shown(found.customer),
            shown(found.service),
            contract.service.name.as_str().into(),
            phase.plan.label().into(),
            shown(phase.price.id),
            phase.quantity.into(),
            phase.price.base.into(),
            phase.price.cycle_months.into(),
            found.state.words().into(),
            at(found.started_at_ms),
            found.ended_at_ms.or(found.cancel_at_ms).map(at).into(),
        ]);
    }
    listing.print(format, "there are no subscriptions")
}

/// The local day that begins at an instant, or the instant itself where none does.
fn day_or_instant(at_ms: i64, zone: &TimeZone) -> anyhow::Result<String> {
    let date = local_date(at_ms, zone)?;
    if schemas::period::midnight_ms(date, zone)? == at_ms {
        Ok(date.to_string())
    } else {
        Ok(instant_text(at_ms))
    }
}

async fn show(id: SubscriptionId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (database, _) = open(data).await?;
    let mut connection = database.pool().acquire().await?;
    let contract = subscription::contract(&mut connection, id).await?;
    let mut phases = Listing::new([
        text("id"),
        text("from"),
        text("to"),
        text("plan"),
        text("price"),
        number("quantity"),
        money("base"),
        number("cycle_months"),
        number("anchor_day"),
        text("base_charged_to"),
        text("usage_charged_to"),
    ]);
    for phase in &contract.phases {
        let usage_charged_to = match phase.usage_charged_to_ms {
            Some(at_ms) => Some(day_or_instant(at_ms, &contract.subscription.time_zone)?),
            None => None,
        };
        phases.row([
            shown(phase.id),
            shown(phase.from),
            phase.to.map(shown).into(),
            phase.plan.label().into(),
            shown(phase.price.id),
            phase.quantity.into(),
            phase.price.base.into(),
            phase.price.cycle_months.into(),
            phase.anchor.get().into(),
            phase.base_to.map(shown).into(),
            usage_charged_to.into(),
        ]);
    }
    let changes = scheduled(&mut connection, &contract).await?;
    let mut history = Listing::new(["at", "from", "to", "reason", "actor"].map(text));
    for event in subscription::state_history(&mut *connection, id).await? {
        history.row([
            at(event.at_ms),
            event.from.map(|state| state.words()).into(),
            event.to.words().into(),
            event.reason.into(),
            event.actor.into(),
        ]);
    }
    let subscription = &contract.subscription;
    Record::new()
        .field(text("id"), shown(subscription.id))
        .field(text("customer"), shown(subscription.customer))
        .field(text("customer_name"), contract.customer.name.as_str())
        .field(text("service"), shown(subscription.service))
        .field(text("service_name"), contract.service.name.as_str())
        .field(text("state"), subscription.state.words())
        .field(
            text("coupon"),
            contract.coupon.as_ref().map(|coupon| coupon.coupon.code.as_str()),
        )
        .field(text("started_at"), at(subscription.started_at_ms))
        .field(text("ends_at"), subscription.cancel_at_ms.map(at))
        .field(text("ended_at"), subscription.ended_at_ms.map(at))
        .list("phases", phases)
        .list("changes", changes)
        .list("history", history)
        .print(format)
}

/// The changes that are or were scheduled.
async fn scheduled(connection: &mut AnyConnection, contract: &Contract) -> anyhow::Result<Listing<5>> {
    let mut changes = Listing::new(["id", "at", "change", "status", "reason"].map(text));
    for change in schedule::scheduled_of(&mut *connection, contract.subscription.customer).await? {
        if change.subscription != contract.subscription.id {
            continue;
        }
        let words = match change.planned {
            ScheduledAction::Cancel => "cancel".to_owned(),
            ScheduledAction::Change(terms) | ScheduledAction::Addon(terms) => {
                let price = catalog::price(&mut *connection, terms.price).await?;
                let plan = catalog::plan(&mut *connection, price.plan)
                    .await
                    .context("read the plan of a change")?;
                format!("{} × {}", terms.quantity, plan.name)
            }
        };
        changes.row([
            shown(change.id),
            at(change.at_ms),
            words.into(),
            change.status.name().into(),
            change.reason.into(),
        ]);
    }
    Ok(changes)
}
