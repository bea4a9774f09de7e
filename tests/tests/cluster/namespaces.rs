//! Owns nodes in network namespaces of their own, with a bridge between them: the system's own network, which is cut by taking links
//! down and, one way, by sending frames to where nobody is. Needs root.
//!
//! - Everything is removed when this is dropped.
//! - Where the kernel can delay and lose packets (`tc netem`), it does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Output};

use fanfold_server::workload::fleet::Spot;
use fanfold_server::workload::node_process::NodeProcessOptions;

use crate::network::{Network, Way};

/// Ports, the same in every namespace.
const CLIENT_PORT: u16 = 7_117;
const PEER_PORT: u16 = 7_119;

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:fe";

/// The device of a namespace.
const DEVICE: &str = "eth0";

/// Namespaces with their bridge.
pub struct Namespaces {
    /// What the names of everything here begin with.
    name: String,
    subnet: u8,
    count: u8,
    /// The namespaces whose devices were taken down.
    down: Vec<IpAddr>,
    /// In the namespace of the first, frames to the second go nowhere.
    misled: Vec<(IpAddr, IpAddr)>,
    is_home: bool,
}

fn run(line: &str) -> Output {
    let mut words = line.split(' ');
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

fn must(line: &str) {
    let output = run(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Namespaces {
    pub fn new() -> Self {
        let process = std::process::id();
        let (name, subnet) = (format!("ff{}", process % 100_000), (process % 250) as u8);
        must(&format!("ip link add {name} type bridge"));
        // From here on it is removed whatever happens.
        let all = Self { name, subnet, count: 0, down: Vec::new(), misled: Vec::new(), is_home: false };
        must(&format!("ip addr add {}/24 dev {}", all.address(254), all.name));
        must(&format!("ip link set {} up", all.name));
        all
    }

    fn address(&self, at: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, self.subnet, at).into()
    }

    /// The namespace of an address, and the bridge's end of its device.
    fn named(&self, ip: IpAddr) -> String {
        let IpAddr::V4(ip) = ip else { unreachable!("all addresses are of the older kind") };
        format!("{}n{}", self.name, ip.octets()[3])
    }

    fn add(&mut self) -> IpAddr {
        self.count += 1;
        let ip = self.address(self.count);
        let (bridge, named) = (&self.name, self.named(ip));
        must(&format!("ip netns add {named}"));
        must(&format!("ip link add {named} type veth peer name {DEVICE} netns {named}"));
        must(&format!("ip link set {named} master {bridge} up"));
        must(&format!("ip -n {named} addr add {ip}/24 dev {DEVICE}"));
        must(&format!("ip -n {named} link set lo up"));
        must(&format!("ip -n {named} link set {DEVICE} up"));
        let shaped = run(&format!("tc -n {named} qdisc add dev {DEVICE} root netem delay 1ms 1ms loss 0.1%"));
        if self.count == 1 {
            println!("delay and loss of packets: {}", shaped.status.success());
        }
        ip
    }
}

impl Network for Namespaces {
    fn spots(&mut self, options: &NodeProcessOptions, count: usize) -> Vec<Spot> {
        let spots = (0..count).map(|_| {
            let ip = self.add();
            let mut options = options.clone();
            let mut inside: Vec<_> = ["netns", "exec", &self.named(ip)].map(Into::into).into();
            inside.push(options.program.into_os_string());
            inside.append(&mut options.arguments);
            (options.program, options.arguments) = ("ip".into(), inside);
            let at = |port| SocketAddr::from((ip, port));
            Spot { options, client: at(CLIENT_PORT), peer: at(PEER_PORT), told: None }
        });
        spots.collect()
    }

    fn cut(&mut self, ways: &[Way]) {
        let (one, _) = ways[0];
        let is_around = ways.len() > 2 && ways.iter().all(|(from, to)| *from == one || *to == one);
        if is_around && ways.iter().any(|(_, to)| *to == one) && ways.iter().any(|(from, _)| *from == one) {
            // From everybody, clients as well.
            must(&format!("ip link set {} down", self.named(one.ip)));
            self.down.push(one.ip);
            return;
        }
        for (from, to) in ways {
            let (inside, to) = (self.named(from.ip), to.ip);
            must(&format!("ip -n {inside} neigh replace {to} lladdr {NOBODY} dev {DEVICE} nud permanent"));
            self.misled.push((from.ip, to));
        }
    }

    fn heal(&mut self, _connections_end: bool) {
        for ip in std::mem::take(&mut self.down) {
            must(&format!("ip link set {} up", self.named(ip)));
        }
        for (from, to) in std::mem::take(&mut self.misled) {
            must(&format!("ip -n {} neigh del {to} dev {DEVICE}", self.named(from)));
        }
    }

    fn bring_home(&mut self) {
        for ip in (1..=self.count).map(|at| self.address(at)) {
            must(&format!("ip netns del {}", self.named(ip)));
            must(&format!("ip addr add {ip}/32 dev {}", self.name));
        }
        self.is_home = true;
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if !self.is_home {
            for ip in (1..=self.count).map(|at| self.address(at)) {
                run(&format!("ip netns del {}", self.named(ip)));
            }
        }
        run(&format!("ip link del {}", self.name));
    }
}
