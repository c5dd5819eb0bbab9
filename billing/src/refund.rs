//! A refund is one act: what is given back of an invoice, and the money that leaves.
//!
//! ```text
//! asked: 50.00 of pay_7, which paid INV-1 (119.00)
//!   │
//!   ▼
//! preview   of what the invoice's payments and credit notes left as credit first   nothing is written
//!           then by a credit note: net 42.02, tax 7.98, gross 50.00
//!           what it settles that is open or was written off, what becomes credit
//!           what leaves, what can be refunded after it, what credit stays
//!   │ confirmed, or approved by a second admin above a threshold
//!   ▼
//! make      the same preview again, else nothing; credit note and refund in one transaction
//!   │ committed
//!   ▼
//! ask       the gateway (`payment`); of a bank transfer what was sent is recorded
//! ```
//!
//! Promises:
//! * What is previewed is what is done: a confirmation carries what was shown ([`Preview::shown`]), and where that is not what
//!   would happen any more, nothing happens ([`RefundError::Changed`]).
//! * Never more leaves than the payment brought and still holds (disputes and earlier refunds taken off), than its invoice had
//!   from it, and than was paid in: credit that was granted is not paid out.
//! * A credit note settles what is open of its invoice before anything of it can leave: who owes gets money back only by a
//!   credit note over both, which the preview says.
//! * F-60 is not avoided by parts: the refunds of the payment, and those of its customer within 24 hours, count
//!   together, those
//!   that are requested and not decided too ([`counted`]). What is requested is not there for another refund.
//! * A refund of a payment that bought credit switches automatic top-up off, which the preview says.
//! * Where the gateway refuses in the end, the credit note stands and its amount stays credit.

mod counted;

use activity::act::By;
use activity::approval::Requested;
pub use counted::{PendingRefund, pending};
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, RefundId};
use schemas::money::{Currency, Money, MoneyError};
use serde::Serialize;
use sqlx::{AnyConnection, Row as _};

use crate::BillingError;
use crate::action::{self, Action, ActionError, NewRequest};
use crate::invoice::{self, Correctable, Credited};
use crate::payment::{
    self, GatewayName, Gateways, NewRefund, Payment, PaymentError, PaymentState, Refund, RefundState,
};
use crate::settlement::{self, NoteSplit, SettlementError, floor_at_zero, minus, smaller};

/// Each try makes the credit note larger by what is missing; granted credit and rounding are all that can be missing.
const MAX_TRIES: usize = 6;

/// Why nothing was refunded.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("draft the credit note")]
    Billing(#[from] BillingError),
    #[error("refund a payment")]
    Payment(#[from] PaymentError),
    #[error("settle")]
    Settlement(#[from] SettlementError),
    #[error("ask a second admin")]
    Approval(#[from] ActionError),
    #[error("add amounts")]
    Money(#[from] MoneyError),
    #[error("{left} of {payment} can be refunded, not {asked}: {why}")]
    MoreThanLeft {
        payment: PaymentId,
        left: Money,
        asked: Money,
        why: &'static str,
    },
    #[error("nothing of {payment} is left to refund: {why}")]
    NothingLeft { payment: PaymentId, why: &'static str },
    #[error(
        "what {payment} would give back has changed since it was shown: look at the new amounts, then confirm them"
    )]
    Changed { payment: PaymentId },
    #[error(
        "a refund of {amount} waits for a second admin: refunds of the payment, or of its customer within 24 hours, \
         come to \
         {counted} with it, more than {over}"
    )]
    NeedsApproval { amount: Money, counted: Money, over: Money },
}

schemas::error_codes! {
    RefundError: "refund";
    of [Database, Billing, Payment, Settlement, Approval, Money]
    source []
    Refused:
        NeedsApproval = "needs_approval", MoreThanLeft = "more_than_left", NothingLeft = "nothing_left";
    Conflict: Changed = "changed";
}

/// What somebody asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefundRequest<'a> {
    pub payment: PaymentId,
    /// With tax, as it leaves; `None`: all that can be refunded.
    pub amount: Option<Money>,
    /// Printed on the credit note and kept with the refund.
    pub reason: &'a str,
}

