use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use jiff::Timestamp;
use schemas::clock::Clock;
use schemas::db::Database;
use sqlx::AnyConnection;
use tokio::sync::Semaphore;

use super::*;
use crate::job::{
    Alerts, Context, JobBoard, JobDependency, JobRecord, JobStatus, LocalRun, Notice, NoticeKind, RunFilter, Schedule,
    Scope, list, request, run_here, runs,
};

const LIMIT: Duration = Duration::from_secs(30);

/// What the jobs of a test do, by name: who began in which order, how many run at once, and what they are told to do.
#[derive(Debug, Default)]
struct Desk {
    begun: Mutex<Vec<(String, i64)>>,
    at_once: AtomicU64,
    most_at_once: AtomicU64,
    fails: AtomicBool,
    panics: AtomicBool,
    is_held: AtomicBool,
    notices: Mutex<Vec<Notice>>,
}

impl Desk {
    fn count(&self, name: &str) -> usize {
        let begun = self.begun.lock().unwrap();
        begun.iter().filter(|(begun, _)| begun == name).count()
    }

    fn kinds(&self) -> Vec<NoticeKind> {
        self.notices.lock().unwrap().iter().map(|notice| notice.kind).collect()
    }
}

#[async_trait]
impl Alerts for Desk {
    async fn tell(&self, _connection: &mut AnyConnection, notice: &Notice, _now_ms: i64) -> Result<(), RunError> {
        self.notices.lock().unwrap().push(notice.clone());
        Ok(())
    }
}

/// A job of a test.
struct Task {
    name: &'static str,
    /// As it is told apart on the desk.
    label: String,
    period: Duration,
    scope: Scope,
    timing: Timing,
    after: &'static [JobDependency],
    desk: Arc<Desk>,
    /// A run takes one; `None`: it ends at once.
    gate: Option<Arc<Semaphore>>,
    switched_off: Option<&'static str>,
}

impl Task {
    fn new(name: &'static str, desk: &Arc<Desk>) -> Task {
        Task {
            name,
            label: name.to_owned(),
            period: Duration::from_millis(200),
            scope: Scope::Leased,
            timing: Timing::Machine,
            after: &[],
            desk: Arc::clone(desk),
            gate: None,
            switched_off: None,
        }
    }
}

#[async_trait]
impl Job for Task {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        "Does what a test wants"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(self.period)
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn timing(&self) -> Timing {
        self.timing
    }

    fn after(&self) -> &'static [JobDependency] {
        self.after
    }

    fn failures_before_alert(&self) -> u64 {
        3
    }

    fn switched_off(&self) -> Option<&'static str> {
        self.switched_off
    }

    async fn hold(&self, _now_ms: i64) -> Hold {
        match self.desk.is_held.load(Ordering::SeqCst) {
            true => Hold::ByOrder("the test says so".to_owned()),
            false => Hold::No,
        }
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        self.desk.begun.lock().unwrap().push((self.label.clone(), run.now_ms));
        let at_once = self.desk.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.desk.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        run.progress(1, 2, "half way");
        if let Some(gate) = &self.gate {
            gate.acquire().await?.forget();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.desk.at_once.fetch_sub(1, Ordering::SeqCst);
        assert!(!self.desk.panics.load(Ordering::SeqCst), "as it was told");
        match self.desk.fails.load(Ordering::SeqCst) {
            true => Err("the test says so".into()),
            false => Ok(RunReport::Nothing),
        }
    }
}

