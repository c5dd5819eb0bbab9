use std::slice::from_ref;

use super::*;
use crate::job::lease::{self, Owner, leases};

const NOW_MS: i64 = 1_000_000;

async fn database() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
    (folder, database)
}

/// An owner whose process nobody here can see.
fn owner() -> Owner {
    Owner {
        name: "host:1:ada".to_owned(),
        process: "another machine 1 1".to_owned(),
    }
}

/// A job that an owner has, under the lease `billing`, as the list says.
async fn listed(database: &Database, name: &'static str) -> JobRecord {
    let owner = owner();
    let mut transaction = database.begin_write().await.unwrap();
    lease::add(&mut *transaction, "billing").await.unwrap();
    let registration = crate::job::store::Registration {
        name,
        instance: "",
        lease: "billing",
        description: "",
        schedule: "",
        waits_for: "",
    };
    crate::job::store::register(&mut transaction, registration, NOW_MS)
        .await
        .unwrap();
    let seen = leases(&mut *transaction).await.unwrap().remove(0);
    if seen.owner.is_empty() {
        lease::take(&mut *transaction, &seen, &owner, NOW_MS)
            .await
            .unwrap()
            .unwrap();
    }
    crate::job::store::announce(&mut transaction, name, "", &owner.name)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    one(database, name).await
}

async fn one(database: &Database, name: &str) -> JobRecord {
    let mut connection = database.pool().acquire().await.unwrap();
    let all = list_in(&mut connection).await.unwrap();
    all.into_iter().find(|row| row.name == name).unwrap()
}

async fn ask(database: &Database, job: &str) -> Result<Vec<Request>, JobError> {
    let mut transaction = database.begin_write().await.unwrap();
    let asked = request(&mut transaction, job, NOW_MS).await?;
    transaction.commit().await.unwrap();
    Ok(asked)
}

async fn set(database: &Database, sql: &'static str) {
    sqlx::query(sql).execute(database.pool()).await.unwrap();
}

fn run(id: i64, cause: Cause, outcome: Outcome) -> Run {
    Run {
        id: JobRunId(id),
        job: "work".to_owned(),
        instance: String::new(),
        owner: "host:1:ada".to_owned(),
        cause,
        scheduled_ms: 0,
        started_at_ms: 0,
        ended_at_ms: Some(1),
        outcome,
        text: format!("run {id}"),
    }
}

#[tokio::test]
async fn who_asked_waits_for_the_run_that_served_the_own_number() {
    let (_folder, database) = database().await;
    let mut row = listed(&database, "work").await;
    let first = ask(&database, "work").await.unwrap().remove(0);
    let second = ask(&database, "work").await.unwrap().remove(0);
    assert_eq!((first.number, second.number), (1, 2));
    row.requested = 2;
    let answer = |request: &Request, row: &JobRecord, runs: &[Run]| request.answer(from_ref(row), runs, NOW_MS);
    assert_eq!(answer(&first, &row, &[]), RequestState::Waiting);
    // It ran as its schedule says, before it was asked for.
    let scheduled = run(1, Cause::Schedule, Outcome::Succeeded);
    assert_eq!(answer(&first, &row, from_ref(&scheduled)), RequestState::Waiting);
    // The run of the first began before the second was seen.
    row.served = 1;
    row.running_since_ms = Some(5);
    assert_eq!(answer(&first, &row, from_ref(&scheduled)), RequestState::Begun);
    assert_eq!(answer(&second, &row, from_ref(&scheduled)), RequestState::Waiting);
    row.running_since_ms = None;
    let of_first = run(2, Cause::Request, Outcome::Failed);
    let ended = |outcome, text: &str| RequestState::Ended {
        outcome,
        text: text.to_owned(),
    };
    let runs = [of_first.clone(), scheduled.clone()];
    assert_eq!(answer(&first, &row, &runs), ended(Outcome::Failed, "run 2"));
    assert_eq!(answer(&second, &row, &runs), RequestState::Waiting);
    row.served = 2;
    let of_second = run(3, Cause::Request, Outcome::Succeeded);
    let runs = [of_second, of_first, scheduled];
    assert_eq!(answer(&second, &row, &runs), ended(Outcome::Succeeded, "run 3"));
}

#[tokio::test]
async fn nobody_waits_for_what_was_withdrawn_or_for_a_process_that_is_gone() {
    let (_folder, database) = database().await;
    let mut row = listed(&database, "work").await;
    let first = ask(&database, "work").await.unwrap().remove(0);
    row.requested = 1;
    row.hold = "billing is stopped".to_owned();
    let held = RequestState::Held("billing is stopped".to_owned());
    assert_eq!(first.answer(from_ref(&row), &[], NOW_MS), held);
    withdraw(&database, "work").await.unwrap();
    row.requested = 0;
    assert_eq!(first.answer(from_ref(&row), &[], NOW_MS), RequestState::Withdrawn);
    assert_eq!(first.answer(&[], &[], NOW_MS), RequestState::Withdrawn);
    row.requested = 1;
    let expired_ms = NOW_MS + lease::LEASE_MS;
    assert_eq!(first.answer(from_ref(&row), &[], expired_ms), RequestState::Gone);
    // It began, and its process was killed: the run has no end.
    row.served = 1;
    row.running_since_ms = Some(5);
    let running = run(1, Cause::Request, Outcome::Running);
    assert_eq!(
        first.answer(from_ref(&row), from_ref(&running), NOW_MS),
        RequestState::Begun
    );
    assert_eq!(
        first.answer(from_ref(&row), from_ref(&running), expired_ms),
        RequestState::Gone
    );
    // It began while it was withdrawn: what is asked for next is not taken for served.
    set(&database, "UPDATE jobs SET requested = 0, served = 1").await;
    let next = ask(&database, "work").await.unwrap().remove(0);
    assert_eq!(next.number, 2);
    assert!(one(&database, "work").await.is_requested());
}

#[tokio::test]
async fn what_is_switched_off_or_has_no_process_is_not_asked_for() {
    let (_folder, database) = database().await;
    listed(&database, "work").await;
    // The same lease, of a process that has only the other job.
    let other = listed(&database, "other").await;
    assert!(other.has_process(NOW_MS));
    set(
        &database,
        "UPDATE jobs SET owner = 'host:0:before' WHERE name = 'other'",
    )
    .await;
    let other = one(&database, "other").await;
    assert!(other.is_leased(NOW_MS) && !other.has_process(NOW_MS));
    let refused = ask(&database, "other").await.unwrap_err();
    assert!(
        matches!(&refused, JobError::NoProcess(job) if job == "other"),
        "{refused}"
    );
    assert!(!one(&database, "other").await.is_requested());

    ask(&database, "work").await.unwrap();
    let mut connection = database.pool().acquire().await.unwrap();
    crate::job::store::switch_off(&mut connection, "work", "see the file")
        .await
        .unwrap();
    drop(connection);
    let work = one(&database, "work").await;
    assert!(!work.is_requested(), "it must not run when it is switched on");
    assert_eq!(work.condition(NOW_MS).name(), "switched off");
    let refused = ask(&database, "work").await.unwrap_err();
    assert_eq!(refused.to_string(), "work is switched off: see the file");
    let unknown = ask(&database, "wrok").await.unwrap_err();
    assert!(matches!(unknown, JobError::Unknown(_)), "{unknown}");
}
