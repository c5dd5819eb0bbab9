//! What staff does in the story, on the days on which it happened; each act has its entry in the audit log.

use activity::act::{Act, By, Note};
use anyhow::Context as _;
use billing::invoice::{self, Credited, Invoice, InvoiceFilter, Rebill};
use billing::payment::trial::Card;
use billing::payment::{self, GatewayCharger, NewRefund, PaymentFilter, PaymentState, Transfer};
use billing::subscription::change::{self, CancellationTime};
use billing::{action, settlement, top_up};
use schemas::money::{Currency, Money};
use schemas::window::HOUR_MS;
use serde_json::json;

use super::super::people::{ADMIN, FINANCE, SECOND_ADMIN};
use super::cast::{BROKE, BUSINESS, CHARACTERS, COLLEGE, FORGETFUL, GONE, LATE};
use super::{Known, SETUP_FEE_DAYS, Story};

impl Story<'_> {
    /// The newest invoice of one of the story's customers.
    async fn newest(&self, index: usize) -> anyhow::Result<Invoice> {
        let filter = InvoiceFilter {
            customer: Some(self.known[&index].customer),
            kind: Some(invoice::InvoiceKind::Invoice),
            ..InvoiceFilter::default()
        };
        let found = invoice::list_all(self.database.pool(), filter)
            .await?
            .into_iter()
            .next();
        found.with_context(|| format!("{} has no invoice", CHARACTERS[index].name))
    }

    pub(super) async fn staff_acts(&self, days_ago: i64) -> anyhow::Result<()> {
        let at_ms = self.ago(days_ago) - HOUR_MS;
        match days_ago {
            // Both halves of the first invoice came by transfer, and of the second one half so far.
            48 => self.transfer_half(COLLEGE, "OCC-2281", at_ms).await?,
            40 => self.transfer_rest(COLLEGE, "OCC-2304", at_ms).await?,
            13 => self.transfer_half(COLLEGE, "OCC-2377", at_ms).await?,
            39 => self.give_back(BUSINESS, at_ms).await?,
            30 => {
                self.save_card(self.known[&LATE].customer, Card::Accepted, at_ms)
                    .await?;
            }
            29 => self.grant(LATE, at_ms).await?,
            45 => self.end(GONE, at_ms).await?,
            20 => self.write_off(GONE, at_ms).await?,
            SETUP_FEE_DAYS => self.charge_set_up(FORGETFUL, at_ms).await?,
            15 => self.void(FORGETFUL, at_ms).await?,
            12 => self.top_up(BUSINESS, at_ms).await?,
            2 => self.ask_for_a_second_admin(BROKE, at_ms).await?,
            _ => {}
        }
        Ok(())
    }

    async fn transfer_half(&self, index: usize, reference: &str, at_ms: i64) -> anyhow::Result<()> {
        let found = self.newest(index).await?;
        let open = found.outstanding();
        let half = Money::new(open.minor / 2, open.currency);
        self.transfer(&found, half, reference, at_ms).await
    }

    async fn transfer_rest(&self, index: usize, reference: &str, at_ms: i64) -> anyhow::Result<()> {
        let found = self.newest(index).await?;
        self.transfer(&found, found.outstanding(), reference, at_ms).await
    }

    pub(super) async fn transfer(
        &self,
        found: &Invoice,
        amount: Money,
        reference: &str,
        at_ms: i64,
    ) -> anyhow::Result<()> {
        let mut act = self.act(FINANCE, at_ms).await?;
        let transfer = Transfer {
            customer: found.customer,
            invoice: Some(found.id),
            amount,
            reference,
            note: "",
            value_date: None,
        };
        let payment = payment::record_transfer_in(act.connection(), &transfer, at_ms).await?;
        let change = json!({"before": {"open": found.outstanding().to_string()},
            "after": {"payment": payment.id, "amount": amount.to_string(), "reference": reference}});
        act.commit(Note::new("payment.record_transfer", found.id).change(change))
            .await?;
        Ok(())
    }

    /// A part of what was paid is given back: a credit note, and the money to the card it came from.
    async fn give_back(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let found = self.newest(index).await?;
        let net = Money::new(1_500, found.currency);
        let reason = "six hours without mail on a working day";
        let mut act = self.act(FINANCE, at_ms).await?;
        let credited = Credited::Amount(net);
        let note = invoice::credit(act.connection(), found.id, credited, reason, at_ms).await?;
        let change = json!({"before": {"open": found.outstanding().to_string()},
            "after": {"credit_note": note, "amount": net.to_string(), "reason": reason}});
        act.commit(Note::new("invoice.credit", found.id).change(change)).await?;
        let gross = invoice::get(self.database, note).await?.invoice.total;
        let filter = PaymentFilter {
            invoice: Some(found.id),
            state: Some(PaymentState::Succeeded),
            ..PaymentFilter::default()
        };
        let paid = payment::list(self.database.pool(), filter, 1).await?;
        let paid = paid.first().context("the business paid its invoice by card")?;
        let amount = Money::new(gross.minor.abs(), gross.currency);
        let new = NewRefund {
            payment: paid.id,
            amount,
            reason,
            created_by: FINANCE,
        };
        let change = json!({"after": {"refund": amount.to_string(), "reason": reason}});
        let begins = Note::new("payment.refund", paid.id).change(change);
        let steps = Act::steps(self.database, By::from(self.people.actor(FINANCE)), at_ms, begins).await?;
        let refund = payment::refund(self.database, self.gateways.get(paid.gateway)?, &new, at_ms).await?;
        steps.end(Ok(json!({"refund": refund.id}))).await?;
        Ok(())
    }

    async fn grant(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let customer = self.known[&index].customer;
        let amount = Money::new(500, Currency::EUR);
        let mut act = self.act(SECOND_ADMIN, at_ms).await?;
        let reason = "for waiting on the phone";
        let (_, note) = top_up::grant(act.connection(), customer, amount, "call:3", reason, at_ms).await?;
        act.commit(note.context("it is granted once")?).await?;
        Ok(())
    }

    async fn end(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let Known { customer, subscription } = self.known[&index];
        let mut act = self.act(ADMIN, at_ms).await?;
        let reason = "nobody answers";
        change::cancel(
            act.connection(),
            subscription,
            CancellationTime::Now,
            reason,
            ADMIN,
            at_ms,
        )
        .await?;
        let change = json!({"after": {"subscriptions": [subscription], "reason": reason}});
        act.commit(Note::new("customer.terminate", customer).change(change))
            .await?;
        Ok(())
    }

    async fn write_off(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let filter = InvoiceFilter {
            customer: Some(self.known[&index].customer),
            ..InvoiceFilter::default()
        };
        let open = invoice::list_all(self.database.pool(), filter).await?;
        for found in open.into_iter().filter(|found| found.outstanding().minor > 0) {
            let mut act = self.act(FINANCE, at_ms).await?;
            let reason = "dissolved, nothing left";
            let amount = settlement::write_off(act.connection(), found.id, reason, at_ms).await?;
            let change = json!({"before": {"open": found.outstanding().to_string()},
                "after": {"status": "uncollectible", "written_off": amount.to_string(), "reason": reason}});
            act.commit(Note::new("invoice.write_off", found.id).change(change))
                .await?;
        }
        Ok(())
    }

    async fn charge_set_up(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let customer = self.known[&index].customer;
        let amount = Money::new(12_000, Currency::USD);
        let mut act = self.act(FINANCE, at_ms).await?;
        let what = "Set-up of a second site";
        let item = invoice::add_item(act.connection(), customer, None, what, amount, FINANCE, at_ms).await?;
        let change = json!({"after": {"item": item.id, "description": what, "amount": amount.to_string()}});
        act.commit(Note::new("customer.charge", customer).change(change))
            .await?;
        Ok(())
    }

    async fn void(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let found = self.newest(index).await?;
        let mut act = self.act(FINANCE, at_ms).await?;
        let reason = "ordered twice by mistake";
        let note = invoice::void(act.connection(), found.id, Rebill::No, reason, at_ms).await?;
        let change = json!({"before": {"status": found.status},
            "after": {"status": "void", "credit_note": note, "charged_again": false, "reason": reason}});
        act.commit(Note::new("invoice.void", found.id).change(change)).await?;
        Ok(())
    }

    /// Credit that the business bought, and its automatic top-up.
    async fn top_up(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let customer = self.known[&index].customer;
        let mut act = self.act_of_customer(CHARACTERS[index].email, at_ms).await?;
        let amount = |minor| Money::new(minor, Currency::EUR);
        let note = top_up::set(act.connection(), customer, amount(2_500), amount(5_000), at_ms).await?;
        act.commit(note).await?;
        let charger = GatewayCharger {
            database: self.database,
            gateways: &self.gateways,
        };
        top_up::check(self.database, &charger, customer, at_ms).await?;
        Ok(())
    }

    async fn ask_for_a_second_admin(&self, index: usize, at_ms: i64) -> anyhow::Result<()> {
        let customer = self.known[&index].customer;
        let new = action::NewRequest {
            action: action::Action::AccountDeletion { customer },
            subject: customer.to_string(),
            summary: "Delete the account of Bruna Juegos SL: unpaid, and the mail comes back.".to_owned(),
        };
        let mut act = self.act(ADMIN, at_ms).await?;
        let (connection, by) = act.asking();
        let requested = action::request(connection, &new, by, at_ms).await?;
        act.commit_entered(requested.entered).await?;
        Ok(())
    }
}
