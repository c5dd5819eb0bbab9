//! Payments, credit, what is open.

use super::Model;

impl Model {
    pub(super) fn post(&mut self, account: &str, cents: i64) {
        *self.accounts.entry(format!("{account}:EUR")).or_default() += cents;
    }

    /// What a customer has as credit.
    fn credit_of(&self, customer: usize) -> i64 {
        let balance = self.accounts.get(&format!("credit:cus_{}:EUR", customer + 1));
        -balance.copied().unwrap_or(0)
    }

    fn post_credit(&mut self, customer: usize, cents: i64) {
        self.post(&format!("credit:cus_{}", customer + 1), -cents);
    }

    fn post_owed(&mut self, customer: usize, cents: i64) {
        self.post(&format!("receivable:cus_{}", customer + 1), cents);
    }

    /// A bank transfer: pays what is open of an invoice, then what was written off of it; the rest is credit.
    pub(crate) fn pay(&mut self, customer: usize, invoice: Option<usize>, cents: i64) {
        let mut rest = cents;
        if let Some(invoice) = invoice {
            let document = &mut self.documents[invoice];
            let to_open = rest.min(document.open());
            let recovered = (rest - to_open).min(document.written_off);
            rest -= to_open + recovered;
            document.settled += to_open;
            document.written_off -= recovered;
            self.post_owed(customer, -to_open);
            self.post("bad_debt", -recovered);
        }
        self.post("cash:manual", cents);
        self.post_credit(customer, rest);
    }

    pub(crate) fn grant(&mut self, customer: usize, cents: i64) {
        self.post("promotion", cents);
        self.post_credit(customer, cents);
    }

    /// Credit pays what is open of an invoice.
    pub(super) fn use_credit(&mut self, invoice: usize) {
        let customer = self.documents[invoice].customer;
        let cents = self.credit_of(customer).min(self.documents[invoice].open()).max(0);
        self.documents[invoice].settled += cents;
        self.post_credit(customer, -cents);
        self.post_owed(customer, -cents);
    }

    /// What credit does not pay is given up.
    pub(crate) fn write_off(&mut self, invoice: usize) {
        self.use_credit(invoice);
        let document = &mut self.documents[invoice];
        let (customer, cents) = (document.customer, document.open().max(0));
        document.settled += cents;
        document.written_off += cents;
        self.post("bad_debt", cents);
        self.post_owed(customer, -cents);
    }

    /// A note settles what is open of its invoice, then what was written off of it; the rest is credit.
    pub(super) fn settle_note(&mut self, note: usize) {
        let document = &self.documents[note];
        let customer = document.customer;
        let mut rest = -document.open();
        if let Some(corrected) = document.corrects {
            let invoice = &mut self.documents[corrected];
            let to_open = rest.min(invoice.open().max(0));
            let not_owed = (rest - to_open).min(invoice.written_off);
            invoice.settled += to_open;
            invoice.written_off -= not_owed;
            rest -= to_open + not_owed;
            self.post_owed(customer, not_owed);
            self.post("bad_debt", -not_owed);
        }
        self.documents[note].settled = self.documents[note].total();
        self.post_owed(customer, rest);
        self.post_credit(customer, rest);
    }
}
