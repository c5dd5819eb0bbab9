//! A second model of billing, plain and slow, that tests compare the product with.
//!
//! It is written from the rules (FEATURES.md, docs/billing.md) and shares no arithmetic with the product: prices, taxes,
//! periods, what is given back, what settles what are computed here a second time, on whole cents and exact fractions. It is
//! told what happens, in the order in which it happens, and whether the product took it or refused it for its state; what
//! the books say then is its own finding ([`Model::books`]).
//!
//! | file | has |
//! |---|---|
//! | `terms.rs` | prices, coupons, how customers are taxed |
//! | `agreement.rs` | who pays for what from which day to which |
//! | `traffic.rs` | what was measured |
//! | `due.rs` | what is due, and what it costs |
//! | `sharing.rs` | who uses what others leave of what is included |
//! | `tax.rs` | the tax of charges and of what corrects them |
//! | `document.rs` | documents and their lines, notes that take back |
//! | `account.rs` | payments, credit, what is open |
//!
//! What it leaves out: plans that are free, reverse charge, refunds and disputes, collection, days that are not charged while
//! a service is suspended.

mod account;
mod agreement;
mod calendar;
mod document;
mod due;
mod fraction;
mod sharing;
mod tax;
mod terms;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::BTreeMap;

pub(crate) use agreement::CancellationTime;
use agreement::Subscription;
use document::{Document, Line};
pub(crate) use terms::{
    CountedDirection, Coupon, CouponDiscount, Customer, Offer, PlaceRate, Taxed, UnitPrice, UsageTerms,
};
use traffic::Traffic;

/// Corrections reach so far back.
const REACH_MS: i64 = 400 * calendar::DAY_MS;

/// Something to be charged or credited once.
#[derive(Debug)]
struct Item {
    customer: usize,
    cents: i64,
    said_ms: i64,
    /// The document that has it.
    on: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Model {
    customers: Vec<Customer>,
    offers: Vec<Offer>,
    coupons: Vec<Coupon>,
    place_rates: Vec<PlaceRate>,
    subscriptions: Vec<Subscription>,
    items: Vec<Item>,
    traffic: Traffic,
    documents: Vec<Document>,
    lines: Vec<Line>,
    accounts: BTreeMap<String, i64>,
    /// How many documents of a kind were numbered in a year.
    numbers: BTreeMap<(bool, i16), u32>,
}

/// What the books say: balances that are not zero, and each document.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Books {
    pub(crate) balances: BTreeMap<String, i64>,
    pub(crate) documents: Vec<ComparedDocument>,
}