/// The credit note of a refund, as positive amounts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NotePreview {
    #[serde(skip)]
    what: Credited,
    pub net: Money,
    pub tax: Money,
    pub gross: Money,
    pub split: NoteSplit,
}

/// What a refund does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Preview {
    pub payment: PaymentId,
    pub customer: CustomerId,
    pub gateway: String,
    /// The invoice that the payment was for, with its number.
    pub invoice: Option<(InvoiceId, String)>,
    /// What leaves.
    pub amount: Money,
    /// Of what earlier credit notes and overpayments left as credit.
    pub from_credit: Money,
    /// For the rest.
    pub note: Option<NotePreview>,
    /// What can be refunded of the payment after it.
    pub left_after: Money,
    /// The customer's credit.
    pub credit_before: Money,
    pub credit_after: Money,
    /// With what was refunded before and counts towards the threshold.
    pub counted: Money,
    /// More than this waits for a second admin.
    pub threshold: Money,
    pub needs_second_admin: bool,
    /// The customer's automatic top-up, so that what is refunded is not charged again.
    pub switches_top_up_off: bool,
}

impl Preview {
    /// What a confirmation sends back: what the refund itself does. The customer's credit is not in it, which moves
    /// for other
    /// reasons.
    pub fn shown(&self) -> String {
        let note = self.note.as_ref().map_or_else(
            || "0".to_owned(),
            |note| format!("{}:{}", note.gross.minor, note.split.to_credit.minor),
        );
        format!(
            "{}:{}:{}:{note}",
            self.payment, self.amount.minor, self.from_credit.minor
        )
    }

    /// Why the credit note is over more than leaves by it; `None` where it is not.
    pub fn why_larger_note(&self) -> Option<String> {
        let note = self.note.as_ref()?;
        let by_note = self.amount.minor - self.from_credit.minor;
        if note.gross.minor <= by_note {
            return None;
        }
        Some(match note.split.to_credit.minor < note.gross.minor {
            true => "The credit note is larger than the refund: it settles what is open or written off of the invoice \
                 before anything can leave."
                .to_owned(),
            false if note.gross.minor - by_note == 1 => {
                let least = Money::new(1, note.gross.currency);
                format!(
                    "The credit note is {least} larger than the refund: with tax rounded, no note has exactly its \
                     amount. The rest stays credit."
                )
            }
            false => "The credit note is larger than the refund: a part of the invoice was paid by credit that was \
                 granted, which is not paid out. The rest stays credit."
                .to_owned(),
        })
    }

    /// For the audit log.
    pub fn change(&self, reason: &str) -> serde_json::Value {
        serde_json::json!({
            "refund": self.amount.to_string(),
            "from_credit": self.from_credit.to_string(),
            "credit_note": self.note.as_ref().map(|note| serde_json::json!({
                "net": note.net.to_string(), "tax": note.tax.to_string(), "gross": note.gross.to_string(),
            })),
            "left": self.left_after.to_string(),
            "counted": self.counted.to_string(),
            "reason": reason,
        })
    }
}

/// How much of a payment went back, and how much still can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RefundBalance {
    pub payment: PaymentId,
    pub paid: Money,
    /// By refunds that went out.
    pub refunded: Money,
    /// By refunds whose end is not known yet.
    pub under_way: Money,
    /// By disputes and reversals.
    pub taken: Money,
    /// By refunds that were requested and that a second admin has not decided.
    pub pending: Money,
    /// What can be refunded, as far as we know, by [`make`]: without what is pending.
    pub left: Money,
}

impl RefundBalance {
    /// Whether anything of it went back or is about to.
    pub fn is_touched(&self) -> bool {
        self.refunded.minor != 0 || self.under_way.minor != 0 || self.taken.minor != 0
    }
}

/// All that a preview is computed from: read once.
struct Facts {
    payment: Payment,
    invoice: Option<Correctable>,
    /// What the gateway holds and no refund under way will take.
    free: Money,
    /// What can leave without a credit note.
    from_credit: Money,
}

