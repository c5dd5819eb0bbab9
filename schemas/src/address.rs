//! Addresses as the stores keep them: 16 bytes, IPv4 mapped into IPv6 (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2).

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 or IPv6 address as 16 bytes in network order; IPv4 is mapped. All zero means "not reported".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// The address that says nothing was reported.
    pub const UNSPECIFIED: Address = Address([0; 16]);

    /// Maps four IPv4 bytes in network order.
    #[inline]
    pub const fn from_v4(octets: [u8; 4]) -> Address {
        let [a, b, c, d] = octets;
        Address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The address in its own family: a mapped IPv4 address comes back as IPv4.
    pub fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// True for a mapped IPv4 address.
    #[inline]
    pub fn is_v4(self) -> bool {
        self.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    }

    /// The address as a number, for longest-prefix matches and arithmetic.
    #[inline]
    pub fn to_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// Reads a column value; `None` unless it holds 16 bytes.
    #[inline]
    pub fn from_slice(bytes: &[u8]) -> Option<Address> {
        bytes.try_into().ok().map(Address)
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip {
            IpAddr::V4(v4) => Address::from_v4(v4.octets()),
            IpAddr::V6(v6) => Address(v6.octets()),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Address, Self::Err> {
        text.parse::<IpAddr>().map(Address::from)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl utoipa::PartialSchema for Address {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        crate::api_text::schema("An IPv4 or IPv6 address.", "^[0-9a-f.:]+$", "192.0.2.1")
    }
}

impl utoipa::ToSchema for Address {}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        <IpAddr as serde::Deserialize>::deserialize(deserializer).map(Address::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["192.0.2.1", "2001:db8::1", "::", "0.0.0.0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert!("192.0.2.1".parse::<Address>().unwrap().is_v4());
        assert!(!"2001:db8::1".parse::<Address>().unwrap().is_v4());
    }
}
