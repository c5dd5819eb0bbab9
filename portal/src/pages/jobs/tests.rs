use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Driver, Job, JobBoard, NoAlerts, RunError, RunReport, Schedule, Settings};
use async_trait::async_trait;
use schemas::clock::Clock;
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::Role;
use crate::testing::TestPortal;

#[derive(Default)]
struct Nightly {
    switched_off: Option<&'static str>,
}

#[async_trait]
impl Job for Nightly {
    fn name(&self) -> &'static str {
        "nightly"
    }

    fn description(&self) -> &'static str {
        "Does <nothing> at night"
    }

    fn schedule(&self) -> Schedule {
        Schedule::calendar("15 3 * * *", TimeZone::UTC).unwrap()
    }

    fn switched_off(&self) -> Option<&'static str> {
        self.switched_off
    }

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        Ok(RunReport::Summary("3 things done".to_owned()))
    }
}

/// A portal beside a driver of one job.
async fn driven(portal: &TestPortal, job: Nightly) -> CancellationToken {
    let settings = Settings {
        database: portal.state.db().clone(),
        clock: Clock::system(),
        board: JobBoard::default(),
        alerts: Arc::new(NoAlerts),
        folder: "/srv/data".to_owned(),
    };
    let jobs: Vec<Arc<dyn Job>> = vec![Arc::new(job)];
    let stop = CancellationToken::new();
    tokio::spawn(Driver::new(settings, jobs).run(stop.clone()));
    stop
}

#[tokio::test]
async fn operations_see_what_runs_by_itself_and_run_it_now() {
    let portal = TestPortal::new().await;
    portal.user("op", Role::Ops, None).await;
    let mut browser = portal.signed_in("op").await;
    let empty = browser.get(PATH).await;
    assert!(empty.body.contains("No jobs yet"), "{}", empty.body);
    assert_eq!(browser.get("/ops/jobs/nightly").await.status, 404);

    let stop = driven(&portal, Nightly::default()).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let mut listed = browser.get(PATH).await;
    while !listed.body.contains("not run yet") {
        assert!(std::time::Instant::now() < deadline, "{}", listed.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
        listed = browser.get(PATH).await;
    }
    assert!(
        listed.body.contains("Does &#60;nothing&#62; at night"),
        "{}",
        listed.body
    );
    assert!(listed.body.contains("cron 15 3 * * * (UTC)"), "{}", listed.body);
    let done = browser
        .send_form("/ops/jobs/nightly", "/ops/jobs/nightly/run", &[])
        .await;
    // The page's form has its own token.
    assert_eq!(done.status, 303, "{}", done.body);
    assert_eq!(done.header("location"), "/ops/jobs/nightly?done=run");
    let mut shown = browser.get("/ops/jobs/nightly?done=run").await;
    while !shown.body.contains("3 things done") {
        assert!(std::time::Instant::now() < deadline, "{}", shown.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
        shown = browser.get("/ops/jobs/nightly").await;
    }
    assert!(shown.body.contains("request"), "{}", shown.body);
    let row = sqlx::query(
        "SELECT a.name, l.subject FROM audit_log l JOIN audit_actors a ON a.id = l.actor_id WHERE l.action = 'job.run'",
    )
    .fetch_all(portal.state.db().pool())
    .await
    .unwrap();
    assert_eq!(row.len(), 1);
    assert_eq!(row[0].get::<String, _>(0), "op@example.net");
    assert_eq!(row[0].get::<String, _>(1), "nightly");
    stop.cancel();
}

#[tokio::test]
async fn a_job_without_a_process_is_not_asked_for() {
    let portal = TestPortal::new().await;
    portal.user("root", Role::Admin, None).await;
    let job: Arc<dyn Job> = Arc::new(Nightly::default());
    let settings = Settings {
        database: portal.state.db().clone(),
        clock: Clock::system(),
        board: JobBoard::default(),
        alerts: Arc::new(NoAlerts),
        folder: "/srv/data".to_owned(),
    };
    job::run_here(job, settings).await.unwrap();
    let mut browser = portal.signed_in("root").await;
    let listed = browser.get(PATH).await;
    assert!(listed.body.contains("no process"), "{}", listed.body);
    let refused = browser
        .send_form("/ops/jobs/nightly", "/ops/jobs/nightly/run", &[])
        .await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("No process runs this job"), "{}", refused.body);
}

#[tokio::test]
async fn a_job_that_is_switched_off_has_no_button_and_is_not_asked_for() {
    let portal = TestPortal::new().await;
    portal.user("op", Role::Ops, None).await;
    let mut browser = portal.signed_in("op").await;
    let off = Nightly {
        switched_off: Some("the file says so; `ezscale nightly` does it"),
    };
    let stop = driven(&portal, off).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let mut listed = browser.get(PATH).await;
    while !listed.body.contains("switched off") {
        assert!(std::time::Instant::now() < deadline, "{}", listed.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
        listed = browser.get(PATH).await;
    }
    assert!(listed.body.contains("the file says so"), "{}", listed.body);
    assert!(!listed.body.contains("Run nightly now"), "{}", listed.body);
    let shown = browser.get("/ops/jobs/nightly").await;
    assert!(!shown.body.contains("/ops/jobs/nightly/run"), "{}", shown.body);
    let token = shown.csrf_token();
    let form = [("csrf_token", token.as_str()), ("form_token", "of no form")];
    let refused = browser.post("/ops/jobs/nightly/run", &form).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("The job is switched off"), "{}", refused.body);
    assert!(refused.body.contains("ezscale nightly"), "{}", refused.body);
    let jobs = job::list(portal.state.db().pool()).await.unwrap();
    assert!(jobs.iter().all(|job| !job.is_requested()), "{jobs:?}");
    stop.cancel();
}