struct World {
    database: Database,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        World {
            database,
            _folder: folder,
        }
    }

    fn settings(&self, desk: &Arc<Desk>, clock: &Clock) -> Settings {
        Settings {
            database: self.database.clone(),
            clock: clock.clone(),
            board: JobBoard::default(),
            alerts: Arc::clone(desk) as Arc<dyn Alerts>,
            folder: "/srv/data".to_owned(),
        }
    }

    fn start(&self, desk: &Arc<Desk>, jobs: Vec<Task>) -> Running {
        self.start_with(desk, jobs, &Clock::system())
    }

    fn start_with(&self, desk: &Arc<Desk>, jobs: Vec<Task>, clock: &Clock) -> Running {
        let settings = self.settings(desk, clock);
        let board = settings.board.clone();
        let jobs = jobs.into_iter().map(|job| Arc::new(job) as Arc<dyn Job>).collect();
        let stop = CancellationToken::new();
        let task = tokio::spawn(Driver::new(settings, jobs).run(stop.clone()));
        Running { task, stop, board }
    }

    async fn listed(&self, name: &str) -> Option<JobRecord> {
        let listed = list(self.database.pool()).await.unwrap();
        listed.into_iter().find(|listed| listed.name == name)
    }

    async fn ask(&self, name: &str) {
        let mut transaction = self.database.begin_write().await.unwrap();
        request(&mut transaction, name, clock::machine_now_ms()).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

struct Running {
    task: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    board: JobBoard,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends it as a crash would: nothing is given back.
    fn crash(self) {
        self.task.abort();
    }
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn two_drivers_on_one_database_never_run_a_leased_job_at_once_and_the_second_goes_on_when_the_first_stops() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let labelled = |label: &str| Task {
        label: label.to_owned(),
        ..Task::new("work", &desk)
    };
    let first = world.start(&desk, vec![labelled("first")]);
    wait_until("the first runs it", async || desk.count("first") > 2).await;
    let second = world.start(&desk, vec![labelled("second")]);
    let before = desk.count("first");
    wait_until("the first ran it again and again", async || {
        desk.count("first") > before + 10
    })
    .await;
    assert_eq!(desk.count("second"), 0);
    assert!(second.board.jobs().iter().all(|job| !job.is_late));
    first.stop().await;
    wait_until("the second runs it", async || desk.count("second") > 2).await;
    assert_eq!(desk.most_at_once.load(Ordering::SeqCst), 1);
    second.stop().await;
    // Given back: a third one need not wait.
    let third = world.start(&desk, vec![labelled("third")]);
    wait_until("the third runs it", async || desk.count("third") > 0).await;
    third.stop().await;
}

#[tokio::test]
async fn each_process_runs_its_local_jobs() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let labelled = |label: &str| Task {
        label: label.to_owned(),
        scope: Scope::Local,
        ..Task::new("work", &desk)
    };
    let first = world.start(&desk, vec![labelled("first")]);
    let second = world.start(&desk, vec![labelled("second")]);
    wait_until("both run it", async || {
        desk.count("first") > 2 && desk.count("second") > 2
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_slow_job_holds_up_only_those_that_come_after_it() {
    static ALWAYS: [JobDependency; 1] = [JobDependency::always("slow")];
    static FOR_A_SECOND: [JobDependency; 1] = [JobDependency::at_most("slow", Duration::from_secs(1))];
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let gate = Arc::new(Semaphore::new(0));
    let slow = Task {
        gate: Some(Arc::clone(&gate)),
        period: Duration::from_secs(600),
        ..Task::new("slow", &desk)
    };
    let after = |name, after| Task {
        after,
        ..Task::new(name, &desk)
    };
    let running = world.start(
        &desk,
        vec![
            after("behind", &ALWAYS),
            after("impatient", &FOR_A_SECOND),
            Task::new("quick", &desk),
            slow,
        ],
    );
    wait_until("others run", async || {
        desk.count("quick") > 5 && desk.count("impatient") > 1
    })
    .await;
    assert_eq!((desk.count("slow"), desk.count("behind")), (1, 0));
    wait_until("its progress is listed", async || {
        let slow = world.listed("slow").await;
        slow.is_some_and(|slow| slow.running_since_ms.is_some() && slow.progress.text == "half way")
    })
    .await;
    let slow = world.listed("slow").await.unwrap();
    assert_eq!(slow.condition(clock::machine_now_ms()), JobStatus::Running);
    assert_eq!((slow.progress.done, slow.progress.total), (1, 2));
    gate.add_permits(100);
    // Each time it is due, what it depends on has run for that instant.
    wait_until("what waited runs", async || desk.count("behind") > 1).await;
    assert!(desk.count("slow") >= desk.count("behind"));
    wait_until("the long run is recorded", async || {
        let all = runs(world.database.pool(), RunFilter::default(), 100).await.unwrap();
        // Those that found nothing to do five times a second have no rows.
        assert!(all.iter().all(|run| run.job == "slow"), "{all:?}");
        all.last().is_some_and(|run| run.outcome == Outcome::Succeeded)
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn who_must_know_hears_once_that_a_job_fails_and_once_that_it_works_again() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    desk.fails.store(true, Ordering::SeqCst);
    let running = world.start(&desk, vec![Task::new("work", &desk)]);
    wait_until("it failed often", async || desk.count("work") > 8).await;
    assert_eq!(desk.kinds(), [NoticeKind::Failing]);
    {
        let notices = desk.notices.lock().unwrap();
        assert_eq!((notices[0].job, notices[0].failures_in_a_row), ("work", 3));
        assert_eq!(notices[0].error, "the test says so");
    }
    let listed = world.listed("work").await.unwrap();
    assert_eq!(listed.condition(clock::machine_now_ms()), JobStatus::Failing);
    running.stop().await;
    // A process that is started again has heard of it.
    let before = desk.count("work");
    let running = world.start(&desk, vec![Task::new("work", &desk)]);
    wait_until("it failed more often", async || desk.count("work") > before + 5).await;
    assert_eq!(desk.kinds().len(), 1);
    desk.fails.store(false, Ordering::SeqCst);
    wait_until("it was told", async || desk.kinds().len() > 1).await;
    let before = desk.count("work");
    wait_until("it ran more often", async || desk.count("work") > before + 5).await;
    assert_eq!(desk.kinds(), [NoticeKind::Failing, NoticeKind::Recovered]);
    running.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_failure_like_any_other() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    desk.panics.store(true, Ordering::SeqCst);
    let running = world.start(&desk, vec![Task::new("work", &desk)]);
    wait_until("it was tried again", async || desk.count("work") > 1).await;
    desk.panics.store(false, Ordering::SeqCst);
    wait_until("the failure is recorded", async || {
        let all = runs(world.database.pool(), RunFilter::default(), 10).await.unwrap();
        all.iter()
            .any(|run| run.outcome == Outcome::Failed && run.text.contains("panicked: as it was told"))
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn whenever_the_test_clock_is_set_all_jobs_of_the_books_run_in_their_order_at_one_instant() {
    static AFTER_FIRST: [JobDependency; 1] = [JobDependency::always("first")];
    static AFTER_SECOND: [JobDependency; 1] = [JobDependency::at_most("second", Duration::from_millis(1))];
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let world = World::new().await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    let (clock, _) = clock::begin(&mut connection, at("2026-01-01T00:00:00Z")).await.unwrap();
    let desk = Arc::new(Desk::default());
    let of_the_books = |name, after| Task {
        after,
        timing: Timing::Books,
        period: Duration::from_secs(600),
        scope: Scope::Group("books"),
        ..Task::new(name, &desk)
    };
    let jobs = vec![
        of_the_books("third", &AFTER_SECOND),
        of_the_books("second", &AFTER_FIRST),
        of_the_books("first", &[]),
    ];
    let running = world.start_with(&desk, jobs, &clock);
    wait_until("they ran at the start", async || desk.count("third") == 1).await;
    let set = at("2026-03-01T12:00:00Z");
    clock::store(&mut connection, set).await.unwrap();
    wait_until("they ran when it was set", async || desk.count("third") == 2).await;
    let order: Vec<String> = desk
        .begun
        .lock()
        .unwrap()
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(order, ["first", "second", "third", "first", "second", "third"]);
    let instants: Vec<i64> = desk.begun.lock().unwrap().iter().map(|(_, now_ms)| *now_ms).collect();
    assert_eq!(instants[3..], [set.as_millisecond(); 3]);
    // It stands still: nothing more is due, and nothing is late.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(desk.count("first"), 2);
    assert_eq!(desk.most_at_once.load(Ordering::SeqCst), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_job_runs_when_it_is_asked_for_and_not_while_it_is_on_hold() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let seldom = || Task {
        period: Duration::from_secs(3_600),
        ..Task::new("work", &desk)
    };
    let running = world.start(&desk, vec![seldom()]);
    wait_until("it ran at the start", async || desk.count("work") == 1).await;
    world.ask("work").await;
    wait_until("it ran as it was asked for", async || desk.count("work") == 2).await;
    wait_until("that is recorded", async || {
        let all = runs(world.database.pool(), RunFilter::default(), 10).await.unwrap();
        all.first()
            .is_some_and(|run| run.cause == Cause::Request && run.outcome == Outcome::Succeeded)
    })
    .await;
    assert!(!world.listed("work").await.unwrap().is_requested());
    desk.is_held.store(true, Ordering::SeqCst);
    world.ask("work").await;
    wait_until("it is on hold", async || {
        let listed = world.listed("work").await.unwrap();
        listed.condition(clock::machine_now_ms()) == JobStatus::Held && listed.hold == "the test says so"
    })
    .await;
    assert_eq!(desk.count("work"), 2);
    desk.is_held.store(false, Ordering::SeqCst);
    wait_until("it runs", async || desk.count("work") == 3).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let unknown = request(&mut transaction, "wrok", clock::machine_now_ms())
        .await
        .unwrap_err();
    assert!(unknown.to_string().contains("wrok"), "{unknown}");
    drop(transaction);
    running.stop().await;
}

#[tokio::test]
async fn a_run_whose_process_died_is_found_abandoned_by_its_successor() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let gate = Arc::new(Semaphore::new(0));
    let slow = |scope| Task {
        gate: Some(Arc::clone(&gate)),
        scope,
        period: Duration::from_secs(3_600),
        ..Task::new("work", &desk)
    };
    let running = world.start(&desk, vec![slow(Scope::Leased)]);
    wait_until("its run has a row", async || {
        let all = runs(world.database.pool(), RunFilter::default(), 10).await.unwrap();
        all.first().is_some_and(|run| run.outcome == Outcome::Running)
    })
    .await;
    running.crash();
    // As if it had been another process of this machine, which is gone.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let process = Owner::of_this_process().process;
    let (scope, _) = process.rsplit_once(' ').unwrap().0.rsplit_once(' ').unwrap();
    sqlx::query("UPDATE job_leases SET process = $1")
        .bind(format!("{scope} {} 1", child.id()))
        .execute(world.database.pool())
        .await
        .unwrap();
    gate.add_permits(1);
    let running = world.start(&desk, vec![slow(Scope::Leased)]);
    wait_until("its successor ran it", async || {
        let all = runs(world.database.pool(), RunFilter::default(), 10).await.unwrap();
        let outcomes: Vec<Outcome> = all.iter().map(|run| run.outcome).collect();
        outcomes == [Outcome::Succeeded, Outcome::Abandoned]
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_command_runs_a_job_itself_where_nobody_else_does() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let settings = world.settings(&desk, &Clock::system());
    let job = Arc::new(Task::new("work", &desk));
    let ran = run_here(job.clone(), settings.clone()).await.unwrap();
    assert!(
        matches!(
            &ran,
            LocalRun::Ended {
                outcome: Outcome::Succeeded,
                ..
            }
        ),
        "{ran:?}"
    );
    desk.fails.store(true, Ordering::SeqCst);
    let ran = run_here(job.clone(), settings.clone()).await.unwrap();
    assert!(
        matches!(&ran, LocalRun::Ended { outcome: Outcome::Failed, text } if text == "the test says so"),
        "{ran:?}"
    );
    desk.is_held.store(true, Ordering::SeqCst);
    let ran = run_here(job, settings).await.unwrap();
    assert_eq!(ran, LocalRun::Held("the test says so".to_owned()));
    let listed = world.listed("work").await.unwrap();
    assert_eq!(listed.condition(clock::machine_now_ms()), JobStatus::NoProcess);
    let all = runs(world.database.pool(), RunFilter::default(), 10).await.unwrap();
    let outcomes: BTreeMap<&str, usize> = all.iter().fold(BTreeMap::new(), |mut counts, run| {
        *counts.entry(run.outcome.name()).or_default() += 1;
        counts
    });
    assert_eq!(outcomes, BTreeMap::from([("failed", 1), ("succeeded", 1)]));
}

#[test]
fn a_run_that_serves_what_was_asked_for_meanwhile_is_one_that_was_asked_for() {
    let desk = Arc::new(Desk::default());
    let slot = Slot::new(Arc::new(Task::new("work", &desk)), "host:/srv/data", &Clock::system());
    let mut state = slot.state();
    // It was due by its schedule; then the request was seen, while it was asked whether it may run.
    state.requested = 1;
    let run = state.begin(Cause::Schedule, 1_000, 0, CancellationToken::new());
    assert_eq!((run.cause, state.stored.served), (Cause::Request, 1));
    assert_eq!(state.run.as_ref().map(|run| run.cause), Some(Cause::Request));
    state.end(Duration::from_secs(1), 1_000, 1_001, Outcome::Succeeded, String::new());
    let run = state.begin(Cause::Schedule, 2_000, 0, CancellationToken::new());
    assert_eq!(run.cause, Cause::Schedule);
}

#[tokio::test]
async fn a_job_that_is_switched_off_is_listed_as_that_and_cannot_be_asked_for() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let of_group = |name, switched_off| Task {
        scope: Scope::Group("books"),
        period: Duration::from_secs(3_600),
        switched_off,
        ..Task::new(name, &desk)
    };
    let condition = async |name: &str| {
        let listed = world.listed(name).await.unwrap();
        listed.condition(clock::machine_now_ms())
    };
    let running = world.start(&desk, vec![of_group("work", None), of_group("other", None)]);
    wait_until("both ran", async || desk.count("work") == 1 && desk.count("other") == 1).await;
    running.stop().await;
    assert_eq!(condition("work").await, JobStatus::NoProcess);
    // Asked for, and its process ended before it saw that.
    sqlx::query("UPDATE jobs SET requested = requested + 1 WHERE name = 'work'")
        .execute(world.database.pool())
        .await
        .unwrap();

    let own = Task {
        switched_off: Some("nobody needs it"),
        ..Task::new("own", &desk)
    };
    let off = of_group("work", Some("the test says so"));
    let running = world.start(&desk, vec![off, of_group("other", None), own]);
    wait_until("the other ran", async || desk.count("other") == 2).await;
    assert_eq!(condition("work").await, JobStatus::SwitchedOff);
    assert_eq!(condition("own").await, JobStatus::SwitchedOff);
    assert!(running.board.jobs().iter().all(|job| job.name == "other"));
    let mut transaction = world.database.begin_write().await.unwrap();
    let refused = request(&mut transaction, "work", clock::machine_now_ms())
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "work is switched off: the test says so");
    drop(transaction);
    running.stop().await;
    let off = Arc::new(of_group("work", Some("the test says so")));
    let refused = run_here(off, world.settings(&desk, &Clock::system()))
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "work is switched off: the test says so");

    // Switched on again it runs by its schedule: what was asked for before is forgotten.
    let running = world.start(&desk, vec![of_group("work", None), of_group("other", None)]);
    wait_until("both ran again", async || {
        desk.count("work") == 2 && desk.count("other") == 3
    })
    .await;
    assert_ne!(condition("work").await, JobStatus::SwitchedOff);
    running.stop().await;
    let all = runs(world.database.pool(), RunFilter::default(), 100).await.unwrap();
    assert!(all.iter().all(|run| run.cause == Cause::Schedule), "{all:?}");
}

#[tokio::test]
async fn jobs_of_a_lease_that_a_command_has_taken_for_one_of_them_have_no_process() {
    let world = World::new().await;
    let desk = Arc::new(Desk::default());
    let of_group = |name| Task {
        scope: Scope::Group("books"),
        period: Duration::from_secs(3_600),
        ..Task::new(name, &desk)
    };
    let running = world.start(&desk, vec![of_group("work"), of_group("other")]);
    wait_until("both ran", async || desk.count("work") == 1 && desk.count("other") == 1).await;
    running.stop().await;
    let gate = Arc::new(Semaphore::new(0));
    let job = Task {
        gate: Some(Arc::clone(&gate)),
        ..of_group("work")
    };
    let here = tokio::spawn(run_here(Arc::new(job), world.settings(&desk, &Clock::system())));
    wait_until("the command runs it", async || desk.count("work") == 2).await;
    let now_ms = clock::machine_now_ms();
    assert!(world.listed("work").await.unwrap().has_process(now_ms));
    let other = world.listed("other").await.unwrap();
    assert!(other.is_leased(now_ms));
    assert_eq!(other.condition(now_ms), JobStatus::NoProcess);
    gate.add_permits(1);
    here.await.unwrap().unwrap();
}
