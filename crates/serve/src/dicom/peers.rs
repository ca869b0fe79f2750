//! Who may call: application entity titles and the addresses that they call from.

use serde::Deserialize;
use std::net::IpAddr;

/// A peer of the DICOM network that is known.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PeerConfig {
    /// The title that it calls by.
    pub ae_title: String,
    /// Where it calls from: an address, `10.1.2.3`, or a network, `10.1.2.0/24`.
    pub address: String,
}

impl PeerConfig {
    /// True for an address of this peer's.
    pub(super) fn calls_from(&self, address: IpAddr) -> bool {
        Network::read(&self.address).is_some_and(|network| network.holds(address))
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// An address, or one with the number of its leading bits.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let base: IpAddr = address.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|&bits| bits <= most))?;
        Some(Network { base, bits })
    }

    pub(super) fn holds(self, address: IpAddr) -> bool {
        let leading = |value: u128, of: u32| value.checked_shr(of - self.bits).unwrap_or(0);
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(other)) => {
                leading(base.to_bits().into(), 32) == leading(other.to_bits().into(), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(other)) => leading(base.to_bits(), 128) == leading(other.to_bits(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_hold_what_begins_like_them() {
        for (network, address, holds) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("10.1.2.0/24", "10.1.2.255", true),
            ("10.1.2.0/24", "10.1.3.0", false),
            ("0.0.0.0/0", "9.9.9.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "::1", true),
        ] {
            let network_of = Network::read(network).expect(network);
            assert_eq!(network_of.holds(address.parse().expect("an address")), holds, "{network} {address}");
        }
        for wrong in ["", "modality", "10.1.2", "10.1.2.3/33", "10.1.2.3/-1", "10.1.2.3/", "::/129"] {
            assert_eq!(Network::read(wrong), None, "{wrong}");
        }
    }
}
