//! `ezscale subscription`: begin, change, cancel, resume, suspend, show.

use anyhow::Context as _;
use billing::catalog;
use billing::subscription::change::{self, Change, End};
use billing::subscription::schedule::{self, Planned};
use billing::subscription::state::HoldCause;
use billing::subscription::{self, Contract, NewSubscription, Phase};
use clap::Subcommand;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::clock;
use schemas::db::Database;
use schemas::ids::{ChangeId, CustomerId, PriceId, ServiceId, SubscriptionId};
use schemas::window::instant_text;
use sqlx::AnyConnection;

use crate::options::{Data, billing_now_ms};
use crate::output::Listing;

/// Who did what the command line does.
const ACTOR: &str = "command line";

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Subscribe a service at a price and print the subscription's id; where the service is subscribed to just that and
    /// cancelled, take the cancellation back
    Add(Add),
    /// List subscriptions
    List {
        /// Only this customer's (cus_N)
        #[arg(long)]
        customer: Option<CustomerId>,
        #[command(flatten)]
        data: Data,
    },
    /// Show one with its phases, scheduled changes and history
    Show {
        subscription: SubscriptionId,
        #[command(flatten)]
        data: Data,
    },
    /// Change plan, price, cycle or quantity: today, or at a time
    Change {
        subscription: SubscriptionId,
        /// The new price (prc_N), which names plan and cycle
        #[arg(long)]
        price: PriceId,
        #[arg(long, default_value_t = 1)]
        quantity: i64,
        /// When (RFC 3339) [default: now]
        #[arg(long)]
        at: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
    /// Cancel: with the cycle that is paid for, today, or with the day before a date
    Cancel {
        subscription: SubscriptionId,
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
    /// Take a cancellation back
    Resume {
        subscription: SubscriptionId,
        #[command(flatten)]
        data: Data,
    },
    /// Cancel a scheduled change (chg_N)
    Unschedule {
        change: ChangeId,
        #[arg(long, default_value = "cancelled")]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
    /// Suspend the service
    Suspend {
        subscription: SubscriptionId,
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
    #[arg(long, default_value_t = 1)]
    quantity: i64,
    /// Day of the month on which periods start [default: the day of the start]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=31))]
    anchor_day: Option<i64>,
    /// First instant (RFC 3339) [default: now]
    #[arg(long)]
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
        Command::List { customer, data } => list(customer, &data).await,
        Command::Show { subscription, data } => show(subscription, &data).await,
        Command::Change {
            subscription,
            price,
            quantity,
            at,
            data,
        } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let change = Change { price, quantity };
            let mut transaction = database.begin_write().await?;
            match at.map(Timestamp::as_millisecond).filter(|&at_ms| at_ms > now_ms) {
                Some(at_ms) => {
                    let planned = Planned::Change(change);
                    let id = schedule::schedule(
                        &mut transaction,
                        subscription,
                        planned,
                        at_ms,
                        "asked for",
                        ACTOR,
                        now_ms,
                    );
                    println!("{}", id.await?);
                }
                None => {
                    let at_ms = at.map_or(now_ms, Timestamp::as_millisecond);
                    change::change(&mut transaction, subscription, change, at_ms, ACTOR, now_ms).await?;
                }
            }
            Ok(transaction.commit().await?)
        }
        Command::Cancel {
            subscription,
            reason,
            now,
            on,
            data,
        } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let end = match (now, on) {
                (true, _) => End::Now,
                (false, Some(date)) => End::On(date),
                (false, None) => End::CycleEnd,
            };
            let mut transaction = database.begin_write().await?;
            change::cancel(&mut transaction, subscription, end, &reason, ACTOR, now_ms).await?;
            Ok(transaction.commit().await?)
        }
        Command::Resume { subscription, data } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut transaction = database.begin_write().await?;
            change::resume(&mut transaction, subscription, ACTOR, now_ms).await?;
            Ok(transaction.commit().await?)
        }
        Command::Unschedule { change, reason, data } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut transaction = database.begin_write().await?;
            schedule::cancel(&mut transaction, change, &reason, now_ms).await?;
            Ok(transaction.commit().await?)
        }
        Command::Suspend {
            subscription,
            reason,
            abuse,
            data,
        } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut transaction = database.begin_write().await?;
            change::hold(&mut transaction, subscription, cause(abuse), &reason, ACTOR, now_ms).await?;
            Ok(transaction.commit().await?)
        }
        Command::Unsuspend {
            subscription,
            abuse,
            data,
        } => {
            let (database, now_ms) = open_to_change(&data).await?;
            let mut transaction = database.begin_write().await?;
            change::release(&mut transaction, subscription, cause(abuse), ACTOR, now_ms).await?;
            Ok(transaction.commit().await?)
        }
    }
}

fn cause(abuse: bool) -> HoldCause {
    if abuse { HoldCause::Abuse } else { HoldCause::Admin }
}

