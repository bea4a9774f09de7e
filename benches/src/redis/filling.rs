//! Owns putting the graph and the first entries into Redis.
//!
//! - Feeds are filled by many-valued RPUSH, one thread for each instance, with a few batches under way.
//! - Nothing here is measured as fan-out; it says how long it took, because loading a store is a figure of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::control::Control;
use super::error::RedisError;
use super::keys::{self, List};
use super::oracle;
use super::plan::Plan;
use super::resp;
use crate::load::target::Compared;

/// Bytes of commands sent before the replies of the batch before are read.
const BATCH_BYTES: usize = 256 << 10;
/// Values in one RPUSH of followers.
const VALUES_MAX: usize = 1_000;

/// A connection that keeps one batch under way while the next is encoded.
#[derive(Debug)]
struct Filler {
    control: Control,
    out: Vec<u8>,
    commands: u64,
    unanswered: u64,
}

impl Filler {
    fn connect(address: SocketAddr) -> Result<Self, RedisError> {
        let control = Control::connect(address)?;
        Ok(Self { control, out: Vec::with_capacity(2 * BATCH_BYTES), commands: 0, unanswered: 0 })
    }

    /// Counts the command just encoded, and sends the batch if it is large enough.
    fn encoded(&mut self) -> Result<(), RedisError> {
        self.commands += 1;
        if self.out.len() >= BATCH_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), RedisError> {
        self.control.send(&self.out)?;
        self.out.clear();
        for _ in 0..self.unanswered {
            self.control.reply(|_| ())?;
        }
        self.unanswered = std::mem::take(&mut self.commands);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), RedisError> {
        self.send()?;
        self.send()
    }
}

/// Runs `fill` for each instance on a thread of its own, and adds what they return.
fn on_each(
    addresses: &[SocketAddr],
    fill: impl Fn(&mut Filler, usize) -> Result<u64, RedisError> + Sync,
) -> Result<u64, RedisError> {
    std::thread::scope(|scope| {
        let fill = &fill;
        let threads: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(instance, address)| {
                scope.spawn(move || {
                    let mut filler = Filler::connect(*address)?;
                    let done = fill(&mut filler, instance)?;
                    filler.finish().map(|()| done)
                })
            })
            .collect();
        let mut done = 0;
        for thread in threads {
            done += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(done)
    })
}

/// Stores who follows each owner, for the function. Edges stored.
///
/// # Errors
///
/// If a connection fails or Redis refuses.
pub fn load_followers(addresses: &[SocketAddr], plan: &Plan) -> Result<u64, RedisError> {
    on_each(addresses, |filler, instance| {
        let mut edges = 0;
        for owner in 1..=plan.graph().users() {
            edges += push_followers(filler, plan, owner, instance)?;
        }
        Ok(edges)
    })
}

/// Compares the stored followers of some owners with the graph.
///
/// # Errors
///
/// If a connection fails.
pub fn compare_followers(
    addresses: &[SocketAddr],
    plan: &Plan,
    owners: &[u32],
) -> Result<Compared, RedisError> {
    let mut differing = BTreeSet::new();
    for (instance, address) in addresses.iter().enumerate() {
        let (mut control, mut out) = (Control::connect(*address)?, Vec::new());
        for owner in owners {
            out.clear();
            oracle::read_newest(&mut out, List::Followers(*owner), u32::MAX);
            control.send(&out)?;
            let held = control.reply(oracle::ids)?;
            if !held
                .into_iter()
                .eq(plan.followers_on(*owner, instance).iter().map(|reader| u64::from(*reader)))
            {
                differing.insert(*owner);
            }
        }
    }
    Ok(Compared { sampled: owners.len() as u64, mismatched: differing.len() as u64 })
}

/// Stores that everybody follows the whale.
///
/// # Errors
///
/// If a connection fails or Redis refuses.
pub fn load_whale(addresses: &[SocketAddr], plan: &Plan) -> Result<u64, RedisError> {
    on_each(addresses, |filler, instance| push_followers(filler, plan, plan.whale(), instance))
}

fn push_followers(filler: &mut Filler, plan: &Plan, owner: u32, instance: usize) -> Result<u64, RedisError> {
    let followers = plan.followers_on(owner, instance);
    for some in followers.chunks(VALUES_MAX) {
        push(&mut filler.out, List::Followers(owner), some.iter().map(|reader| u64::from(*reader)));
        filler.encoded()?;
    }
    Ok(followers.len() as u64)
}

/// Fills every home feed and the celebrities' lists. Entries in home feeds.
///
/// # Errors
///
/// If a connection fails or Redis refuses.
pub fn fill_feeds(addresses: &[SocketAddr], plan: &Plan) -> Result<u64, RedisError> {
    on_each(addresses, |filler, instance| {
        let (mut owners, mut ids, mut entries) = (Vec::new(), Vec::new(), 0);
        for reader in 1..=plan.graph().users() {
            if plan.instance_of(reader) != instance {
                continue;
            }
            plan.first_entries(reader, &mut owners, &mut ids);
            if !ids.is_empty() {
                push(&mut filler.out, List::Feed(reader), ids.iter().copied());
                filler.encoded()?;
            }
            entries += ids.len() as u64;
        }
        for celebrity in plan.celebrities() {
            let ids = plan.celebrity_entries(celebrity);
            if !ids.is_empty() {
                push(&mut filler.out, List::Celebrity(celebrity), ids.iter().copied());
                filler.encoded()?;
            }
        }
        Ok(entries)
    })
}

/// Stores the payloads that a page of `limit` entries can show. Payloads stored.
///
/// # Errors
///
/// If a connection fails or Redis refuses.
pub fn store_payloads(
    addresses: &[SocketAddr],
    plan: &Plan,
    limit: u32,
    payload: &[u8],
) -> Result<u64, RedisError> {
    let celebrities: Vec<u64> = plan.celebrities().flat_map(|who| plan.celebrity_entries(who)).collect();
    on_each(addresses, |filler, instance| {
        let shown = plan.shown_numbers(limit).map(keys::id_of);
        let mut stored = 0;
        for id in shown.chain(celebrities.iter().copied()) {
            if keys::payload_instance_of(id, plan.instances()) == instance {
                set_payload(&mut filler.out, id, payload);
                filler.encoded()?;
                stored += 1;
            }
        }
        Ok(stored)
    })
}

/// Encodes the SET of a payload.
pub fn set_payload(out: &mut Vec<u8>, id: u64, payload: &[u8]) {
    resp::begin(out, 3);
    resp::argument(out, b"SET");
    resp::key(out, keys::PAYLOAD, id);
    resp::argument(out, payload);
}

fn push(out: &mut Vec<u8>, list: List, values: impl ExactSizeIterator<Item = u64>) {
    resp::begin(out, values.len() + 2);
    resp::argument(out, b"RPUSH");
    list.key(out);
    values.for_each(|value| resp::number(out, value));
}
