//! From number to money: what a plan charges, what a period used, and the invoice that says so.
//!
//! * [`catalog`]: plans and their prices; [`catalog_act`]: what people do to them, with its entry in the audit log.
//! * [`subscription`]: which service pays for which plan, and the periods that follow from it.
//! * Usage comes from whoever implements [`schemas::usage::UsageSource`]: rating never reads flows itself.
//! * [`rating`]: plan + price + usage + period → lines. Pure functions; [`ratio`] is the only place where a cent is
//!   rounded (B2).
//! * [`line_kind`]: what a line charges for. [`evidence`]: what it was computed from, kept with it (B5).
//! * [`invoice`]: preview, close, read, recompute, explain, export.
//! * [`ledger`]: double entry (B1).
//! * [`settlement`]: what settles documents, and what opens them again.
//! * [`quote`]: what a customer asks to be done to subscriptions, what it costs, and doing it.
//! * [`payment`]: money that comes in and goes out through gateways, exactly once (B4).
//! * [`refund`]: what is given back of an invoice and the money that leaves, as one act.
//! * [`vat`]: whether customers' VAT numbers were given out.
//! * [`action`], [`approval`]: what of billing a second admin decides, and doing it. [`event`]: the facts of its events. They stand
//!   on [`activity`].
//! * [`collection_terms`]: when invoices are due, and the days on which something is done where they are not paid.
//! * [`dunning`], [`top_up`], [`budget`]: what is done about unpaid invoices, low credit and high spending; [`charger`] is
//!   where they meet payments.
//!
//! * [`prune`]: old records that no money depends on are removed.
//! * [`guard`]: what stops billing: a clock that jumped, usage that was not measured.
//!
//! Nothing here reads a clock: whoever calls says what time it is.

pub mod action;
pub mod aging;
pub mod approval;
pub mod budget;
pub mod catalog;
pub mod catalog_act;
pub mod charger;
pub mod collection_terms;
pub mod deal;
pub mod document;
pub mod dunning;
mod error;
pub mod event;
pub mod evidence;
pub mod exclusion;
pub mod export;
mod field;
mod gateway_name;
pub mod guard;
#[cfg(test)]
mod histories;
pub mod invoice;
pub mod ledger;
pub mod lifecycle;
pub mod line_kind;
#[cfg(test)]
mod model;
pub mod payment;
pub mod price;
pub mod prune;
pub mod quote;
pub mod rating;
pub mod ratio;
pub mod refund;
pub mod reseller;
pub mod settlement;
pub mod subscription;
pub mod tax;
#[cfg(test)]
mod testing;
pub mod top_up;
#[cfg(test)]
mod upgrades;
pub mod vat;

pub use error::BillingError;
