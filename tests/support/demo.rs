//! The demo's data, made once and copied by tests that read or change them. How the demo makes them, and serves them right after, is
//! for `tests/demo.rs`, which makes its own.

use std::path::Path;
use std::time::Duration;

use fixtures::Found;

use super::clock;
use super::ezscale::{BINARY, DataDir, Ezscale, Start};

/// Until a demo is made, on a busy machine.
const MAKE_LIMIT: Duration = Duration::from_secs(400);
/// Older ones are made anew: pages of the last hour must have something to show.
const AGE_MS_MAX: i64 = 30 * 60_000;
/// The folder of the data, in that of the fixture.
const DATA: &str = "data";

/// A data directory with the demo in it, as this program's `ezscale demo` left it at most half an hour ago.
pub(crate) fn demo_data() -> DataDir {
    let half_hour = clock::running().as_millisecond() / AGE_MS_MAX;
    let identity = format!("{}-{half_hour}", fixtures::identity_of(Path::new(BINARY)));
    let data = DataDir::new();
    match fixtures::find("demo", &identity) {
        Found::Ready(made) => fixtures::copy_folder(&made.path().join(DATA), &data.path()),
        Found::Empty(making) => {
            start_demo(&data).terminate();
            fixtures::copy_folder(&data.path(), &making.path().join(DATA));
            drop(making.finish());
        }
    }
    data
}

/// Starts the demo, and waits until its portal listens.
pub(crate) fn start_demo(data: &DataDir) -> Ezscale {
    let demo = Start::new("demo").http("127.0.0.1:0");
    demo.starting_within(MAKE_LIMIT).on(data)
}
