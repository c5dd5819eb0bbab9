//! No place in the program floods the log: of its warnings and errors so many are written in a minute, the others are
//! counted and told together when the minute is over.
//!
//! What strangers send, such as bad signatures or broken requests, is logged where it is refused. Without a limit whoever
//! sends enough of it fills the disk that the collector writes to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one place in the program in a [`WINDOW`].
const MAX_LINES: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);

/// What one place in the program said.
#[derive(Debug)]
struct Place {
    since: Instant,
    lines: u32,
    left_out: u64,
    file: &'static str,
    line: u32,
}

/// Lets so many lines of each place through. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogLimit {
    places: Arc<Mutex<HashMap<Identifier, Place>>>,
}

impl LogLimit {
    fn places(&self) -> std::sync::MutexGuard<'_, HashMap<Identifier, Place>> {
        self.places.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether a line may be written now.
    fn takes(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if *metadata.level() > Level::WARN {
            return true;
        }
        let mut places = self.places();
        let place = places.entry(metadata.callsite()).or_insert_with(|| Place {
            since: now,
            lines: 0,
            left_out: 0,
            file: metadata.file().unwrap_or_else(|| metadata.target()),
            line: metadata.line().unwrap_or_default(),
        });
        // What was left out is told first.
        if place.left_out == 0 && now.duration_since(place.since) >= WINDOW {
            place.since = now;
            place.lines = 0;
        }
        if place.lines < MAX_LINES {
            place.lines += 1;
            return true;
        }
        place.left_out += 1;
        if place.left_out == 1 {
            let limit = self.clone();
            let callsite = metadata.callsite();
            #[allow(
                clippy::disallowed_methods,
                reason = "the thread does nothing but wait for the window's end"
            )]
            // Where no thread is to be had the lines stay uncounted: there is nobody to tell.
            let _ = std::thread::Builder::new().name("log-limit".to_owned()).spawn(move || {
                std::thread::sleep(WINDOW);
                limit.tell(&callsite);
            });
        }
        false
    }

    /// Says how many lines were left out, and lets the place speak again.
    fn tell(&self, callsite: &Identifier) {
        let told = self.places().remove(callsite);
        if let Some(Place {
            left_out, file, line, ..
        }) = told
        {
            tracing::warn!(
                lines = left_out,
                file,
                line,
                "log lines were left out: too many of one kind in a minute"
            );
        }
    }
}

impl<S: Subscriber> Filter<S> for LogLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.takes(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::{Layer, SubscriberExt as _};

    /// Counts what gets through.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let line = event.metadata().line().unwrap_or_default();
            self.0
                .lock()
                .unwrap()
                .push(format!("{} {line}", event.metadata().level()));
        }
    }

    #[test]
    fn a_flood_of_one_kind_leaves_room_for_the_others() {
        let lines = Lines::default();
        let limit = LogLimit::default();
        let subscriber = tracing_subscriber::registry().with(lines.clone().with_filter(limit.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..1_000 {
                tracing::warn!("refused");
                tracing::info!("done");
            }
            tracing::warn!("another kind");
            let flooding = limit
                .places()
                .iter()
                .find(|(_, place)| place.left_out > 0)
                .map(|(key, _)| key.clone());
            limit.tell(&flooding.unwrap());
            tracing::warn!("the end");
        });
        let lines = lines.0.lock().unwrap().clone();
        let of = |level: &str| lines.iter().filter(|line| line.starts_with(level)).count();
        // The flood's share, the other two kinds, and how many were left out.
        assert_eq!((of("WARN"), of("INFO")), (MAX_LINES as usize + 3, 1_000));
    }
}