impl Facts {
    async fn read(connection: &mut AnyConnection, id: PaymentId) -> Result<Facts, RefundError> {
        let payment = payment::payment(&mut *connection, id).await?;
        if payment.state != PaymentState::Succeeded {
            return Err(PaymentError::NotPaid(id).into());
        }
        let refundable = settlement::refundable(&mut *connection, id).await?;
        let free = settlement::free(&mut *connection, id).await?;
        let (invoice, from_credit) = match payment.purpose.invoice() {
            None => (None, refundable),
            Some(invoice) => {
                let (customer, currency) = (payment.customer, payment.amount.currency);
                let brought = settlement::credit_from_invoice(&mut *connection, customer, currency, invoice).await?;
                let invoice = Correctable::read(&mut *connection, invoice).await?;
                (Some(invoice), smaller(refundable, brought))
            }
        };
        Ok(Facts {
            payment,
            invoice,
            free,
            from_credit,
        })
    }

    /// The credit note over a part or the whole; `None` where nothing of the invoice can be given back.
    async fn note(
        &self,
        connection: &mut AnyConnection,
        what: Credited,
        reason: &str,
    ) -> Result<Option<NotePreview>, RefundError> {
        let Some(invoice) = &self.invoice else {
            return Ok(None);
        };
        let draft = match invoice.draft(what, reason) {
            Err(BillingError::NotCredited { .. }) => return Ok(None),
            drafted => drafted?,
        };
        let gross = draft.total.checked_neg()?;
        if gross.minor <= 0 {
            return Ok(None);
        }
        Ok(Some(NotePreview {
            what,
            net: draft.subtotal.checked_neg()?,
            tax: draft.tax.checked_neg()?,
            gross,
            split: settlement::credit_note_split(connection, invoice.invoice().id, gross).await?,
        }))
    }

    /// What could leave if a note were issued.
    async fn with_note(
        &self,
        connection: &mut AnyConnection,
        note: Option<&NotePreview>,
    ) -> Result<Money, RefundError> {
        let (Some(invoice), Some(note)) = (&self.invoice, note) else {
            return Ok(self.from_credit);
        };
        let to_credit = note.split.to_credit;
        let returned = Some((invoice.invoice().id, to_credit));
        let refundable = settlement::refundable_after(connection, self.payment.id, returned).await?;
        // Of the invoice's own: other credit is refunded by the payment that brought it.
        Ok(smaller(refundable, self.from_credit.checked_add(to_credit)?))
    }

    /// All that can leave, and the note that this takes.
    async fn most(&self, connection: &mut AnyConnection, reason: &str) -> Result<Money, RefundError> {
        let whole = self.note(&mut *connection, Credited::Whole, reason).await?;
        self.with_note(connection, whole.as_ref()).await
    }

    /// Why no more can leave.
    fn why(&self) -> &'static str {
        let held_all = self.free.minor >= self.payment.amount.minor;
        match &self.invoice {
            None if !held_all => {
                "the rest was refunded, is being refunded, was reversed or is disputed, or was spent on invoices: refund \
                 that there by a credit note"
            }
            _ if !held_all => "the rest was refunded, is being refunded, was reversed or is disputed",
            None => "the rest was spent on invoices: refund it there by a credit note, or was not paid in",
            Some(_) => {
                "more was not paid for its invoice by this payment, or it was returned and spent since; credit that was \
                 granted is not paid out"
            }
        }
    }

    /// The note for what credit does not cover of an amount.
    async fn note_for(
        &self,
        connection: &mut AnyConnection,
        amount: Money,
        reason: &str,
    ) -> Result<Option<NotePreview>, RefundError> {
        let missing = minus(amount, self.from_credit)?;
        if missing.minor <= 0 {
            return Ok(None);
        }
        let mut gross = missing;
        for _ in 0..MAX_TRIES {
            let Some(invoice) = &self.invoice else {
                return Ok(None);
            };
            let Some(what) = invoice.smallest(gross, reason)? else {
                return Ok(None);
            };
            let note = self.note(&mut *connection, what, reason).await?;
            let leaves = self.with_note(&mut *connection, note.as_ref()).await?;
            let short = minus(amount, leaves)?;
            if short.minor <= 0 || what == Credited::Whole {
                return Ok(note);
            }
            // What is open and what was granted takes of a note first.
            gross = gross.checked_add(short)?;
        }
        self.note(connection, Credited::Whole, reason).await
    }
}

