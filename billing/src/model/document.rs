//! Documents, their lines, and what takes them back.

use super::Model;
use super::calendar::year_of;
use super::tax::{Group, Rule, of_additions, of_charges, of_corrections};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Base,
    Addon,
    Discount,
    /// A discount that is not had for unused days.
    DiscountBack,
    Unused,
    Transfer,
    Percentile,
    Adjustment,
    Item,
    Reversal,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Base => "base",
            Kind::Addon => "addon",
            Kind::Discount | Kind::DiscountBack => "discount",
            Kind::Unused => "unused",
            Kind::Transfer => "transfer_overage",
            Kind::Percentile => "percentile_overage",
            Kind::Adjustment => "adjustment",
            Kind::Item => "item",
            Kind::Reversal => "reversal",
        }
    }

    fn account(self) -> &'static str {
        match self {
            Kind::Base | Kind::Unused => "revenue:base",
            Kind::Addon => "revenue:addon",
            Kind::Discount | Kind::DiscountBack => "discounts",
            Kind::Transfer | Kind::Percentile | Kind::Adjustment => "revenue:overage",
            Kind::Item | Kind::Reversal => "revenue:other",
        }
    }
}

/// A line to be written.
#[derive(Clone, Debug)]
pub(super) struct NewLine {
    pub(super) kind: Kind,
    pub(super) priced: i64,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    /// When its taxes are taken, where not by its time.
    pub(super) taxed_ms: Option<i64>,
    /// The line that it gives back or corrects.
    pub(super) of: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) document: usize,
    /// Its group's position there.
    group: usize,
    pub(super) kind: Kind,
    pub(super) priced: i64,
    pub(super) net: i64,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    /// The lines of which this one takes, directly and behind it.
    takes_of: Vec<usize>,
    /// What was not given back of it.
    pub(super) left: i64,
}

#[derive(Debug)]
pub(super) struct Document {
    pub(super) customer: usize,
    pub(super) is_note: bool,
    pub(super) number: String,
    /// Of a note: the document that it corrects.
    pub(super) corrects: Option<usize>,
    includes_tax: bool,
    groups: Vec<Group>,
    pub(super) lines: Vec<usize>,
    pub(super) net: i64,
    pub(super) tax: i64,
    pub(super) settled: i64,
    pub(super) written_off: i64,
    pub(super) is_void: bool,
}

impl Document {
    pub(super) fn total(&self) -> i64 {
        self.net + self.tax
    }

    pub(super) fn open(&self) -> i64 {
        self.total() - self.settled
    }

    pub(super) fn status(&self) -> &'static str {
        if self.open() == 0 && self.written_off != 0 {
            "uncollectible"
        } else if self.is_void {
            "void"
        } else if self.open() == 0 {
            "paid"
        } else if self.settled == 0 {
            "finalised"
        } else {
            "partially_paid"
        }
    }
}

/// Where a line's taxes come from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Basis {
    Rules(Vec<Rule>),
    /// The group of a document that it gives back of.
    Charged(usize, usize),
    /// The group of a document that it charges more than.
    More(usize, usize),
}

/// What stands on one document.
struct DocumentGroup {
    /// Order: what bears other taxes than those of today, or gives back what was written off, comes first.
    order: (bool, bool, bool, Option<usize>),
    lines: Vec<usize>,
    groups: Vec<(Basis, Vec<usize>)>,
}

