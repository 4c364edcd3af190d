//! Hosts of our own: network namespaces on one bridge, which can be cut off from one another. Needs root and iproute2.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

/// As a node has them by default.
const PORTS: [u16; 3] = [7101, 7201, 7301];

/// Some hosts and the bridge between them; all of it is removed when this is dropped.
pub struct Hosts {
    name: String,
    subnet: [u8; 3],
    count: usize,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Host {
    /// Of its network namespace.
    pub namespace: String,
    /// Its address on the bridge.
    pub ip: Ipv4Addr,
}

impl Host {
    /// Addresses for other nodes, for viewers, and for the operator.
    pub fn addresses(&self) -> [SocketAddr; 3] {
        PORTS.map(|port| SocketAddr::from((self.ip, port)))
    }
}

impl Hosts {
    /// Makes `count` hosts.
    ///
    /// # Panics
    /// Where that is not allowed: the test that needs them cannot run there, and does not pass.
    pub fn new(count: usize) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces, which only root may; run it as root"
        );
        let id = std::process::id();
        let hosts = Self { name: format!("im{id}"), subnet: [10, (id >> 8) as u8, id as u8], count };
        ip(&["link", "add", &hosts.name, "type", "bridge"]);
        ip(&["addr", "add", &format!("{}/24", hosts.address(1)), "dev", &hosts.name]);
        ip(&["link", "set", &hosts.name, "up"]);
        (0..count).for_each(|i| hosts.add(i));
        hosts
    }

    /// The hosts.
    pub fn all(&self) -> Vec<Host> {
        (0..self.count).map(|i| self.host(i)).collect()
    }

    /// Cuts each of `some` off from each of the others, in both directions. Everybody can still be reached from the test.
    pub fn part(&self, some: &[usize]) {
        self.for_each_pair(some, "add");
    }

    /// Undoes that.
    pub fn heal(&self, some: &[usize]) {
        self.for_each_pair(some, "del");
    }

    fn for_each_pair(&self, some: &[usize], action: &str) {
        for one in some.iter().copied() {
            for other in (0..self.count).filter(|other| !some.contains(other)) {
                for (from, to) in [(one, other), (other, one)] {
                    let (from, to) = (self.host(from), format!("{}/32", self.host(to).ip));
                    ip(&["-n", &from.namespace, "route", action, "blackhole", &to]);
                }
            }
        }
    }

    fn add(&self, i: usize) {
        let (host, outside) = (self.host(i), format!("{}v{i}", self.name));
        ip(&["netns", "add", &host.namespace]);
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &host.namespace]);
        ip(&["link", "set", &outside, "master", &self.name, "up"]);
        ip(&["-n", &host.namespace, "addr", "add", &format!("{}/24", host.ip), "dev", "eth0"]);
        ip(&["-n", &host.namespace, "link", "set", "eth0", "up"]);
        ip(&["-n", &host.namespace, "link", "set", "lo", "up"]);
    }

    fn host(&self, i: usize) -> Host {
        Host { namespace: format!("{}n{i}", self.name), ip: self.address(10 + i as u8) }
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // What a half-made set lacks cannot be removed; nothing else can be done about it here.
        for host in self.all() {
            let _ = Command::new("ip").args(["netns", "del", &host.namespace]).output();
        }
        let _ = Command::new("ip").args(["link", "del", &self.name]).output();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("iproute2's ip cannot be run ({error}); scripts/setup.sh installs it"));
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
