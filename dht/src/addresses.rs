//! Which addresses of other nodes are used: what a peer says of itself, and what others say of it, is anybody's word.

use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// What an address can be reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Anywhere.
    Public,
    /// One machine or one private network; there it names whoever has it.
    Private,
    /// Nowhere: it names nobody.
    Nobody,
}

/// The scope of an address by the registries of IANA (RFC 6890 and its updates).
pub(crate) fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or_else(|| scope_v6(ip), scope_v4),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, ..] = ip.octets();
    // RFC 6598: carrier-grade NAT. RFC 2544: benchmarks between machines of one laboratory.
    let (carrier, laboratory) = (a == 100 && (64..128).contains(&b), a == 198 && (18..20).contains(&b));
    // 0.0.0.0/8 is "this network", 240.0.0.0/4 was never given out.
    if a == 0 || a >= 240 || ip.is_multicast() {
        Scope::Nobody
    } else if ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || carrier
        || laboratory
    {
        Scope::Private
    } else {
        Scope::Public
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let [a, b, ..] = ip.segments();
    // RFC 3849 and RFC 9637.
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    if ip.is_unspecified() || ip.is_multicast() {
        Scope::Nobody
    } else if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || documentation {
        Scope::Private
    } else {
        Scope::Public
    }
}

/// Whether private addresses of peers are entered and dialled. Cheap to clone; all clones agree.
///
/// On a public network a member could otherwise make others dial what is on their own networks.
#[derive(Clone, Debug)]
pub(crate) struct AddressPolicy {
    fixed: bool,
    allow_private: Arc<AtomicBool>,
}

impl AddressPolicy {
    /// `configured` decides; without it, whether the node itself listens on nothing but private addresses.
    pub(crate) fn new(configured: Option<bool>, listen: SocketAddr) -> Self {
        let allow = configured.unwrap_or_else(|| scope(listen.ip()) == Scope::Private);
        Self { fixed: configured.is_some(), allow_private: Arc::new(AtomicBool::new(allow)) }
    }

    /// Decides anew for the addresses that the node listens on now.
    pub(crate) fn listens_on<'a>(&self, addresses: impl Iterator<Item = &'a Multiaddr>) {
        if self.fixed {
            return;
        }
        let mut sockets = addresses.filter_map(block_plane_address).peekable();
        let allow = sockets.peek().is_some() && sockets.all(|socket| scope(socket.ip()) == Scope::Private);
        self.allow_private.store(allow, Ordering::Relaxed);
    }

    pub(crate) fn allows(&self, ip: IpAddr) -> bool {
        match scope(ip) {
            Scope::Public => true,
            Scope::Private => self.allow_private.load(Ordering::Relaxed),
            Scope::Nobody => false,
        }
    }

    /// The block plane's address behind a QUIC address, if that one may be used.
    pub(crate) fn usable(&self, address: &Multiaddr) -> Option<SocketAddr> {
        block_plane_address(address).filter(|socket| self.allows(socket.ip()) && socket.port() != 0)
    }

    /// The addresses of those that a peer announces under which it can be reached. A peer that listens everywhere names its
    /// loopback address too, which would lead others to themselves: it counts only where it is the only kind.
    pub(crate) fn usable_of(&self, announced: &[Multiaddr]) -> Vec<Multiaddr> {
        let usable = || announced.iter().filter_map(|address| Some((address, self.usable(address)?)));
        let only_loopback = usable().all(|(_, socket)| socket.ip().is_loopback());
        usable()
            .filter(|(_, socket)| only_loopback || !socket.ip().is_loopback())
            .map(|(address, _)| address.clone())
            .take(MAX_ADDRESSES_OF_A_PEER)
            .collect()
    }
}

/// A peer has an address or two for each of its networks; what is beyond this is not worth a dial.
const MAX_ADDRESSES_OF_A_PEER: usize = 8;

/// A transport that dials only what the policy allows, whoever asks for it: Kademlia takes addresses from others' answers.
pub(crate) struct PoliteDials<T> {
    inner: T,
    policy: AddressPolicy,
}

impl<T> PoliteDials<T> {
    pub(crate) fn new(inner: T, policy: AddressPolicy) -> Self {
        Self { inner, policy }
    }
}

