//! Random histories: sign-ups with coupons, add-ons, changes, cancellations, transfers, usage, late usage, pooled usage,
//! silence, flags, payments, credit notes, voids, write-offs, changes of taxes, days going by, and crashes in the middle of closing.
//!
//! Whenever days have gone by, each document, each line and each balance is what a second, plain model says
//! ([`crate::model`]), on SQLite and on PostgreSQL: a crash changes nothing, and both databases say the same. In the end the
//! books are right by themselves, too (B1 to B4, B6), and of what was given back as a whole no net and no tax is left.
//!
//! `EZSCALE_HISTORIES=10000 cargo test … histories` runs so many, shared by the tests; `EZSCALE_HISTORIES_SEED` begins anew
//! with other ones.

mod compare;
mod ground;
mod play;
mod step;

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

use ground::Ground;
use play::Play;
use step::{Step, step};

use crate::model::Books;

/// Tests among which the histories on SQLite are shared: each has a thread.
const SHARES: u32 = 4;
/// After so many histories of a share it is said what they were made of.
const TOLD_EVERY: u32 = 100;
/// Of so many histories one is played on PostgreSQL too.
const ONE_ON_POSTGRESQL_OF: u32 = 6;

/// Histories in one run; `EZSCALE_HISTORIES` asks for more.
fn histories() -> u32 {
    asked("EZSCALE_HISTORIES").unwrap_or(24)
}

fn asked(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays histories until one goes wrong, and then a shorter one that goes wrong too.
fn play_all(count: u32, share: u32, play: impl Fn(&[Step])) {
    let config = Config {
        cases: count,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..Config::default()
    };
    // The same histories in each run, or others where that is asked.
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&asked("EZSCALE_HISTORIES_SEED").unwrap_or(0).to_le_bytes());
    seed[4..8].copy_from_slice(&share.to_le_bytes());
    let rng = TestRng::from_seed(config.rng_algorithm, &seed);
    let played = TestRunner::new_with_rng(config, rng).run(&vec(step(), 1..60), |steps| {
        play(&steps);
        Ok(())
    });
    match played {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => panic!("{reason}\nafter {steps:#?}"),
        Err(other) => panic!("{other}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn play(ground: &Ground, steps: &[Step], crashes: bool) -> Books {
    let mut play = Play::new(ground.world().await, crashes);
    for step in steps {
        play.make(step).await;
    }
    let books = play.end().await;
    play.into_world().database.pool().close().await;
    books
}

/// Says what histories were made of, where many were asked for.
#[derive(Default)]
struct Tally(RefCell<BTreeMap<String, u32>>);

impl Tally {
    fn add(&self, books: &Books) {
        let mut found = self.0.borrow_mut();
        let mut count = |what: String| {
            let count = found.entry(what).or_default();
            *count += 1;
            *count
        };
        for document in &books.documents {
            count(format!("{} {}", &document.number[..2], document.status));
            if document.status == "void" && document.lines.iter().any(|line| line.kind == "unused") {
                count("void with unused days".to_owned());
            }
            for line in &document.lines {
                count(format!("{} {:+}", line.kind, line.priced.signum()));
            }
        }
        let played = count("histories".to_owned());
        if played.is_multiple_of(TOLD_EVERY) && asked("EZSCALE_HISTORIES").is_some() {
            eprintln!("{found:?}");
        }
    }
}

fn play_share(share: u32) {
    let runtime = runtime();
    let ground = runtime.block_on(Ground::sqlite());
    let tally = Tally::default();
    play_all(histories().div_ceil(SHARES), share, |steps| {
        tally.add(&runtime.block_on(play(&ground, steps, true)));
    });
}

#[test]
fn no_history_is_a_cent_apart_from_the_model_1() {
    play_share(1);
}

#[test]
fn no_history_is_a_cent_apart_from_the_model_2() {
    play_share(2);
}

#[test]
fn no_history_is_a_cent_apart_from_the_model_3() {
    play_share(3);
}

#[test]
fn no_history_is_a_cent_apart_from_the_model_4() {
    play_share(4);
}

#[test]
fn a_history_gives_the_same_books_on_sqlite_and_postgresql_whatever_crashes() {
    let runtime = runtime();
    let tally = Tally::default();
    let (sqlite, postgres) = runtime.block_on(async { (Ground::sqlite().await, Ground::postgres().await) });
    play_all(histories().div_ceil(ONE_ON_POSTGRESQL_OF), SHARES + 1, |steps| {
        runtime.block_on(async {
            let crashed = play(&postgres, steps, true).await;
            let straight = play(&sqlite, steps, false).await;
            assert_eq!(crashed, straight);
            tally.add(&straight);
        });
    });
}
