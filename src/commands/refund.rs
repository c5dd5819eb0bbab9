//! `ezscale payment refund`: what it would do, then the credit note and the money, as one act.

use activity::act::Note;
use anyhow::Context as _;
use billing::payment;
use billing::refund::{self, Preview, RefundConfirmation, RefundRequest};
use rust_decimal::Decimal;
use schemas::ids::PaymentId;
use schemas::money::Money;
use serde_json::json;

use super::audit;
use crate::options::{Data, now_ms, plain_decimal};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The payment (pay_N)
    payment: PaymentId,
    /// With tax, in the payment's currency, such as 10.00 [default: all that is left]
    #[arg(long, value_parser = plain_decimal)]
    amount: Option<Decimal>,
    /// Printed on the credit note
    #[arg(long, default_value = "requested by the customer")]
    reason: String,
    /// Of what came by bank transfer: the bank's reference of the transfer that sends it back
    #[arg(long)]
    reference: Option<String>,
    /// Show what it would do, and do nothing
    #[arg(long)]
    preview: bool,
    /// Credit the invoice that the payment paid, too: without this word such a refund is refused
    #[arg(long)]
    credit_note: bool,
    #[command(flatten)]
    data: Data,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (config, database) = args.data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let gateways = config.gateways(&database).await?;
    let paid = payment::payment(database.pool(), args.payment).await?;
    let amount = match args.amount {
        Some(amount) => Some(Money::exact_from_major(amount, paid.amount.currency).context("--amount")?),
        None => None,
    };
    let request = RefundRequest {
        payment: args.payment,
        amount,
        reason: &args.reason,
    };
    let reference = args.reference.as_deref();
    if args.preview {
        let mut connection = database.pool().acquire().await?;
        print(&refund::preview(&mut connection, &request, now_ms).await?);
        return Ok(());
    }
    let mut act = audit::begin(&database, now_ms).await?;
    refund::check_gateway(act.connection(), &gateways, args.payment).await?;
    let preview = refund::preview(act.connection(), &request, now_ms).await?;
    if let (Some(note), false) = (&preview.note, args.credit_note) {
        let number = preview.invoice.as_ref().map_or("", |(_, number)| number);
        anyhow::bail!(
            "{} paid invoice {number}, which remains valid: a refund of {} goes with a credit note of {} over it (net {}, tax {}). \
             Nothing was done. --preview shows all of it; --credit-note does both",
            args.payment,
            preview.amount,
            note.gross,
            note.net,
            note.tax
        );
    }
    if preview.needs_second_admin {
        let (connection, by) = act.asking();
        let (requested, preview) = refund::request_approval(connection, &request, None, reference, by, now_ms).await?;
        act.commit_entered(requested.entered).await?;
        print(&preview);
        audit::print_approval_requested(requested);
        return Ok(());
    }
    let (connection, by) = act.parts();
    let confirmed = RefundConfirmation {
        shown: None,
        is_approved: false,
        reference,
        actor: by.name,
    };
    let made = refund::make(connection, &request, &confirmed, now_ms).await?;
    let mut change = json!({"after": made.preview.change(&args.reason)});
    change["after"]["id"] = json!(made.refund);
    change["after"]["credit_note_id"] = json!(made.note);
    act.commit(Note::new("payment.refund", args.payment).change(change))
        .await?;
    let refund = refund::ask(&database, &gateways, made.refund, now_ms).await?;
    say!("{} {}", refund.id, refund.state);
    if let Some(note) = made.note {
        say!("credit note {note}");
    }
    Ok(())
}

/// What it does, a line each.
fn print(preview: &Preview) {
    let mut lines = vec![("refund", preview.amount.to_string())];
    if preview.from_credit.minor > 0 {
        lines.push(("from credit", preview.from_credit.to_string()));
    }
    if let Some(note) = &preview.note {
        let number = preview.invoice.as_ref().map_or("", |(_, number)| number);
        lines.push(("credit note for", number.to_owned()));
        lines.push(("net", note.net.to_string()));
        lines.push(("tax", note.tax.to_string()));
        lines.push(("gross", note.gross.to_string()));
        if note.split.to_open.minor > 0 {
            lines.push(("settles open", note.split.to_open.to_string()));
        }
        if note.split.to_written_off.minor > 0 {
            lines.push(("not written off", note.split.to_written_off.to_string()));
        }
        lines.push(("becomes credit", note.split.to_credit.to_string()));
        if let Some(why) = preview.why_larger_note() {
            lines.push(("note", why));
        }
    }
    lines.push(("refunded by", preview.gateway.clone()));
    lines.push(("left to refund", preview.left_after.to_string()));
    lines.push(("credit now", preview.credit_before.to_string()));
    lines.push(("credit after", preview.credit_after.to_string()));
    if preview.switches_top_up_off {
        lines.push(("top-up", "automatic top-up is switched off".to_owned()));
    }
    if preview.needs_second_admin {
        let (counted, over) = (preview.counted, preview.threshold);
        lines.push((
            "approval",
            format!("a second admin decides: {counted} with earlier refunds, more than {over}"),
        ));
    }
    for (name, value) in lines {
        say!("{name:16} {value}");
    }
}
