//! Every command that changes something leaves an entry in the audit log, by the actor `command line`; what only reads
//! leaves none.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::clock;
use crate::support::ezscale::DataDir;

/// What is done, in order, and the action that the log has afterwards. SERVICES and ASSIGNMENTS are lists in files, BACKUPS
/// is a folder, LATER a day in a month. Not here: `user` (tests/sign_in_attacks.rs), `clock` (tests/rehearsal.rs), `exporter correct`
/// (tests/correction.rs), `db migrate` (tests/db_commands.rs), `restore` (tests/backup.rs), `secrets discard` (tests/secrets.rs).
const DONE: &[(&str, &str)] = &[
    (
        "customer add --name Acme --email a@example.net --currency EUR --country FR",
        "customer.create",
    ),
    (
        "customer profile cus_1 --city Paris --vat-id FR40303265045",
        "customer.billing_profile",
    ),
    ("customer email cus_1 b@example.net", "customer.email"),
    ("customer vat-accept cus_1 --reason register", "customer.vat_accept"),
    ("service add --name web1 --customer cus_1", "service.create"),
    ("service assign svc_1 --prefix 192.0.2.0/28", "service.assign"),
    ("service release asg_1", "service.release"),
    ("service add --file SERVICES", "service.create_list"),
    ("service assign --file ASSIGNMENTS", "service.assign_list"),
    ("plan add --name VPS --price 10 --currency EUR", "price.add"),
    ("plan edit pln_1 --description small", "plan.edit"),
    ("plan stock pln_1 70", "plan.stock"),
    ("coupon add TEN --percent 10", "coupon.create"),
    ("coupon archive cpn_1", "coupon.archive"),
    ("tax add --country FR --rate 20 --from 2020-01-01", "tax.add"),
    ("tax end tax_1 --at 2040-01-01", "tax.end"),
    ("entity add --name B --country DE --number-prefix B", "entity.create"),
    ("entity set --name C --country FR", "entity.change"),
    ("webhook add http://127.0.0.1:9/hook", "webhook.add"),
    ("subscription add svc_1 --price prc_1", "subscription.add"),
    (
        "subscription change sub_1 --price prc_1 --quantity 2",
        "subscription.change",
    ),
    (
        "subscription change sub_1 --price prc_1 --quantity 3 --at LATER",
        "subscription.schedule",
    ),
    ("subscription unschedule chg_1", "subscription.unschedule"),
    ("subscription suspend sub_1 --reason x", "subscription.suspend"),
    ("subscription unsuspend sub_1", "subscription.unsuspend"),
    ("subscription cancel sub_1", "subscription.cancel"),
    ("subscription resume sub_1", "subscription.resume"),
    ("invoice close", "invoice.close"),
    (
        "payment record inv_1 --amount 1 --reference T-1",
        "payment.record_transfer",
    ),
    ("payment reverse pay_1 --reason mistaken", "payment.reverse"),
    ("credit grant cus_1 5 --for t:1 --reason sorry", ""),
    ("budget set cus_1 5000", ""),
    ("budget exclude cus_1 svc_1", ""),
    ("budget include cus_1 svc_1", ""),
    ("budget clear cus_1", ""),
    (
        "attack flag svc_1 --from 2026-01-01 --to 2026-01-02 --reason flood",
        "usage.exclude",
    ),
    ("attack revoke exc_1", "usage.include"),
    ("event deliver", "event.deliver"),
    ("event replay evt_1 --endpoint whk_1", "event.replay"),
    ("event owner boss@example.net", "owner.email"),
    ("webhook rotate whk_1", "webhook.rotate"),
    ("webhook enable whk_1", "webhook.enable"),
    ("webhook remove whk_1", "webhook.remove"),
    ("secrets rotate", "secrets.rotate"),
    ("backup --to BACKUPS", "backup.create"),
    ("plan archive pln_1", "plan.archive"),
    ("job run prune", "job.run"),
];

/// What only reads, or finds nothing to do.
const READ: &[&str] = &[
    "customer list",
    "customer show cus_1",
    "db migrate",
    "db status",
    "invoice preview --customer cus_1",
    "invoice check --all",
    "ledger check",
    "secrets discard --yes",
    "storage",
    "usage",
    "job list",
    "job show prune",
    "job history",
    "payment reconcile",
];

fn entries(data: &DataDir) -> Vec<Value> {
    let log = data.run(&["audit", "list", "--limit", "100", "--format", "json"]);
    serde_json::from_str(&log).expect("a JSON array")
}

#[test]
fn whatever_changes_something_is_in_the_audit_log() {
    let data = DataDir::new();
    data.run(&["init"]);
    let config = data.path().join("ezscale.toml");
    std::fs::write(&config, "[webhooks]\nallow_private = true\n").expect("the data folder is writable");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).expect("it is the test's own");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let place = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(place("services"), "name,customer\nweb2,cus_1\nweb3,cus_1\n").expect("it is writable");
    std::fs::write(
        place("assignments"),
        "service,prefix\nsvc_2,192.0.2.16/28\nsvc_3,192.0.2.32/28\n",
    )
    .expect("it is writable");

    let later = clock::began()
        .checked_add(jiff::SignedDuration::from_hours(30 * 24))
        .expect("a month is left");
    let later = later.strftime("%Y-%m-%d").to_string();

    let mut known = 0;
    for (command, action) in DONE {
        let words: Vec<String> = command
            .split(' ')
            .map(|word| match word {
                "SERVICES" | "ASSIGNMENTS" | "BACKUPS" => place(&word.to_lowercase()),
                "LATER" => later.clone(),
                word => word.to_owned(),
            })
            .collect();
        data.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let log = entries(&data);
        assert!(log.len() > known, "`{command}` left no entry");
        for entry in &log[..log.len() - known] {
            assert_eq!(entry["actor"], "command line", "{command}: {entry}");
        }
        if !action.is_empty() {
            assert_eq!(log[0]["action"], *action, "{command}: {}", log[0]);
        }
        known = log.len();
    }
    for command in READ {
        data.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(entries(&data).len(), known, "`{command}` left an entry");
    }
}