async fn open(data: &Data) -> anyhow::Result<(Database, i64)> {
    let (_, database) = data.open_database().await?;
    let now_ms = clock::of(&database).await?.now_ms();
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
    let mut transaction = database.begin_write().await?;
    if let Some(id) = cancelled_to_the_same(&mut transaction, &add).await? {
        change::resume(&mut transaction, id, ACTOR, now_ms).await?;
        transaction.commit().await?;
        eprintln!("{id} was cancelled and has not ended: its cancellation is reversed");
        println!("{id}");
        return Ok(());
    }
    let made = subscription::subscribe(&mut transaction, new, ACTOR, now_ms).await?;
    transaction.commit().await?;
    println!("{}", made.id);
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

async fn list(customer: Option<CustomerId>, data: &Data) -> anyhow::Result<()> {
    let (database, now_ms) = open(data).await?;
    let mut connection = database.pool().acquire().await?;
    let all = match customer {
        Some(customer) => subscription::subscriptions_of(&mut *connection, customer).await?,
        None => subscription::subscriptions(&mut *connection).await?,
    };
    let columns = &["id", "customer", "service", "plan", "price", "state", "since", "ends"];
    let mut listing = Listing::new(columns);
    for found in all {
        let contract = subscription::contract(&mut connection, found.id).await?;
        let phase = contract.phase_at(now_ms)?;
        listing.row([
            found.id.to_string(),
            found.customer.to_string(),
            format!("{} {}", found.service, contract.service.name),
            phase.plan.label(),
            price_words(phase),
            found.state.words().to_owned(),
            instant_text(found.started_at_ms),
            found
                .ended_at_ms
                .or(found.cancel_at_ms)
                .map_or_else(String::new, instant_text),
        ]);
    }
    listing.print("there are no subscriptions");
    Ok(())
}

fn price_words(phase: &Phase) -> String {
    let times = if phase.quantity == 1 {
        String::new()
    } else {
        format!("{} × ", phase.quantity)
    };
    let cycle = billing::rating::cycle_words(phase.price.cycle_months);
    format!("{times}{} / {cycle}", phase.price.base)
}

/// The local day that begins at an instant, or the instant itself where none does.
fn day_or_instant(at_ms: i64, zone: &TimeZone) -> anyhow::Result<String> {
    let date = schemas::period::local_date(at_ms, zone)?;
    if schemas::period::midnight_ms(date, zone)? == at_ms {
        Ok(date.to_string())
    } else {
        Ok(instant_text(at_ms))
    }
}

async fn show(id: SubscriptionId, data: &Data) -> anyhow::Result<()> {
    let (database, _) = open(data).await?;
    let mut connection = database.pool().acquire().await?;
    let contract = subscription::contract(&mut connection, id).await?;
    print_head(&contract);
    let mut phases = Listing::new(&[
        "phase",
        "from",
        "to",
        "plan",
        "price",
        "anchor",
        "base charged to",
        "usage charged to",
    ]);
    for phase in &contract.phases {
        let date = |date: Option<Date>| date.map_or_else(String::new, |date| date.to_string());
        phases.row([
            phase.id.to_string(),
            phase.from.to_string(),
            date(phase.to),
            phase.plan.label(),
            price_words(phase),
            phase.anchor.get().to_string(),
            date(phase.base_to),
            match phase.usage_charged_to_ms {
                Some(at_ms) => day_or_instant(at_ms, &contract.subscription.time_zone)?,
                None => String::new(),
            },
        ]);
    }
    phases.print("");
    let mut changes = Listing::new(&["change", "at", "what", "status", "reason"]);
    for change in schedule::scheduled_of(&mut *connection, contract.subscription.customer).await? {
        if change.subscription != id {
            continue;
        }
        let what = match change.planned {
            Planned::Cancel => "cancel".to_owned(),
            Planned::Change(terms) | Planned::Addon(terms) => {
                let price = catalog::price(&mut *connection, terms.price).await?;
                let plan = catalog::plan(&mut *connection, price.plan)
                    .await
                    .context("read the plan of a change")?;
                format!("{} × {}", terms.quantity, plan.name)
            }
        };
        changes.row([
            change.id.to_string(),
            instant_text(change.at_ms),
            what,
            change.status.name().to_owned(),
            change.reason,
        ]);
    }
    changes.print("");
    let mut history = Listing::new(&["at", "from", "to", "reason", "by"]);
    for event in subscription::state_history(&mut *connection, id).await? {
        history.row([
            instant_text(event.at_ms),
            event.from.map_or("", |state| state.words()).to_owned(),
            event.to.words().to_owned(),
            event.reason,
            event.actor,
        ]);
    }
    history.print("");
    Ok(())
}

fn print_head(contract: &Contract) {
    let subscription = &contract.subscription;
    println!(
        "{} of {} ({}) for {} ({}): {}",
        subscription.id,
        subscription.customer,
        contract.customer.name,
        subscription.service,
        contract.service.name,
        subscription.state.words()
    );
    if let Some(coupon) = &contract.coupon {
        println!("coupon {}", coupon.coupon.code);
    }
    if let Some(at_ms) = subscription.cancel_at_ms {
        println!("ends at {}", instant_text(at_ms));
    }
}