impl Model {
    /// Writes what is due at one instant: one document, or several where their taxes keep them apart. Returns the lines.
    pub(super) fn write_due(&mut self, customer: usize, lines: &[NewLine], due_ms: i64, at_ms: i64) -> Vec<usize> {
        let includes_tax = self.customers[customer].taxed.prices_include_tax;
        let is_out = |rules: &[Rule]| rules[0].is_out_of_scope;
        let out_today = is_out(&self.rules(customer, due_ms));
        let mut sheets: Vec<DocumentGroup> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let mut written_off = None;
            let (basis, with_tax, out) = match line.of.filter(|_| line.kind != Kind::Discount) {
                Some(of) => {
                    let of = &self.lines[of];
                    let document = &self.documents[of.document];
                    let rules = &document.groups[of.group].rules;
                    // Nobody paid it, so it pays nothing else. The discount of unused days goes with them.
                    if document.written_off > 0 && (line.priced < 0 || line.kind == Kind::DiscountBack) {
                        written_off = Some(of.document);
                    }
                    let basis = if line.kind == Kind::Adjustment && line.priced > 0 {
                        Basis::More(of.document, of.group)
                    } else {
                        Basis::Charged(of.document, of.group)
                    };
                    (basis, document.includes_tax, is_out(rules))
                }
                None => {
                    // Over by then: the taxes of its last moment.
                    let is_over = line.from_ms < line.to_ms && line.to_ms <= due_ms;
                    let by_time = if is_over { line.to_ms - 1 } else { due_ms };
                    let rules = self.rules(customer, line.taxed_ms.unwrap_or(by_time));
                    let out = is_out(&rules);
                    (Basis::Rules(rules), includes_tax, out)
                }
            };
            let is_of_today = with_tax == includes_tax && out == out_today && written_off.is_none();
            let order = (is_of_today, with_tax, out, written_off);
            if !sheets.iter().any(|sheet| sheet.order == order) {
                sheets.push(DocumentGroup {
                    order,
                    lines: Vec::new(),
                    groups: Vec::new(),
                });
            }
            let sheet = sheets.iter_mut().find(|sheet| sheet.order == order).unwrap();
            sheet.lines.push(at);
            match sheet.groups.iter_mut().find(|(other, _)| *other == basis) {
                Some((_, of_group)) => of_group.push(at),
                None => sheet.groups.push((basis, vec![at])),
            }
        }
        sheets.sort_by_key(|sheet| sheet.order);
        let mut ids = vec![0; lines.len()];
        let mut documents = Vec::new();
        for sheet in sheets {
            documents.push(self.write_sheet(customer, lines, &sheet, &mut ids, at_ms));
        }
        for document in documents {
            if self.documents[document].is_note {
                self.settle_note(document);
            } else {
                self.use_credit(document);
            }
        }
        ids
    }

    fn write_sheet(
        &mut self,
        customer: usize,
        lines: &[NewLine],
        sheet: &DocumentGroup,
        ids: &mut [usize],
        at_ms: i64,
    ) -> usize {
        let includes_tax = sheet.order.1;
        let mut groups = Vec::new();
        let mut nets = vec![0; lines.len()];
        for (basis, of_group) in &sheet.groups {
            let priced: Vec<i64> = of_group.iter().map(|&at| lines[at].priced).collect();
            let (rules, found, corrects) = match basis {
                Basis::Rules(rules) => (rules.clone(), of_charges(&priced, rules, includes_tax), None),
                Basis::Charged(document, group) => {
                    let charged = &self.documents[*document].groups[*group];
                    let found = of_corrections(&priced, charged, includes_tax);
                    (charged.rules.clone(), found, Some((*document, *group)))
                }
                Basis::More(document, group) => {
                    let charged = &self.documents[*document].groups[*group];
                    let found = of_additions(&priced, charged, includes_tax);
                    (charged.rules.clone(), found, Some((*document, *group)))
                }
            };
            for (&at, &net) in of_group.iter().zip(&found.nets) {
                nets[at] = net;
            }
            groups.push(Group {
                is_more: matches!(basis, Basis::More(..)),
                ..new_group(rules, found.nets.iter().sum(), found.taxes, corrects)
            });
        }
        let total: i64 = groups
            .iter()
            .map(|group| group.net + group.taxes.iter().sum::<i64>())
            .sum();
        let gives_back = |at: &&usize| matches!(lines[**at].kind, Kind::Unused | Kind::DiscountBack | Kind::Adjustment);
        let first_back = sheet.lines.iter().find(gives_back);
        let corrects = first_back.map(|&at| self.lines[lines[at].of.unwrap()].document);
        let corrects = corrects.filter(|_| total < 0);
        let document = self.add_document(customer, total < 0, corrects, includes_tax, groups, at_ms);
        for &at in &sheet.lines {
            let of_group = |(_, of_group): &(Basis, Vec<usize>)| of_group.contains(&at);
            let group = sheet.groups.iter().position(of_group).unwrap();
            let mut line = lines[at].clone();
            if line.kind == Kind::Discount {
                // It is taken off the line before it.
                line.of = Some(ids[at - 1]);
            } else if line.kind == Kind::Adjustment && line.priced > 0 {
                // More is a charge of its own.
                line.of = None;
            }
            ids[at] = self.add_line(document, group, &line, nets[at]);
        }
        self.post_document(document);
        document
    }

    fn add_document(
        &mut self,
        customer: usize,
        is_note: bool,
        corrects: Option<usize>,
        includes_tax: bool,
        groups: Vec<Group>,
        at_ms: i64,
    ) -> usize {
        for group in &groups {
            // What is corrected stays as much less or more; who takes a correction back undoes that.
            let (mut corrected, mut is_more) = (group.corrects, group.is_more);
            while let Some((document, at)) = corrected {
                let before = &mut self.documents[document].groups[at];
                let (net, taxes) = if is_more {
                    (&mut before.more_net, &mut before.more_taxes)
                } else {
                    (&mut before.since_net, &mut before.since_taxes)
                };
                *net += group.net;
                for (sum, tax) in taxes.iter_mut().zip(&group.taxes) {
                    *sum += tax;
                }
                is_more |= before.is_more;
                corrected = before.corrects;
            }
        }
        let year = year_of(at_ms);
        let count = self.numbers.entry((is_note, year)).or_default();
        *count += 1;
        let prefix = if is_note { "CN" } else { "INV" };
        self.documents.push(Document {
            customer,
            is_note,
            number: format!("{prefix}-{year}-{count:06}"),
            corrects,
            includes_tax,
            net: groups.iter().map(|group| group.net).sum(),
            tax: groups.iter().flat_map(|group| &group.taxes).sum(),
            groups,
            lines: Vec::new(),
            settled: 0,
            written_off: 0,
            is_void: false,
        });
        self.documents.len() - 1
    }

    fn add_line(&mut self, document: usize, group: usize, new: &NewLine, net: i64) -> usize {
        let id = self.lines.len();
        let mut takes_of = Vec::new();
        if let Some(of) = new.of.filter(|_| new.priced != 0) {
            takes_of.push(of);
            takes_of.extend(&self.lines[of].takes_of);
        }
        for &of in &takes_of {
            self.lines[of].left += new.priced;
        }
        self.lines.push(Line {
            document,
            group,
            kind: new.kind,
            priced: new.priced,
            net,
            from_ms: new.from_ms,
            to_ms: new.to_ms,
            takes_of,
            left: new.priced,
        });
        self.documents[document].lines.push(id);
        id
    }

    /// The customer owes the total; lines earn their net amounts.
    fn post_document(&mut self, document: usize) {
        let document = &self.documents[document];
        for &of in document.lines.iter().flat_map(|&line| &self.lines[line].takes_of) {
            let line = &self.lines[of];
            let (least, most) = (line.priced.min(0), line.priced.max(0));
            assert!((least..=most).contains(&line.left), "given back twice: {line:?}");
        }
        let (customer, total, tax) = (document.customer, document.total(), document.tax);
        let earned: Vec<(&str, i64)> = document
            .lines
            .iter()
            .map(|&line| {
                let line = &self.lines[line];
                // A part that is taken back was not earned where its line was.
                let kind = match (line.kind, line.takes_of.first()) {
                    (Kind::Reversal, Some(&of)) => self.lines[of].kind,
                    (kind, _) => kind,
                };
                (kind.account(), line.net)
            })
            .collect();
        self.post(&format!("receivable:cus_{}", customer + 1), total);
        self.post("tax", -tax);
        for (account, net) in earned {
            self.post(account, -net);
        }
    }

    /// Of charges of which nothing is left, no net and no tax is left. Credits among them are left out: with them what is left
    /// can be less than nothing.
    pub(super) fn assert_no_tax_stays_alone(&self) {
        for document in &self.documents {
            for (at, group) in document.groups.iter().enumerate() {
                let mut lines = document.lines.iter().map(|&line| &self.lines[line]);
                let is_credit = |line: &Line| line.group == at && line.priced < 0 && line.kind != Kind::Discount;
                let gives_back = group.corrects.is_some() && !group.is_more;
                if gives_back || lines.any(is_credit) {
                    continue;
                }
                let left: Vec<i64> = group
                    .taxes
                    .iter()
                    .zip(&group.since_taxes)
                    .map(|(tax, since)| tax + since)
                    .collect();
                let with_tax: i64 = if document.includes_tax { left.iter().sum() } else { 0 };
                let is_gone = group.left_net() + with_tax == 0;
                let is_clean = group.left_net() == 0 && left.iter().all(|&tax| tax == 0);
                assert!(!is_gone || is_clean, "{}: {group:?}", document.number);
            }
        }
    }

    /// What can be given back of a document, by price.
    pub(crate) fn left_of(&self, document: usize) -> i64 {
        let lines = self.documents[document].lines.iter().map(|&line| &self.lines[line]);
        // What a discount takes off a line is not left of that line.
        lines
            .filter(|line| line.kind != Kind::Discount)
            .map(|line| line.left)
            .sum()
    }

    /// Whether a part of a document can be credited; `None`: all that is left of it.
    pub(crate) fn can_credit(&self, document: usize, cents: Option<i64>) -> bool {
        let found = &self.documents[document];
        let left = self.left_of(document);
        !found.is_note && !found.is_void && left > 0 && cents.is_none_or(|cents| cents > 0 && cents <= left)
    }

    /// Credits an amount of a document, or what is left of it.
    pub(crate) fn credit(&mut self, document: usize, cents: Option<i64>, at_ms: i64) {
        let left = self.left_of(document);
        let gives_back = |&&line: &&usize| self.lines[line].kind != Kind::Discount && self.lines[line].left < 0;
        let has_such = self.documents[document].lines.iter().any(|line| gives_back(&line));
        let lines = match cents {
            Some(cents) if cents < left || !has_such => self.parts(document, cents),
            _ => self.whole(document),
        };
        self.issue_note(document, &lines, at_ms);
    }

    /// Makes a document void, and lets its charges be made again where that is asked.
    pub(crate) fn void(&mut self, document: usize, is_rebilled: bool, at_ms: i64) {
        let found = &self.documents[document];
        assert!(
            !found.is_note && found.settled == 0 && found.status() == "finalised",
            "{found:?}"
        );
        let lines = self.whole(document);
        self.issue_note(document, &lines, at_ms);
        self.documents[document].is_void = true;
        self.give_back_again(document);
        if is_rebilled {
            self.release(document);
        }
    }

    /// Days that a void document gave back are charged until they are given back again, whether its charges are made again or not.
    fn give_back_again(&mut self, document: usize) {
        let phases = self.subscriptions.iter_mut();
        for phase in phases.flat_map(|subscription| &mut subscription.phases) {
            for given in &phase.given_back {
                if self.lines[given.line].document == document {
                    phase.base_to = phase.base_to.max(Some(given.to));
                }
            }
        }
    }

    /// What was charged on a document is charged anew.
    fn release(&mut self, document: usize) {
        let is_on = |line: usize| self.lines[line].document == document;
        for subscription in &mut self.subscriptions {
            for phase in &mut subscription.phases {
                let released: Vec<_> = phase.cycles.iter().filter(|cycle| is_on(cycle.line)).collect();
                if let Some(from) = released.iter().map(|cycle| cycle.from).min() {
                    phase.base_to = Some(from).filter(|from| *from > phase.from);
                }
                phase.cycles.retain(|cycle| !is_on(cycle.line));
                let released = phase.months.iter().filter(|month| is_on(month.line));
                if let Some(from_ms) = released.map(|month| month.from_ms).min() {
                    phase.usage_to_ms = Some(from_ms);
                }
                phase.months.retain(|month| !is_on(month.line));
                for month in &mut phase.months {
                    let before = month.adjustments.len();
                    month.adjustments.retain(|&line| !is_on(line));
                    month.has_changed |= month.adjustments.len() < before;
                }
            }
        }
        for item in &mut self.items {
            if item.on == Some(document) {
                item.on = None;
            }
        }
    }

    fn issue_note(&mut self, document: usize, lines: &[(usize, NewLine)], at_ms: i64) {
        let found = &self.documents[document];
        let (customer, includes_tax) = (found.customer, found.includes_tax);
        let mut groups = Vec::new();
        let mut nets = vec![0; lines.len()];
        for (position, group) in found.groups.iter().enumerate() {
            let of_group: Vec<usize> = (0..lines.len()).filter(|&at| lines[at].0 == position).collect();
            if of_group.is_empty() {
                continue;
            }
            let priced: Vec<i64> = of_group.iter().map(|&at| lines[at].1.priced).collect();
            let taxes = of_corrections(&priced, group, includes_tax);
            for (&at, &net) in of_group.iter().zip(&taxes.nets) {
                nets[at] = net;
            }
            let net = taxes.nets.iter().sum();
            let corrects = Some((document, position));
            groups.push(new_group(group.rules.clone(), net, taxes.taxes, corrects));
        }
        let note = self.add_document(customer, true, Some(document), includes_tax, groups, at_ms);
        for (at, (group, line)) in lines.iter().enumerate() {
            self.add_line(note, *group, line, nets[at]);
        }
        self.post_document(note);
        // What was measured stays less, also where what gave it back is taken back.
        let gave_back = |&&line: &&usize| {
            let line = &self.lines[line];
            line.kind == Kind::Adjustment && line.priced < 0
        };
        if self.documents[document].lines.iter().any(|line| gave_back(&line)) {
            let lines = &self.lines;
            let phases = self
                .subscriptions
                .iter_mut()
                .flat_map(|subscription| &mut subscription.phases);
            for month in phases.flat_map(|phase| &mut phase.months) {
                let mut adjustments = month.adjustments.iter();
                month.has_changed |= adjustments.any(|&line| lines[line].document == document);
            }
        }
        self.settle_note(note);
    }

    /// Everything that is left of a document, line for line, with the group of each.
    fn whole(&self, document: usize) -> Vec<(usize, NewLine)> {
        let lines = &self.documents[document].lines;
        let all: i64 = lines.iter().map(|&line| self.lines[line].priced).sum();
        let is_whole = self.left_of(document) == all;
        let mut found = Vec::new();
        let mut rest = lines.iter().copied().peekable();
        while let Some(at) = rest.next() {
            let line = &self.lines[at];
            let discount = rest.next_if(|&next| self.lines[next].kind == Kind::Discount);
            let off = discount.map(|discount| &self.lines[discount]);
            match (discount, off) {
                // A discount goes with its line, where nothing else was given back of either.
                (Some(discount), Some(off)) if line.left == line.priced + off.priced && off.left == off.priced => {
                    found.push(self.back(at, line.priced));
                    found.push(self.back(discount, off.priced));
                }
                (None, _) if line.left == line.priced && (line.priced != 0 || is_whole) => {
                    found.push(self.back(at, line.priced));
                }
                _ if line.left != 0 => found.push(self.back(at, line.left)),
                _ => {}
            }
        }
        found
    }

    fn back(&self, of: usize, cents: i64) -> (usize, NewLine) {
        let line = &self.lines[of];
        let back = NewLine {
            kind: line.kind,
            priced: -cents,
            from_ms: line.from_ms,
            to_ms: line.to_ms,
            taxed_ms: None,
            of: Some(of),
        };
        (line.group, back)
    }

    /// An amount, in proportion to what is left of each charge: whole cents, the largest remainders first.
    fn parts(&self, document: usize, cents: i64) -> Vec<(usize, NewLine)> {
        let lines = self.documents[document].lines.iter().copied();
        let charges: Vec<usize> = lines
            .filter(|&line| {
                let line = &self.lines[line];
                line.kind != Kind::Discount && line.kind != Kind::DiscountBack && line.priced > 0 && line.left > 0
            })
            .collect();
        let sum: i64 = charges.iter().map(|&line| self.lines[line].left).sum();
        let exact = |line: usize| i128::from(cents) * i128::from(self.lines[line].left);
        let mut shares: Vec<i64> = charges
            .iter()
            .map(|&line| i64::try_from(exact(line) / i128::from(sum)).unwrap())
            .collect();
        let missing = usize::try_from(cents - shares.iter().sum::<i64>()).unwrap();
        let mut order: Vec<usize> = (0..charges.len()).collect();
        order.sort_by_key(|&at| -(exact(charges[at]) % i128::from(sum)));
        for &at in order.iter().take(missing) {
            shares[at] += 1;
        }
        let mut found = Vec::new();
        for (&line, &share) in charges.iter().zip(&shares) {
            if share > 0 {
                let (group, back) = self.back(line, share);
                let kind = Kind::Reversal;
                found.push((group, NewLine { kind, ..back }));
            }
        }
        found
    }
}

fn new_group(rules: Vec<Rule>, net: i64, taxes: Vec<i64>, corrects: Option<(usize, usize)>) -> Group {
    Group {
        net,
        since_net: 0,
        since_taxes: vec![0; rules.len()],
        more_net: 0,
        more_taxes: vec![0; rules.len()],
        rules,
        taxes,
        corrects,
        is_more: false,
    }
}
