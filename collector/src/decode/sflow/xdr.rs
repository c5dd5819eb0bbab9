//! Reading XDR (RFC 4506) from a slice: big-endian words, opaques padded to four bytes.
//!
//! Every read is checked against what is left and borrows from the datagram; a length field never causes an allocation.

use schemas::address::Address;

/// What an sFlow `address` union says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum XdrAddress {
    Unknown,
    Known(Address),
}

impl XdrAddress {
    /// The address; `::` where it is unknown or all zero.
    pub(super) fn or_unspecified(self) -> Address {
        match self {
            XdrAddress::Known(address) if address != Address::from_v4([0; 4]) => address,
            _ => Address::UNSPECIFIED,
        }
    }
}

/// Why a read failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum XdrError {
    /// Fewer bytes are left than asked for.
    Truncated,
    /// The discriminant of an address union is none of the specification.
    AddressType,
}

/// A cursor over the bytes of a datagram, a sample or a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Xdr<'a> {
    rest: &'a [u8],
}

impl<'a> Xdr<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Xdr<'a> {
        Xdr { rest: bytes }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], XdrError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u32(&mut self) -> Result<u32, XdrError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*head))
    }

    pub(super) fn u64(&mut self) -> Result<u64, XdrError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*head))
    }

    /// A variable-length opaque. Its padding may be missing at the very end: some exporters leave it out.
    pub(super) fn opaque(&mut self) -> Result<&'a [u8], XdrError> {
        let length = self.u32()? as usize;
        let content = self.bytes(length)?;
        let padding = length.wrapping_neg() % 4;
        self.rest = self.rest.get(padding..).unwrap_or_default();
        Ok(content)
    }

    pub(super) fn address(&mut self) -> Result<XdrAddress, XdrError> {
        match self.u32()? {
            0 => Ok(XdrAddress::Unknown),
            1 => {
                let (head, rest) = self.rest.split_first_chunk::<4>().ok_or(XdrError::Truncated)?;
                self.rest = rest;
                Ok(XdrAddress::Known(Address::from_v4(*head)))
            }
            2 => self.ipv6().map(XdrAddress::Known),
            _ => Err(XdrError::AddressType),
        }
    }

    pub(super) fn ipv6(&mut self) -> Result<Address, XdrError> {
        let (head, rest) = self.rest.split_first_chunk::<16>().ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(Address(*head))
    }

    /// Passes over `words` 32-bit words.
    pub(super) fn skip_words(&mut self, words: u32) -> Result<(), XdrError> {
        let count = (words as usize).checked_mul(4).ok_or(XdrError::Truncated)?;
        self.bytes(count).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_end_is_an_error_not_an_allocation() {
        assert_eq!(
            Xdr::new(&[0xff, 0xff, 0xff, 0xff, 1, 2]).opaque(),
            Err(XdrError::Truncated)
        );
        assert_eq!(Xdr::new(&[0, 0, 0]).u32(), Err(XdrError::Truncated));
        assert_eq!(Xdr::new(&[0; 12]).skip_words(u32::MAX), Err(XdrError::Truncated));
        assert_eq!(Xdr::new(&[0, 0, 0, 3]).address(), Err(XdrError::AddressType));
    }

    #[test]
    fn an_opaque_is_padded_to_four_bytes() {
        let mut xdr = Xdr::new(&[0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 9]);
        assert_eq!(xdr.opaque(), Ok(&[7u8, 8][..]));
        assert_eq!(xdr.u32(), Ok(9));
        assert_eq!(
            Xdr::new(&[0, 0, 0, 1, 7]).opaque(),
            Ok(&[7u8][..]),
            "missing padding at the end"
        );
    }

    #[test]
    fn addresses_of_both_families() {
        let mut v4 = Xdr::new(&[0, 0, 0, 1, 192, 0, 2, 1]);
        assert_eq!(
            v4.address().map(XdrAddress::or_unspecified),
            Ok(Address::from_v4([192, 0, 2, 1]))
        );
        let mut zero = Xdr::new(&[0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(zero.address().map(XdrAddress::or_unspecified), Ok(Address::UNSPECIFIED));
        let mut unknown = Xdr::new(&[0, 0, 0, 0]);
        assert_eq!(
            unknown.address().map(XdrAddress::or_unspecified),
            Ok(Address::UNSPECIFIED)
        );
    }
}