/// What a refund would do. Nothing is written.
///
/// # Errors
/// When the payment has not succeeded, or not so much of it is left, without what is requested and pending.
pub async fn preview(
    connection: &mut AnyConnection,
    request: &RefundRequest<'_>,
    now_ms: i64,
) -> Result<Preview, RefundError> {
    preview_beside(connection, request, OtherRefunds::Pending, now_ms).await
}

/// What else is to be refunded of a payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OtherRefunds {
    /// What is requested and pending is not there.
    Pending,
    /// A second admin has decided for this one.
    Nothing,
}

async fn preview_beside(
    connection: &mut AnyConnection,
    request: &RefundRequest<'_>,
    beside: OtherRefunds,
    now_ms: i64,
) -> Result<Preview, RefundError> {
    let facts = Facts::read(&mut *connection, request.payment).await?;
    let (payment, reason) = (&facts.payment, note_reason(request.reason));
    let currency = payment.amount.currency;
    let counted = counted::before(&mut *connection, payment, now_ms).await?;
    let can_leave = facts.most(&mut *connection, reason).await?;
    let pending = match beside {
        OtherRefunds::Pending => counted.pending,
        OtherRefunds::Nothing => Money::zero(currency),
    };
    let most = floor_at_zero(minus(can_leave, pending)?);
    let why = match can_leave.minor > most.minor {
        true => "the rest is requested and waits for a second admin",
        false => facts.why(),
    };
    let amount = request.amount.unwrap_or(most);
    if amount.currency != currency {
        return Err(PaymentError::OtherCurrency {
            customer: payment.customer,
            pays: currency,
            asked: amount.currency,
        }
        .into());
    }
    if most.minor <= 0 {
        return Err(RefundError::NothingLeft {
            payment: payment.id,
            why,
        });
    }
    if amount.minor <= 0 {
        return Err(PaymentError::NotPositive(amount).into());
    }
    if amount.minor > most.minor {
        return Err(RefundError::MoreThanLeft {
            payment: payment.id,
            left: most,
            asked: amount,
            why,
        });
    }
    let note = facts.note_for(&mut *connection, amount, reason).await?;
    let credit_before = settlement::credit_balance(&mut *connection, payment.customer, currency).await?;
    let to_credit = note.as_ref().map_or(Money::zero(currency), |note| note.split.to_credit);
    let buys_credit = payment.purpose.invoice().is_none();
    let switches_top_up_off = buys_credit && settlement::is_topped_up(&mut *connection, payment.customer).await?;
    let counted = counted.with(amount)?;
    let threshold = threshold(connection, currency).await?;
    Ok(Preview {
        payment: payment.id,
        customer: payment.customer,
        gateway: payment.gateway.name().to_owned(),
        invoice: facts.invoice.as_ref().map(|invoice| {
            let invoice = invoice.invoice();
            (invoice.id, invoice.number.clone())
        }),
        amount,
        from_credit: smaller(amount, facts.from_credit),
        note,
        left_after: minus(most, amount)?,
        credit_before,
        credit_after: minus(credit_before.checked_add(to_credit)?, amount)?,
        counted,
        threshold,
        needs_second_admin: counted.minor > threshold.minor,
        switches_top_up_off,
    })
}

/// Refunds of more than this together wait for a second admin.
///
/// # Errors
/// As the database answers.
pub async fn threshold(connection: &mut AnyConnection, currency: Currency) -> Result<Money, RefundError> {
    let thresholds = activity::risk::thresholds(connection).await?;
    Ok(Money::new(thresholds.refund_over_minor, currency))
}

/// A reason for the drafts of a preview, before there is one.
fn note_reason(reason: &str) -> &str {
    match reason.trim() {
        "" => "refund",
        text => text,
    }
}

/// What was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuedRefund {
    pub preview: Preview,
    pub refund: RefundId,
    pub note: Option<InvoiceId>,
}

