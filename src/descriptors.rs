//! File descriptors: as many as the system grants, and enough of them kept from HTTP.
//!
//! A connection is a descriptor, and so is a segment of the journal, a Parquet file, a connection to the database. Where HTTP
//! took the last one the collector could write nothing, so it gets only what is left after [`RESERVED`].

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Kept for the collector, the tables, the database and the logs.
const RESERVED: u64 = 512;

/// Raises the soft limit to the hard one. Where that is refused, what there is has to do.
pub(crate) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        warn!(%error, "the limit on open files was not raised");
    }
}

/// How many of the wanted connections there are descriptors for.
pub(crate) fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let connections = left(limit, wanted);
    if connections < wanted {
        warn!(
            open_files = limit,
            connections, wanted, "fewer http connections than configured: the limit on open files (ulimit -n) is low"
        );
    }
    connections
}

/// Half of a small limit, or what is beyond the reserve.
fn left(limit: u64, wanted: usize) -> usize {
    let reserve = RESERVED.min(limit / 2);
    usize::try_from(limit - reserve).unwrap_or(usize::MAX).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collector_keeps_its_share() {
        for (limit, wanted, connections) in [
            (1024, 4096, 512),
            (256, 4096, 128),
            (65_536, 4096, 4096),
            (u64::MAX, 4096, 4096),
            (2048, 100, 100),
        ] {
            assert_eq!(left(limit, wanted), connections, "{limit}");
        }
    }
}