impl<T: Transport + Unpin> Transport for PoliteDials<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        if self.policy.usable(&address).is_none() {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

pub(crate) fn quic_address(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

/// `/ip../udp/P/quic-v1[/p2p/..]` with the UDP port read as TCP's (`docs/protocol.md` §3).
// The enum of protocols has dozens of variants, most of which are not for us.
#[allow(clippy::wildcard_enum_match_arm)]
pub(crate) fn block_plane_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else { return None };
    matches!(parts.next()?, Protocol::QuicV1).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A node that listens on this address and is told nothing about private addresses.
    fn automatic(listen: &str) -> AddressPolicy {
        AddressPolicy::new(None, listen.parse().unwrap())
    }

    #[test]
    fn a_public_node_enters_and_dials_no_private_address() {
        let public = automatic("93.184.216.34:7101");
        let private = automatic("10.0.0.1:7101");
        for (ip, by_public, by_private) in [
            ("93.184.216.34", true, true),
            ("2606:2800:220:1::1", true, true),
            ("172.15.255.255", true, true),
            ("100.128.0.1", true, true),
            ("127.0.0.1", false, true),
            ("127.8.8.8", false, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("172.31.255.255", false, true),
            ("192.168.1.1", false, true),
            ("100.64.0.1", false, true),
            ("100.127.255.255", false, true),
            ("169.254.1.1", false, true),
            ("192.0.2.1", false, true),
            ("198.51.100.1", false, true),
            ("203.0.113.1", false, true),
            ("198.18.0.1", false, true),
            ("::1", false, true),
            ("fd00::1", false, true),
            ("fe80::1", false, true),
            ("2001:db8::1", false, true),
            ("3fff::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("240.0.0.1", false, false),
            ("::", false, false),
            ("ff02::1", false, false),
            ("::ffff:224.0.0.1", false, false),
        ] {
            let parsed: IpAddr = ip.parse().unwrap();
            assert_eq!((public.allows(parsed), private.allows(parsed)), (by_public, by_private), "{ip}");
            let announced = [quic_address(SocketAddr::new(parsed, 7101))];
            assert_eq!(public.usable_of(&announced).len(), usize::from(by_public), "{ip}");
        }
    }

    #[test]
    fn what_the_operator_says_decides_and_otherwise_the_addresses_of_the_node() {
        let local: IpAddr = "192.168.0.7".parse().unwrap();
        let listen = "0.0.0.0:7101".parse().unwrap();
        assert!(AddressPolicy::new(Some(true), listen).allows(local));
        assert!(!AddressPolicy::new(Some(false), "127.0.0.1:1".parse().unwrap()).allows(local));
        // A node that listens everywhere learns afterwards what that is.
        let everywhere = AddressPolicy::new(None, listen);
        assert!(!everywhere.allows(local));
        everywhere.listens_on(parse(&["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/192.168.0.2/udp/1/quic-v1"]).iter());
        assert!(everywhere.allows(local));
        everywhere.listens_on(parse(&["/ip4/192.168.0.2/udp/1/quic-v1", "/ip4/8.8.8.8/udp/1/quic-v1"]).iter());
        assert!(!everywhere.allows(local));
    }

    #[test]
    fn loopback_counts_only_where_it_is_the_only_kind() {
        let (local, other) = ("/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/192.0.2.1/udp/1/quic-v1");
        let policy = automatic("127.0.0.1:1");
        assert_eq!(policy.usable_of(&parse(&[local, other])), parse(&[other]));
        assert_eq!(policy.usable_of(&parse(&[local])), parse(&[local]));
        assert!(policy.usable_of(&parse(&["/ip4/127.0.0.1/tcp/1"])).is_empty());
        assert!(policy.usable_of(&parse(&["/ip4/127.0.0.1/udp/0/quic-v1"])).is_empty());
        let many: Vec<_> = (1..50).map(|port| quic_address(SocketAddr::from(([127, 0, 0, 1], port)))).collect();
        assert_eq!(policy.usable_of(&many).len(), MAX_ADDRESSES_OF_A_PEER);
    }

    #[test]
    fn the_block_plane_address_is_the_quic_address() {
        for (text, expected) in [
            ("/ip4/127.0.0.1/udp/7101/quic-v1", Some("127.0.0.1:7101")),
            ("/ip6/::1/udp/9/quic-v1", Some("[::1]:9")),
            ("/ip4/127.0.0.1/tcp/7101", None),
            ("/dns4/example/udp/1/quic-v1", None),
        ] {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(block_plane_address(&address), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }
}
