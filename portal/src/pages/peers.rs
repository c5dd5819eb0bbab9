//! The remote addresses that a service exchanged most with, as `peers.html` prints them.

use analytics::Peer;

use crate::format::VolumeUnits;

pub(crate) struct PeerRow {
    pub(crate) address: String,
    /// Empty where no flow named one.
    pub(crate) autonomous_system: String,
    pub(crate) received: String,
    pub(crate) sent: String,
    pub(crate) total: String,
    pub(crate) percent: String,
}

/// Rows with their share of everything that the service received and sent.
pub(crate) fn peer_rows(peers: &[Peer], bytes_in: u64, bytes_out: u64, units: VolumeUnits) -> Vec<PeerRow> {
    let everything = u128::from(bytes_in) + u128::from(bytes_out);
    let rows = peers.iter().map(|peer| {
        let total = peer.bytes_in.saturating_add(peer.bytes_out);
        let permille = (u128::from(total) * 1000).checked_div(everything).unwrap_or(0);
        PeerRow {
            address: peer.address.to_string(),
            autonomous_system: match peer.autonomous_system {
                0 => String::new(),
                number => format!("AS{number}"),
            },
            received: units.bytes(peer.bytes_in),
            sent: units.bytes(peer.bytes_out),
            total: units.bytes(total),
            percent: format!("{}.{} %", permille / 10, permille % 10),
        }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_both_directions_and_of_nothing_they_are_none() {
        let peer = Peer {
            address: "198.51.100.7".parse().unwrap(),
            autonomous_system: 0,
            bytes_in: 1 << 30,
            bytes_out: 1 << 30,
        };
        let row = |bytes_in, bytes_out| {
            let mut rows = peer_rows(std::slice::from_ref(&peer), bytes_in, bytes_out, VolumeUnits::Binary);
            let row = rows.pop().unwrap();
            (row.autonomous_system, row.total, row.percent)
        };
        let expected = |percent: &str| (String::new(), "2.00 GiB".to_owned(), percent.to_owned());
        assert_eq!(row(3 << 30, 5 << 30), expected("25.0 %"));
        assert_eq!(row(0, 0), expected("0.0 %"));
    }
}