/// How it was confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefundConfirmation<'a> {
    /// As [`Preview::shown`] said; `None` where nobody was shown anything, as on the command line.
    pub shown: Option<&'a str>,
    /// A second admin has approved it.
    pub is_approved: bool,
    /// Of a bank transfer: the bank's reference of the transfer that sends it back.
    pub reference: Option<&'a str>,
    /// Who does it: an email address, or what acts.
    pub actor: &'a str,
}

/// Issues the credit note and writes the refund down, in the caller's transaction. What goes by a gateway is asked for once this
/// is committed ([`ask`]), by the caller or by who reconciles next; a bank transfer is recorded as sent.
///
/// # Errors
/// As [`preview`], where it is approved of all that can leave; [`RefundError::Changed`] when it is not what was
/// shown; [`RefundError::NeedsApproval`] above the threshold.
pub async fn make(
    connection: &mut AnyConnection,
    request: &RefundRequest<'_>,
    confirmed: &RefundConfirmation<'_>,
    now_ms: i64,
) -> Result<IssuedRefund, RefundError> {
    let payment = payment::payment(&mut *connection, request.payment).await?;
    // Whoever settles something of this customer waits.
    settlement::lock_customer(&mut *connection, payment.customer).await?;
    let beside = match confirmed.is_approved {
        true => OtherRefunds::Nothing,
        false => OtherRefunds::Pending,
    };
    let preview = preview_beside(&mut *connection, request, beside, now_ms).await?;
    if confirmed.shown.is_some_and(|shown| shown != preview.shown()) {
        return Err(RefundError::Changed { payment: payment.id });
    }
    if preview.needs_second_admin && !confirmed.is_approved {
        return Err(RefundError::NeedsApproval {
            amount: preview.amount,
            counted: preview.counted,
            over: preview.threshold,
        });
    }
    let mut note = None;
    if let (Some((invoice, _)), Some(planned)) = (&preview.invoice, &preview.note) {
        let issued = invoice::credit(&mut *connection, *invoice, planned.what, request.reason, now_ms).await?;
        note = Some(issued);
    }
    let new = NewRefund {
        payment: payment.id,
        amount: preview.amount,
        reason: request.reason,
        created_by: confirmed.actor,
    };
    let refund = if payment.gateway == GatewayName::Manual {
        let reference = confirmed.reference.filter(|reference| !reference.trim().is_empty());
        let reference = reference.ok_or(PaymentError::SentAtTheBank { payment: payment.id })?;
        payment::record_returned_transfer(connection, &new, reference, now_ms).await?
    } else {
        payment::intend_by(connection, payment.gateway, &new, now_ms).await?
    };
    Ok(IssuedRefund { preview, refund, note })
}

/// What an approved refund would do now: for who decides.
///
/// # Errors
/// As [`preview`]; what is pending beside it is not taken off.
pub async fn preview_to_decide(
    connection: &mut AnyConnection,
    request: &RefundRequest<'_>,
    now_ms: i64,
) -> Result<Preview, RefundError> {
    preview_beside(connection, request, OtherRefunds::Nothing, now_ms).await
}

/// Asks a second admin for a refund that is above the threshold; nothing of it is done before.
///
/// # Errors
/// As [`preview`]; [`RefundError::Changed`] when it is not what was `shown`; [`RefundError::Approval`] when it cannot
/// be asked
/// for, or needs no approval.
pub async fn request_approval(
    connection: &mut AnyConnection,
    request: &RefundRequest<'_>,
    shown: Option<&str>,
    reference: Option<&str>,
    by: &By,
    now_ms: i64,
) -> Result<(Requested, Preview), RefundError> {
    let payment = payment::payment(&mut *connection, request.payment).await?;
    // Of two requests at once, the second finds the first pending.
    settlement::lock_customer(&mut *connection, payment.customer).await?;
    let preview = preview(&mut *connection, request, now_ms).await?;
    if shown.is_some_and(|shown| shown != preview.shown()) {
        return Err(RefundError::Changed { payment: payment.id });
    }
    let reference = reference.map(str::trim).filter(|reference| !reference.is_empty());
    if payment.gateway == GatewayName::Manual && reference.is_none() {
        return Err(PaymentError::SentAtTheBank { payment: payment.id }.into());
    }
    let invoice = match (&preview.invoice, &preview.note) {
        (Some((_, number)), Some(note)) => format!(", with a credit note of {} over {number}", note.gross),
        _ => String::new(),
    };
    let summary = format!(
        "Refund {} of {} to {}{invoice}. Reason: {}",
        preview.amount, preview.payment, preview.customer, request.reason
    );
    let new = NewRequest {
        action: Action::Refund {
            payment: preview.payment,
            currency: preview.amount.currency.to_string(),
            amount_minor: preview.amount.minor,
            counted_minor: preview.counted.minor,
            reason: request.reason.to_owned(),
            reference: reference.map(str::to_owned),
            shown: preview.shown(),
        },
        subject: preview.payment.to_string(),
        summary,
    };
    let requested = action::request(connection, &new, by, now_ms).await?;
    Ok((requested, preview))
}

