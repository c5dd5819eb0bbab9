//! Places to check a password: each check takes a core for some 30 ms and 19 MiB.
//!
//! ```text
//! who                                           places   of one           waiting   of one
//! a browser that is not known                   2        address: 1       64        address: 7, /56: 12, /48: 24
//! a known browser, or whoever is signed in      2        account: 1       64        account: 7
//! ```
//!
//! * The two lanes share nothing: however many strangers guess, who is known does not wait for them.
//! * Who finds no place within [`WAIT`] is told to come again (503 with `Retry-After`), and the try does not count.
//! * An account that does not exist has its password checked in the same lane as one that does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::identity::normalised_email;

use super::throttle::AttemptSource;
use crate::admission::{Busy, Gate, Limits, Place};
use crate::client::grouped;

/// Longest wait for a place.
const WAIT: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits {
    at_once: 2,
    at_once_each: 1,
    waiting: 64,
    waiting_each: 7,
    wait: WAIT,
};
/// Checks under way or waiting of networks of IPv6, by the length of their prefix: who has a /48 has many /64.
const NETWORKS: [(u8, usize); 2] = [(56, 12), (48, 24)];

/// A network of IPv6: the length of its prefix, and the prefix.
type Network = (u8, u128);

/// The lanes.
#[derive(Debug)]
pub(crate) struct PasswordLanes {
    strangers: Arc<Gate<IpAddr>>,
    known: Arc<Gate<String>>,
    networks: Arc<Networks>,
}

impl Default for PasswordLanes {
    fn default() -> PasswordLanes {
        PasswordLanes {
            strangers: Arc::new(Gate::new(LIMITS)),
            known: Arc::new(Gate::new(LIMITS)),
            networks: Arc::default(),
        }
    }
}

/// A place, until dropped.
#[derive(Debug)]
pub(crate) enum PasswordPlace {
    Stranger(
        #[allow(dead_code, reason = "held")] Place<IpAddr>,
        #[allow(dead_code, reason = "held")] Share,
    ),
    Known(#[allow(dead_code, reason = "held")] Place<String>),
}

impl PasswordLanes {
    /// Waits for a place in the lane of who tries.
    pub(crate) async fn enter(&self, guesser: AttemptSource<'_>, account: &str) -> Result<PasswordPlace, Busy> {
        match guesser {
            AttemptSource::Known(_) => self
                .known
                .enter(normalised_email(account))
                .await
                .map(PasswordPlace::Known),
            AttemptSource::Stranger(ip) => {
                let share = Share::of(&self.networks, ip)?;
                let place = self.strangers.enter(grouped(ip)).await?;
                Ok(PasswordPlace::Stranger(place, share))
            }
        }
    }

    /// Tries that found no place, by lane.
    pub(crate) fn refused(&self) -> [(&'static str, u64); 2] {
        let of_networks = *lock(&self.networks.refused);
        [
            ("passwords", self.strangers.refused() + of_networks),
            ("passwords_known", self.known.refused()),
        ]
    }
}

#[derive(Debug, Default)]
struct Networks {
    checks: Mutex<HashMap<Network, usize>>,
    refused: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn networks_of(ip: IpAddr) -> Vec<(Network, usize)> {
    let IpAddr::V6(v6) = ip.to_canonical() else {
        return Vec::new();
    };
    let network = |length: u8| (length, u128::from(v6) >> (Ipv6Addr::BITS - u32::from(length)));
    NETWORKS.map(|(length, most)| (network(length), most)).to_vec()
}

/// What a check takes of its networks, until dropped.
#[derive(Debug)]
pub(crate) struct Share {
    networks: Arc<Networks>,
    of: Vec<Network>,
}

impl Share {
    fn of(networks: &Arc<Networks>, ip: IpAddr) -> Result<Share, Busy> {
        let wanted = networks_of(ip);
        let mut checks = lock(&networks.checks);
        let is_full = |(network, most): &(Network, usize)| checks.get(network).is_some_and(|count| count >= most);
        if wanted.iter().any(is_full) {
            *lock(&networks.refused) += 1;
            return Err(Busy);
        }
        let of: Vec<Network> = wanted.into_iter().map(|(network, _)| network).collect();
        for network in &of {
            *checks.entry(*network).or_default() += 1;
        }
        drop(checks);
        Ok(Share {
            networks: Arc::clone(networks),
            of,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut checks = lock(&self.networks.checks);
        for network in &self.of {
            if let Some(count) = checks.get_mut(network) {
                *count -= 1;
                if *count == 0 {
                    checks.remove(network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::FutureExt as _;

    use super::*;

    fn from(text: &str) -> AttemptSource<'static> {
        AttemptSource::Stranger(text.parse().unwrap())
    }

    /// Tries of strangers that wait or have a place, of those that come from these addresses now.
    async fn wait(lanes: &PasswordLanes, addresses: impl Iterator<Item = String>) -> Vec<Pin<Box<impl Future>>> {
        let mut waiting = Vec::new();
        for address in addresses {
            let ip: IpAddr = address.parse().unwrap();
            // However many are looked at in one go: the runtime would have the task wait after a while.
            let trying = lanes.enter(AttemptSource::Stranger(ip), "a@example.net");
            let mut trying = Box::pin(tokio::task::unconstrained(trying));
            if futures::poll!(trying.as_mut()).is_pending() {
                waiting.push(trying);
            }
        }
        waiting
    }

    #[tokio::test]
    async fn a_flood_of_strangers_is_bounded_and_delays_nobody_who_is_known() {
        let lanes = PasswordLanes::default();
        let _held = [
            lanes.enter(from("192.0.2.1"), "a@example.net").await.unwrap(),
            lanes.enter(from("192.0.2.2"), "a@example.net").await.unwrap(),
        ];
        let flood = wait(&lanes, (0..200).map(|n| format!("198.51.100.{n}"))).await;
        assert_eq!(flood.len(), LIMITS.waiting);
        assert_eq!(lanes.refused()[0], ("passwords", 200 - 64));
        let known = lanes
            .enter(AttemptSource::Known("device"), "a@example.net")
            .now_or_never();
        assert!(known.expect("it does not wait").is_ok());
        // Who waits is told so when the time is over.
        let last = lanes.strangers.refused();
        futures::future::join_all(flood).await;
        assert_eq!(lanes.strangers.refused(), last + 64);
    }

    #[tokio::test]
    async fn networks_of_ipv6_are_counted_however_many_addresses_they_have() {
        let lanes = PasswordLanes::default();
        let held = [
            lanes.enter(from("192.0.2.1"), "").await.unwrap(),
            lanes.enter(from("192.0.2.2"), "").await.unwrap(),
        ];
        let same_56 = wait(&lanes, (0..40).map(|n| format!("2001:db8:1:{n:x}::1"))).await;
        assert_eq!(same_56.len(), 12, "of a /56");
        let same_48 = wait(&lanes, (1..=30).map(|n| format!("2001:db8:1:{n:x}00::1"))).await;
        assert_eq!(same_48.len(), 24 - 12, "of a /48");
        let other = wait(&lanes, std::iter::once("2001:db8:2::1".to_owned())).await;
        assert_eq!(other.len(), 1);
        drop((same_56, same_48, other, held));
        assert!(lock(&lanes.networks.checks).is_empty(), "nothing is left behind");
    }
}