/// A document as it is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ComparedDocument {
    pub(crate) number: String,
    pub(crate) customer: usize,
    pub(crate) net: i64,
    pub(crate) tax: i64,
    pub(crate) total: i64,
    pub(crate) open: i64,
    pub(crate) status: String,
    pub(crate) lines: Vec<ComparedLine>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ComparedLine {
    pub(crate) kind: String,
    pub(crate) priced: i64,
    pub(crate) net: i64,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

impl Model {
    pub(crate) fn new(
        customers: Vec<Customer>,
        offers: Vec<Offer>,
        coupons: Vec<Coupon>,
        place_rates: Vec<PlaceRate>,
    ) -> Model {
        Model {
            customers,
            offers,
            coupons,
            place_rates,
            subscriptions: Vec::new(),
            items: Vec::new(),
            traffic: Traffic::default(),
            documents: Vec::new(),
            lines: Vec::new(),
            accounts: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    pub(crate) fn customers(&self) -> usize {
        self.customers.len()
    }

    /// From an instant on a tax of a place has another rate.
    pub(crate) fn change_place_rate(&mut self, country: &'static str, name: &'static str, rate: i64, at_ms: i64) {
        let mut holding = self.place_rates.iter_mut();
        let held = holding.find(|held| held.country == country && held.name == name && held.to_ms.is_none());
        held.unwrap().to_ms = Some(at_ms);
        self.place_rates.push(PlaceRate {
            country,
            name,
            rate,
            from_ms: at_ms,
            to_ms: None,
        });
    }

    pub(crate) fn change_taxed(&mut self, customer: usize, taxed: Taxed) {
        self.customers[customer].taxed = taxed;
    }

    /// Months that are charged from now on are shared, or not.
    pub(crate) fn change_pooling(&mut self, customer: usize, pools_usage: bool) {
        self.customers[customer].pools_usage = pools_usage;
    }

    pub(crate) fn add_item(&mut self, customer: usize, cents: i64, at_ms: i64) {
        self.items.push(Item {
            customer,
            cents,
            said_ms: at_ms,
            on: None,
        });
    }

    /// Traffic that arrives, perhaps late.
    pub(crate) fn add_traffic(&mut self, service: u32, at_ms: i64, bytes: (u64, u64)) {
        self.traffic.add(service, at_ms, bytes);
        let at_ms = calendar::window(at_ms);
        self.look_again(None, at_ms, at_ms + calendar::WINDOW_MS);
    }

    /// It turns out that nobody was heard.
    pub(crate) fn silence(&mut self, from_ms: i64, to_ms: i64) {
        self.traffic.silence(from_ms, to_ms);
        self.look_again(None, from_ms, to_ms);
    }

    pub(crate) fn flag(&mut self, service: u32, from_ms: i64, to_ms: i64) {
        self.traffic.flag(service, from_ms, to_ms);
        self.look_again(Some(service), from_ms, to_ms);
    }

    pub(crate) fn unflag(&mut self, service: u32, from_ms: i64, to_ms: i64) {
        self.traffic.unflag(service, from_ms, to_ms);
        self.look_again(Some(service), from_ms, to_ms);
    }

    /// Charged months are looked at again where something has changed in their time.
    fn look_again(&mut self, service: Option<u32>, from_ms: i64, to_ms: i64) {
        let mut shared = Vec::new();
        for subscription in &mut self.subscriptions {
            if service.is_some_and(|service| service != subscription.service) {
                continue;
            }
            for month in subscription.phases.iter_mut().flat_map(|phase| &mut phase.months) {
                if month.from_ms < to_ms && from_ms < month.to_ms {
                    month.has_changed = true;
                    if service.is_some() && month.pool.is_some() {
                        shared.push((self.lines[month.line].document, month.from_ms, month.to_ms));
                    }
                }
            }
        }
        if shared.is_empty() {
            return;
        }
        // And those on the same document for the same time, which it may leave more or less.
        let phases = self
            .subscriptions
            .iter_mut()
            .flat_map(|subscription| &mut subscription.phases);
        for month in phases.flat_map(|phase| &mut phase.months) {
            let place = (self.lines[month.line].document, month.from_ms, month.to_ms);
            month.has_changed |= shared.contains(&place);
        }
    }

    /// What the books say now. Of charges of which nothing is left no tax is left.
    pub(crate) fn books(&self) -> Books {
        self.assert_no_tax_stays_alone();
        let balances = self.accounts.iter().filter(|(_, cents)| **cents != 0);
        Books {
            balances: balances.map(|(name, cents)| (name.clone(), *cents)).collect(),
            documents: self.documents.iter().map(|document| self.show(document)).collect(),
        }
    }

    fn show(&self, document: &Document) -> ComparedDocument {
        let lines = document.lines.iter().map(|&line| {
            let line = &self.lines[line];
            ComparedLine {
                kind: line.kind.name().to_owned(),
                priced: line.priced,
                net: line.net,
                from_ms: line.from_ms,
                to_ms: line.to_ms,
            }
        });
        ComparedDocument {
            number: document.number.clone(),
            customer: document.customer,
            net: document.net,
            tax: document.tax,
            total: document.net + document.tax,
            open: document.open(),
            status: document.status().to_owned(),
            lines: lines.collect(),
        }
    }
}
