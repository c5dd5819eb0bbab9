//! Crashes on demand, at named points: how the tests of F1 and of the outbox meet the moments that random kills seldom do.
//!
//! `EZSCALE_FAULT=manifest.written:3` aborts the process when it passes that point for the third time, whichever thread or
//! table does; without a number, the first time. An aborted process does nothing more, as after kill -9: no destructor
//! runs, no buffer is flushed.
//!
//! Only builds with debug assertions have it: in a release build [`at`] is empty.

/// Every point of the collector, in the order that a datagram passes them.
pub const POINTS: &[&str] = &[
    // A receive thread hands datagrams to the journal.
    "receive.batch",
    // The segment's file is made, its name not yet synced.
    "segment.created",
    // Blocks are with the operating system, or synced.
    "journal.written",
    "journal.synced",
    // The segment has its end mark; nobody was told.
    "segment.closed",
    // A Parquet file is encoded, synced under its temporary name, under its own name.
    "parquet.written",
    "parquet.synced",
    "parquet.renamed",
    // A table's first log is complete, but not under its name.
    "manifest.created",
    // Half of a commit's line is written; all of it; it is synced.
    "manifest.torn",
    "manifest.written",
    "manifest.synced",
    // Every table has the segment.
    "checkpoint.due",
    // A small file (checkpoint, status) is synced under its temporary name, under its own name.
    "durable.written",
    "durable.renamed",
    // The checkpoint is saved, the segment still there; it is deleted.
    "checkpoint.saved",
    "segment.deleted",
    // Compaction: the merged file is written; it has replaced the others.
    "compact.written",
    "compact.committed",
];

/// The points of stored flows that are rewritten: a file's successor is written; it has replaced the file.
pub const REWRITE_POINTS: &[&str] = &["rewrite.written", "rewrite.committed"];
/// The points of the outbox: an event's deliveries are written but not committed; a delivery is claimed; it is sent, and
/// nobody noted it.
pub const OUTBOX_POINTS: &[&str] = &["event.dispatched", "event.claimed", "event.sent"];
/// Every point, in the order that a payment passes them (B4).
pub const PAYMENT_POINTS: &[&str] = &[
    // The payment and its key are in an open transaction; committed; the gateway has answered, nobody was told.
    "payment.intending",
    "payment.intended",
    "payment.answered",
    // What the answer changes is in an open transaction; committed.
    "payment.recording",
    "payment.recorded",
    // The same of a refund.
    "refund.intended",
    "refund.answered",
    "refund.recording",
    // Reconciliation has claimed a payment; has asked the gateway about it; is about to ask it to charge again.
    "reconcile.claimed",
    "reconcile.found",
    "reconcile.again",
];

/// The points of a rotation of keys: the new key is in the file; it is the one that seals; a batch is sealed under it; the
/// database has forgotten the old one.
pub const SECRET_POINTS: &[&str] = &[
    "secrets.key_added",
    "secrets.key_current",
    "secrets.sealed",
    "secrets.key_forgotten",
];
/// The points of a backup (the database is written; a file is; everything but the manifest is) and of a restore (a file is
/// written; everything is checked, nothing is in place).
pub const BACKUP_POINTS: &[&str] = &[
    "backup.database",
    "backup.file",
    "backup.complete",
    "restore.file",
    "restore.checked",
];

/// Ends the process here if it was asked to.
#[cfg(debug_assertions)]
pub fn at(point: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(&'static str, u64)>> = LazyLock::new(|| {
        let text = std::env::var("EZSCALE_FAULT").ok()?;
        let (name, passes) = text.split_once(':').unwrap_or((&text, "1"));
        let wanted = POINTS
            .iter()
            .chain(OUTBOX_POINTS)
            .chain(PAYMENT_POINTS)
            .chain(REWRITE_POINTS)
            .chain(SECRET_POINTS)
            .chain(BACKUP_POINTS)
            .find(|point| **point == name)
            .zip(passes.parse().ok().filter(|passes| *passes > 0));
        assert!(
            wanted.is_some(),
            "EZSCALE_FAULT={text} is not POINT[:N]: {POINTS:?} {OUTBOX_POINTS:?} {PAYMENT_POINTS:?} {REWRITE_POINTS:?} \
             {SECRET_POINTS:?} {BACKUP_POINTS:?}"
        );
        wanted.map(|(point, passes)| (*point, passes))
    });
    static PASSES: AtomicU64 = AtomicU64::new(0);

    let all = [
        POINTS,
        OUTBOX_POINTS,
        PAYMENT_POINTS,
        REWRITE_POINTS,
        SECRET_POINTS,
        BACKUP_POINTS,
    ];
    let mut listed = all.into_iter().flatten();
    debug_assert!(listed.any(|listed| *listed == point), "{point} is listed");
    let Some((_, at_pass)) = WANTED.filter(|(wanted, _)| *wanted == point) else {
        return;
    };
    if PASSES.fetch_add(1, Ordering::Relaxed) + 1 == at_pass {
        eprintln!("EZSCALE_FAULT: aborted at {point}, pass {at_pass}");
        std::process::abort();
    }
}

/// Nothing: this build cannot be made to fail.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn at(_point: &'static str) {}
