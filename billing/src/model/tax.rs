//! The tax of what is charged, and of what corrects it.

use super::Model;
use super::fraction::Fraction;
use super::terms::Taxed;

/// Percent, in thousandths.
const HUNDRED: i64 = 100_000;

/// A tax that a line bears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    name: String,
    /// Thousandths of a percent.
    rate: i64,
    /// Such as cannot stand on one document with others.
    pub(super) is_out_of_scope: bool,
}

/// Lines of a document that bear the same taxes.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) rules: Vec<Rule>,
    pub(super) net: i64,
    /// Of each rule.
    pub(super) taxes: Vec<i64>,
    /// What corrections of it have added since.
    pub(super) since_net: i64,
    pub(super) since_taxes: Vec<i64>,
    /// What was charged more for the same since, as far as it was not given back.
    pub(super) more_net: i64,
    pub(super) more_taxes: Vec<i64>,
    /// The group that this one corrects: its document, and its position there.
    pub(super) corrects: Option<(usize, usize)>,
    /// It charges more than that one, and gives nothing of it back.
    pub(super) is_more: bool,
}

impl Group {
    pub(super) fn left_net(&self) -> i64 {
        self.net + self.since_net
    }
}

/// Net amounts of lines, and what each tax of them is.
#[derive(Debug)]
pub(super) struct Taxes {
    pub(super) nets: Vec<i64>,
    pub(super) taxes: Vec<i64>,
}

impl Model {
    /// The taxes of a customer at an instant.
    pub(super) fn rules(&self, customer: usize, at_ms: i64) -> Vec<Rule> {
        let customer = &self.customers[customer];
        let Taxed { is_exempt, agreed, .. } = customer.taxed;
        let rule = |name: &str, rate| Rule {
            name: name.to_owned(),
            rate,
            is_out_of_scope: false,
        };
        if is_exempt {
            return vec![rule("exempt", 0)];
        }
        if agreed > 0 {
            return vec![rule(if customer.country == "DE" { "VAT" } else { "Tax" }, agreed)];
        }
        let of_place = self.place_rates.iter().filter(|rate| {
            rate.country == customer.country && rate.from_ms <= at_ms && rate.to_ms.is_none_or(|to_ms| at_ms < to_ms)
        });
        let mut found: Vec<Rule> = of_place.map(|rate| rule(rate.name, rate.rate)).collect();
        if found.is_empty() {
            found.push(Rule {
                is_out_of_scope: true,
                ..rule("none", 0)
            });
        }
        found
    }
}

/// The taxes of new charges: of net prices on their sum, of prices with tax out of it.
pub(super) fn of_charges(priced: &[i64], rules: &[Rule], includes_tax: bool) -> Taxes {
    let sum: i64 = priced.iter().sum();
    let taxes: Vec<i64> = rules
        .iter()
        .map(|rule| by_rate(sum, rule, rules, includes_tax))
        .collect();
    with_nets(priced, rules, includes_tax, taxes)
}

/// The taxes of lines that give back of a group: what stays bears its proportion of the tax that was charged; theirs is the
/// difference. When nothing stays, no tax does.
pub(super) fn of_corrections(priced: &[i64], group: &Group, includes_tax: bool) -> Taxes {
    let taxes = group.taxes.iter().zip(&group.since_taxes);
    let taxes: Vec<i64> = taxes.map(|(tax, since)| tax + since).collect();
    differing(priced, group, (group.left_net(), taxes), includes_tax)
}

/// The taxes of lines that charge more than a group: of all that is charged by then, first and later, its proportion up to what
/// was charged first and the rate beyond.
pub(super) fn of_additions(priced: &[i64], group: &Group, includes_tax: bool) -> Taxes {
    let mut taxes = group.taxes.clone();
    for more in [&group.since_taxes, &group.more_taxes] {
        for (tax, more) in taxes.iter_mut().zip(more) {
            *tax += more;
        }
    }
    let net = group.left_net() + group.more_net;
    differing(priced, group, (net, taxes), includes_tax)
}

fn differing(priced: &[i64], group: &Group, (net, before): (i64, Vec<i64>), includes_tax: bool) -> Taxes {
    let (mut charged, mut left) = (group.net, net);
    if includes_tax {
        charged += group.taxes.iter().sum::<i64>();
        left += before.iter().sum::<i64>();
    }
    let stays = left + priced.iter().sum::<i64>();
    let mut taxes = Vec::new();
    for ((rule, &tax), before) in group.rules.iter().zip(&group.taxes).zip(before) {
        let rated = |of| by_rate(of, rule, &group.rules, includes_tax);
        let tax_that_stays = if charged == 0 || charged.signum() * stays.signum() < 0 {
            rated(stays)
        } else if stays.abs() > charged.abs() {
            tax + rated(stays - charged)
        } else {
            (Fraction::whole(tax) * Fraction::new(stays.into(), charged.into())).round()
        };
        taxes.push(tax_that_stays - before);
    }
    with_nets(priced, &group.rules, includes_tax, taxes)
}

fn by_rate(of: i64, rule: &Rule, rules: &[Rule], includes_tax: bool) -> i64 {
    let whole = if includes_tax { HUNDRED + all(rules) } else { HUNDRED };
    (Fraction::whole(of) * Fraction::new(rule.rate.into(), whole.into())).round()
}

fn all(rules: &[Rule]) -> i64 {
    rules.iter().map(|rule| rule.rate).sum()
}

/// Where prices include tax, the net amounts of lines sum to what the taxes leave.
fn with_nets(priced: &[i64], rules: &[Rule], includes_tax: bool, taxes: Vec<i64>) -> Taxes {
    if !includes_tax {
        let nets = priced.to_vec();
        return Taxes { nets, taxes };
    }
    let sum: i64 = priced.iter().sum();
    let net = sum - taxes.iter().sum::<i64>();
    // What gives back is cut as what it gives back was.
    let leads = if sum == 0 {
        priced.iter().copied().find(|cents| *cents != 0)
    } else {
        Some(sum)
    };
    let sign = if leads.is_some_and(|cents| cents < 0) { -1 } else { 1 };
    let turned: Vec<i64> = priced.iter().map(|cents| sign * cents).collect();
    let nets = cut(&turned, HUNDRED + all(rules), sign * net);
    Taxes {
        nets: nets.into_iter().map(|cents| sign * cents).collect(),
        taxes,
    }
}

/// Each line's net amount is rounded down; the cents that are missing go to those that lost most.
fn cut(lines: &[i64], gross: i64, net: i64) -> Vec<i64> {
    let exact: Vec<i64> = lines.iter().map(|line| line * HUNDRED).collect();
    let mut nets: Vec<i64> = exact.iter().map(|exact| exact.div_euclid(gross)).collect();
    let mut missing = net - nets.iter().sum::<i64>();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    // Of equal ones the larger line first. Where cents are too many, those that lost least give them.
    let lost = |at: usize| exact[at].rem_euclid(gross) * if missing < 0 { 1 } else { -1 };
    order.sort_by_key(|&at| (lost(at), -lines[at].abs(), at));
    while missing != 0 {
        for &at in &order {
            if missing != 0 {
                nets[at] += missing.signum();
                missing -= missing.signum();
            }
        }
    }
    nets
}
