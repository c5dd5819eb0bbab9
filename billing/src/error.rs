//! Why billing could not answer or act.

use activity::event::EventError;
use jiff::civil::Date;
use schemas::ids::{
    ChangeId, ChargeItemId, CouponId, CustomerId, ExclusionId, InvoiceId, InvoiceLineId, PhaseId, PlanId, PriceId,
    ServiceId, SubscriptionId, TransferId,
};
use schemas::inventory::InventoryError;
use schemas::money::{Currency, Money, MoneyError};
use schemas::period::{PeriodError, cycle_words};
use schemas::usage::UsageError;
use schemas::window::instant_text;

use crate::guard::BillingStop;
use crate::ledger::LedgerError;
use crate::settlement::SettlementError;
use crate::subscription::SubscriptionState;
use crate::subscription::state::Transition;
use crate::subscription::transfer::TransferStatus;
use crate::tax::TaxError;

/// Why billing could not answer or act.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read the inventory")]
    Inventory(#[from] InventoryError),
    #[error("measure usage")]
    Usage(#[from] UsageError),
    #[error("compute an amount")]
    Money(#[from] MoneyError),
    #[error("compute a period")]
    Period(#[from] PeriodError),
    #[error("post to the ledger")]
    Ledger(#[from] LedgerError),
    #[error("settle an invoice")]
    Settlement(#[from] SettlementError),
    #[error("compute taxes")]
    Tax(#[from] TaxError),
    #[error("publish the event")]
    Event(#[from] EventError),
    #[error("no plan {0}")]
    NoPlan(PlanId),
    #[error("no price {0}")]
    NoPrice(PriceId),
    #[error("no subscription {0}")]
    NoSubscription(SubscriptionId),
    #[error("no invoice {0}")]
    NoInvoice(InvoiceId),
    #[error("no invoice line {0}")]
    NoInvoiceLine(InvoiceLineId),
    #[error("{0} is archived")]
    PlanArchived(PlanId),
    #[error("{field} {value} is not between {min} and {max}")]
    OutOfRange {
        field: &'static str,
        value: String,
        min: String,
        max: String,
    },
    #[error("a {field} has between 1 and {max} characters and no control characters or invisible ones, not {text:?}")]
    Text {
        field: &'static str,
        max: usize,
        text: String,
    },
    #[error("a {field} has at most {max} decimal places, not {value}")]
    TooFine {
        field: &'static str,
        max: u32,
        value: String,
    },
    #[error("{plan} already has a price in {currency} for every {} from that instant on", cycle_words(*cycle_months))]
    PriceExists {
        plan: PlanId,
        currency: Currency,
        cycle_months: i64,
    },
    #[error(
        "{plan} has no price in {currency} for every {} to take the usage price from: enter one, 0 charges nothing",
        cycle_words(*cycle_months)
    )]
    NoUsagePrice {
        plan: PlanId,
        currency: Currency,
        cycle_months: i64,
    },
    #[error("a usage price is a decimal, graduated:10=1.5,110=1,*=0.5, volume:… or package:10=100, not {0:?}")]
    UsagePrice(String),
    #[error("all tiers but the last say up to where they go, and the last one does not")]
    TiersEnd,
    #[error("{0} bills no usage, so its price has none")]
    UsageOfFlatPlan(PlanId),
    #[error("{0} is free, so its price is nothing")]
    FreePlanCosts(PlanId),
    #[error("{0} is sold out")]
    OutOfStock(PlanId),
    #[error("a new version of a price holds from today (UTC) or a later day on, not from {}", instant_text(*valid_from_ms))]
    PriceInThePast { valid_from_ms: i64 },
    #[error("{price} holds from {} on", instant_text(*valid_from_ms))]
    PriceNotYet { price: PriceId, valid_from_ms: i64 },
    #[error("{what} cannot be dated back: {date} is before {today}, today there")]
    DateOver {
        what: &'static str,
        date: Date,
        today: Date,
    },
    #[error("{what} must lie ahead: {} is not after {}", instant_text(*at_ms), instant_text(*now_ms))]
    NotAhead {
        what: &'static str,
        at_ms: i64,
        now_ms: i64,
    },
    #[error("{addon} ends with {parent}, which is cancelled: resume that one")]
    ParentCancelled {
        addon: SubscriptionId,
        parent: SubscriptionId,
    },
    #[error("a coupon's code has between 1 and 40 letters, digits, hyphens and underscores, not {0:?}")]
    CouponCode(String),
    #[error("there is a coupon {0} already")]
    CouponTaken(String),
    #[error("no coupon {0}")]
    NoCoupon(CouponId),
    #[error("the coupon {code} cannot be redeemed: {reason}")]
    CouponRefused { code: String, reason: &'static str },
    #[error("{0} is an add-on: it needs a subscription to be beside")]
    AddonAlone(PlanId),
    #[error(
        "{0} is of the other kind: beside a subscription goes an add-on (`ezscale plan add --addon`), and a subscription changes only to a plan of its own kind"
    )]
    NotAnAddon(PlanId),
    #[error("{subscription} is not the subscription of {service}")]
    OtherService {
        subscription: SubscriptionId,
        service: ServiceId,
    },
    #[error("{plan} is for services of the type {offers:?}, not {service:?}")]
    OtherServiceType {
        plan: PlanId,
        offers: String,
        service: String,
    },
    #[error("{0}")]
    Stopped(BillingStop),
    #[error("nothing of {0} waits for a confirmation of its measured usage")]
    NothingUnmeasured(CustomerId),
    #[error("{0} is not charged now: a new price waits until it is again")]
    NotChargedNow(SubscriptionId),
    #[error("{name} is a number more than 0 with at most 3 decimal places, not {value:?}")]
    Spec { name: String, value: String },
    #[error("the plan meters transfer: how much is included is part of how it is billed, not a specification")]
    TransferIsMetered,
    #[error("a free plan is no add-on (F-26)")]
    FreeAddon,
    #[error("{subscription} is free: a free plan is one unit, with nothing beside it (F-26)")]
    FreePlanIsOne { subscription: SubscriptionId },
    #[error("{customer} cannot have a free plan: {why}")]
    FreePlanRefused { customer: CustomerId, why: &'static str },
    #[error("{0} is or would be free: a free plan is not changed into a paid one or back (F-26)")]
    FreePlanFixed(SubscriptionId),
    #[error("{0} has that price and quantity already")]
    NothingChanges(SubscriptionId),
    #[error("{subscription} cannot be {what}: it is {}", state.words())]
    Refused {
        subscription: SubscriptionId,
        what: &'static str,
        state: SubscriptionState,
    },
    #[error("{subscription} is {} and {happening:?} does not happen to it then", state.words())]
    NoTransition {
        subscription: SubscriptionId,
        state: SubscriptionState,
        happening: Transition,
    },
    #[error("{0} was changed by somebody else meanwhile: look again")]
    ChangedMeanwhile(SubscriptionId),
    #[error("{subscription} cannot change from {date} on: days before {earliest} are charged or changed already")]
    TooEarly {
        subscription: SubscriptionId,
        date: Date,
        earliest: Date,
    },
    #[error("no scheduled change {0}")]
    NoChange(ChangeId),
    #[error("{0} is settled already")]
    ChangeSettled(ChangeId),
    #[error("no transfer {0}")]
    NoTransfer(TransferId),
    #[error("{service} cannot be transferred: {why}")]
    TransferRefused { service: ServiceId, why: &'static str },
    #[error("{transfer} cannot be {what}: it is {}", status.name())]
    TransferState {
        transfer: TransferId,
        what: &'static str,
        status: TransferStatus,
    },
    #[error("{0} has no VAT number")]
    NoVatNumber(CustomerId),
    #[error("no currency has the code {0} (ISO 4217), such as EUR or USD")]
    CurrencyNotInUse(Currency),
    #[error("the end, {}, must be after the start, {}", instant_text(*to_ms), instant_text(*from_ms))]
    EndsBeforeStart { from_ms: i64, to_ms: i64 },
    #[error("no 5-minute window starts in that time: say from 04:00 until 04:05, or longer")]
    NoWindow,
    #[error("no exclusion {0}")]
    NoExclusion(ExclusionId),
    #[error("invoice {invoice} cannot be credited or voided: {why}")]
    NotCredited { invoice: InvoiceId, why: &'static str },
    #[error("{left} of {invoice} is left to give back, not {asked}")]
    MoreThanLeft {
        invoice: InvoiceId,
        left: Money,
        asked: Money,
    },
    #[error("B6: {given} would be credited for {line} on {number}, which charged {charged}: try again")]
    GivenBackTwice {
        line: InvoiceLineId,
        number: String,
        charged: Money,
        given: Money,
    },
    #[error("{0} was charged by another invoice meanwhile")]
    ItemCharged(ChargeItemId),
    #[error("{customer} pays in {pays} and the price is in {price}")]
    CurrencyMismatch {
        customer: CustomerId,
        pays: Currency,
        price: Currency,
    },
    #[error("{service} already has the subscription {subscription}")]
    AlreadySubscribed {
        service: ServiceId,
        subscription: SubscriptionId,
    },
    #[error("{subscription} has no period at {}", instant_text(*at_ms))]
    NoPeriod { subscription: SubscriptionId, at_ms: i64 },
    #[error("{phase} would have more than {limit} periods")]
    TooManyPeriods { phase: PhaseId, limit: usize },
    #[error("{0} bills no usage, so there is nothing to explain")]
    NoUsage(InvoiceLineId),
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
    #[error("write the evidence of a line")]
    Evidence(#[from] serde_json::Error),
    #[error("write CSV")]
    Csv(#[from] csv::Error),
}

schemas::error_codes! {
    BillingError: "billing";
    of [Database, Inventory, Usage, Money, Period, Ledger, Settlement, Tax, Event]
    source []
    NotFound:
        NoPlan = "no_plan", NoPrice = "no_price", NoSubscription = "no_subscription", NoInvoice = "no_invoice",
        NoInvoiceLine = "no_invoice_line", NoCoupon = "no_coupon", NoChange = "no_change",
        NoTransfer = "no_transfer", NoExclusion = "no_exclusion";
    Refused:
        OutOfRange = "out_of_range", Text = "text", TooFine = "too_fine", NoUsagePrice = "no_usage_price",
        UsagePrice = "usage_price", TiersEnd = "tiers_end", UsageOfFlatPlan = "usage_of_flat_plan",
        FreePlanCosts = "free_plan_costs", PriceInThePast = "price_in_the_past", PriceNotYet = "price_not_yet",
        DateOver = "date_over", NotAhead = "not_ahead", CouponCode = "coupon_code", CouponRefused = "coupon_refused",
        AddonAlone = "addon_alone", NotAnAddon = "not_an_addon", OtherService = "other_service",
        OtherServiceType = "other_service_type", NothingUnmeasured = "nothing_unmeasured", Spec = "spec",
        TransferIsMetered = "transfer_is_metered", FreeAddon = "free_addon", FreePlanIsOne = "free_plan_is_one",
        FreePlanRefused = "free_plan_refused", FreePlanFixed = "free_plan_fixed", TooEarly = "too_early",
        TransferRefused = "transfer_refused", NoVatNumber = "no_vat_number",
        CurrencyNotInUse = "currency_not_in_use", EndsBeforeStart = "ends_before_start", NoWindow = "no_window",
        NotCredited = "not_credited", CurrencyMismatch = "currency_mismatch", NoPeriod = "no_period",
        NoUsage = "no_usage", MoreThanLeft = "more_than_left", TooManyPeriods = "too_many_periods";
    Conflict:
        PlanArchived = "plan_archived", PriceExists = "price_exists", ParentCancelled = "parent_cancelled",
        CouponTaken = "coupon_taken", Stopped = "stopped", NotChargedNow = "not_charged_now",
        NothingChanges = "nothing_changes", Refused = "refused", NoTransition = "no_transition",
        ChangedMeanwhile = "changed_meanwhile", ChangeSettled = "change_settled", TransferState = "transfer_state",
        ItemCharged = "item_charged", AlreadySubscribed = "already_subscribed", GivenBackTwice = "given_back_twice",
        OutOfStock = "out_of_stock";
    Fault: Corrupt = "corrupt", Evidence = "evidence", Csv = "csv";
}

impl BillingError {
    pub(crate) fn corrupt(what: &'static str, text: impl Into<String>) -> BillingError {
        BillingError::Corrupt {
            what,
            text: text.into(),
        }
    }
}
