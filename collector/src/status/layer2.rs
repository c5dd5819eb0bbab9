//! Whether an exporter's bytes have layer 2 in them, by sizes that IP does not have.
//!
//! A host that only acknowledges sends packets of one size: 40 bytes of IPv4 and TCP, 52 with time stamps, 60 and 72 of IPv6. A
//! TCP flow whose packets carry no payload (no PSH among its flags) has such a mean; where it is 14 or 18 larger, an Ethernet header was
//! counted with each packet, without or with a VLAN tag or check sequence.

/// Octets that an Ethernet header adds: without a tag, and with one or with the frame check sequence.
pub const LAYER2_OCTETS: [u64; 2] = [14, 18];
/// Sizes of a packet that acknowledges and nothing else.
const ACKNOWLEDGEMENTS: [u64; 4] = [40, 52, 60, 72];
/// Fewer packets are mostly those that open and close a connection, which have other sizes.
const PACKETS_MIN: u64 = 10;
/// Packets that must have shown it.
const SHOWN_MIN: u64 = 100;
/// So many times more than those that show the opposite.
const SHOWN_RATIO: u64 = 9;
const PSH: u8 = 0x08;
const TCP: u8 = 6;

/// Packets of TCP flows without payload, by what their size says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct HeaderSizes {
    /// As IP has it.
    pub layer3: u64,
    /// With [`LAYER2_OCTETS`].
    pub layer2: [u64; 2],
}

impl HeaderSizes {
    /// Looks at a flow; most are not of this kind.
    #[inline]
    pub(super) fn look_at(&mut self, ip_protocol: u8, tcp_flags: u8, bytes: u64, packets: u64) {
        if ip_protocol == TCP && tcp_flags & PSH == 0 && packets >= PACKETS_MIN {
            let mean = bytes / packets;
            if ACKNOWLEDGEMENTS.contains(&mean) {
                self.layer3 = self.layer3.saturating_add(packets);
            }
            for (shown, octets) in self.layer2.iter_mut().zip(LAYER2_OCTETS) {
                if mean
                    .checked_sub(octets)
                    .is_some_and(|size| ACKNOWLEDGEMENTS.contains(&size))
                {
                    *shown = shown.saturating_add(packets);
                }
            }
        }
    }

    pub(super) fn add(&mut self, other: HeaderSizes) {
        self.layer3 = self.layer3.saturating_add(other.layer3);
        for (mine, theirs) in self.layer2.iter_mut().zip(other.layer2) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// How many octets of layer 2 the exporter counts with each packet; `None` where nothing shows any.
    pub fn octets(&self) -> Option<u64> {
        let shown = self
            .layer2
            .iter()
            .zip(LAYER2_OCTETS)
            .max_by_key(|(packets, _)| **packets)?;
        let (packets, octets) = shown;
        (*packets >= SHOWN_MIN && *packets / SHOWN_RATIO >= self.layer3).then_some(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(flows: &[(u8, u64, u64)]) -> Option<u64> {
        let mut sizes = HeaderSizes::default();
        for (tcp_flags, bytes, packets) in flows {
            sizes.look_at(TCP, *tcp_flags, *bytes, *packets);
        }
        sizes.octets()
    }

    #[test]
    fn acknowledgements_of_66_bytes_have_an_ethernet_header() {
        // Open vSwitch 3.1, NetFlow v5: the answering half of an iperf run.
        assert_eq!(octets(&[(0x13, 25_616, 388), (0x1b, 1_096_933, 732)]), Some(14));
        assert_eq!(octets(&[(0x10, 70 * 200, 200)]), Some(18), "and a VLAN tag");
        assert_eq!(octets(&[(0x13, 388 * 52 + 8, 388)]), None, "as IP has them");
        assert_eq!(octets(&[(0x1b, 66 * 400, 400)]), None, "with payload any size may be");
        assert_eq!(octets(&[(0x10, 66 * 99, 99)]), None, "too few to tell");
        assert_eq!(octets(&[(0x10, 66 * 500, 500), (0x10, 52 * 100, 100)]), None, "both");
    }
}