/// Refuses what the payment's gateway cannot do, before anything is written for it.
///
/// # Errors
/// When the gateway is not configured or cannot refund.
pub async fn check_gateway(
    connection: &mut AnyConnection,
    gateways: &Gateways,
    payment: PaymentId,
) -> Result<(), RefundError> {
    let payment = payment::payment(&mut *connection, payment).await?;
    if payment.gateway == GatewayName::Manual {
        return Ok(());
    }
    let gateway = gateways.get(payment.gateway)?;
    match gateway.capabilities().refunds {
        true => Ok(()),
        false => Err(PaymentError::NotCapable {
            gateway: payment.gateway,
            what: "refund",
        }
        .into()),
    }
}

/// Asks the gateway for a refund that was committed; one that was recorded as sent is left as it is.
///
/// # Errors
/// When there is no such refund, its gateway is not configured, or the database does not answer.
pub async fn ask(
    database: &Database,
    gateways: &Gateways,
    refund: RefundId,
    now_ms: i64,
) -> Result<Refund, RefundError> {
    let found = payment::refund_by_id(database.pool(), refund).await?;
    if found.state != RefundState::Intent {
        return Ok(found);
    }
    let payment = payment::payment(database.pool(), found.payment).await?;
    Ok(payment::ask(database, gateways.get(payment.gateway)?, refund, now_ms).await?)
}

/// How much of a payment went back, and how much still can.
///
/// # Errors
/// When there is no such payment.
pub async fn refund_balance(connection: &mut AnyConnection, id: PaymentId) -> Result<RefundBalance, RefundError> {
    let payment = payment::payment(&mut *connection, id).await?;
    let zero = Money::zero(payment.amount.currency);
    let mut standing = RefundBalance {
        payment: id,
        paid: payment.amount,
        refunded: zero,
        under_way: zero,
        taken: zero,
        pending: zero,
        left: zero,
    };
    for refund in payment::refunds_of(&mut *connection, id).await? {
        match refund.state {
            RefundState::Succeeded => standing.refunded = standing.refunded.checked_add(refund.amount)?,
            state if state.is_open() => standing.under_way = standing.under_way.checked_add(refund.amount)?,
            _ => {}
        }
    }
    if payment.state != PaymentState::Succeeded {
        return Ok(standing);
    }
    let held = settlement::held(&mut *connection, id).await?;
    standing.taken = minus(minus(payment.amount, held)?, standing.refunded)?;
    for refund in pending(&mut *connection).await? {
        if refund.payment == id {
            standing.pending = standing.pending.checked_add(refund.amount)?;
        }
    }
    let facts = Facts::read(&mut *connection, id).await?;
    let can_leave = facts.most(connection, "refund").await?;
    standing.left = floor_at_zero(minus(can_leave, standing.pending)?);
    Ok(standing)
}

/// How the payments of an invoice stand, oldest first.
///
/// # Errors
/// As the database answers.
pub async fn refund_balances(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
) -> Result<Vec<RefundBalance>, RefundError> {
    let rows = sqlx::query("SELECT id FROM payments WHERE invoice_id = $1 AND state = 'succeeded' ORDER BY id")
        .bind(invoice.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut standings = Vec::with_capacity(rows.len());
    for row in &rows {
        standings.push(refund_balance(&mut *connection, PaymentId(row.try_get(0)?)).await?);
    }
    Ok(standings)
}

#[cfg(test)]
mod tests;
