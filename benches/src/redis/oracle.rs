//! Owns the comparison of feeds in Redis with what they must hold.
//!
//! - What must be there: the entries of the fill, then every post made, by those whom the reader follows, the last `feed_cap`.
//! - Posts that were under way at the same time may stand in either order, in each feed another. Everything else is fixed: of two
//!   posts, one answered before the other was sent, the first stands before the second, and is cut off no later.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::control::Control;
use super::error::RedisError;
use super::keys::{self, List};
use super::plan::Plan;
use super::resp;
use crate::load::target::Compared;

/// A post made, and when in the sequence of all sends and completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Who posted.
    pub owner: u32,
    /// When its first command was encoded.
    pub sent: u32,
    /// When its last answer arrived; `u32::MAX` before.
    pub done: u32,
}

/// Every post made on one Redis target since the fill, in order of their numbers.
#[derive(Debug, Default)]
pub struct PostLog {
    made: Vec<Made>,
    tick: u32,
}

impl PostLog {
    /// Notes that a post is sent now; its number among those made.
    pub fn send(&mut self, owner: u32) -> u32 {
        self.tick += 1;
        self.made.push(Made { owner, sent: self.tick, done: u32::MAX });
        self.made.len() as u32 - 1
    }

    /// Notes that its last answer has arrived.
    pub fn complete(&mut self, post: u32) {
        self.tick += 1;
        self.made[post as usize].done = self.tick;
    }

    /// How many were made.
    pub fn len(&self) -> u64 {
        self.made.len() as u64
    }

    /// Whether none was made.
    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// The posts of each owner, ascending.
    fn by_owner(&self) -> HashMap<u32, Vec<u32>> {
        let mut posts: HashMap<u32, Vec<u32>> = HashMap::new();
        for (post, made) in self.made.iter().enumerate() {
            posts.entry(made.owner).or_default().push(post as u32);
        }
        posts
    }
}

/// Compares the whole feeds of `readers` with what they must hold.
///
/// # Errors
///
/// If a connection fails.
pub fn compare(
    addresses: &[SocketAddr],
    plan: &Plan,
    log: &PostLog,
    readers: &[u32],
) -> Result<Compared, RedisError> {
    let posts = log.by_owner();
    let mut controls = Vec::new();
    for address in addresses {
        controls.push(Control::connect(*address)?);
    }
    let (mut owners, mut first, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut compared = Compared::default();
    for reader in readers {
        plan.first_entries(*reader, &mut owners, &mut first);
        if plan.follows_whale() {
            owners.push(plan.whale());
        }
        let mut mine: Vec<u32> =
            owners.iter().filter_map(|owner| posts.get(owner)).flatten().copied().collect();
        mine.sort_unstable();
        out.clear();
        read_newest(&mut out, List::Feed(*reader), plan.feed_cap());
        let control = &mut controls[plan.instance_of(*reader)];
        control.send(&out)?;
        let feed: Vec<u64> = control.reply(ids)?;
        compared.sampled += 1;
        compared.mismatched += u64::from(!is_as_it_must(&feed, &first, &mine, plan, log));
    }
    Ok(compared)
}

/// Encodes the read of the newest `limit` entries of a list.
pub fn read_newest(out: &mut Vec<u8>, list: List, limit: u32) {
    resp::begin(out, 4);
    resp::argument(out, b"LRANGE");
    list.key(out);
    let mut digits = itoa::Buffer::new();
    resp::argument(out, digits.format(-i64::from(limit)).as_bytes());
    resp::argument(out, b"-1");
}

/// The ids of an array of bulk strings; anything else counts as 0, which is no id.
pub fn ids(reply: resp::Reply<'_>) -> Vec<u64> {
    let id = |item: resp::Reply<'_>| item.bytes().and_then(resp::parse).map_or(0, |id| id as u64);
    reply.items().map(id).collect()
}

/// Whether a feed, the oldest first, holds what it must: `first` of the fill, then the posts `mine`, cut to the cap.
fn is_as_it_must(feed: &[u64], first: &[u64], mine: &[u32], plan: &Plan, log: &PostLog) -> bool {
    let cap = plan.feed_cap() as usize;
    let kept_new = mine.len().min(cap);
    let kept_first = first.len().min(cap - kept_new);
    if feed.len() != kept_first + kept_new || feed[..kept_first] != first[first.len() - kept_first..] {
        return false;
    }
    let mut shown = Vec::with_capacity(kept_new);
    for id in &feed[kept_first..] {
        let post = keys::number_of(*id).and_then(|number| number.checked_sub(plan.fill_posts()));
        let Some(post) = post.and_then(|post| u32::try_from(post).ok()) else { return false };
        if mine.binary_search(&post).is_err() {
            return false;
        }
        shown.push(post);
    }
    in_a_possible_order(&shown, mine, log)
}

/// Whether posts may stand in this order, those of `mine` that are not shown before all others.
fn in_a_possible_order(shown: &[u32], mine: &[u32], log: &PostLog) -> bool {
    let made = |post: &u32| log.made[*post as usize];
    let mut sorted = shown.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return false;
    }
    let cut = mine.iter().filter(|post| sorted.binary_search(post).is_err());
    let mut latest_sent = cut.map(|post| made(post).sent).max().unwrap_or(0);
    shown.iter().all(|post| {
        let possible = made(post).done > latest_sent;
        latest_sent = latest_sent.max(made(post).sent);
        possible
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Posts 0 and 1 overlap, 2 was sent when both were done.
    fn log() -> PostLog {
        let mut log = PostLog::default();
        let (a, b) = (log.send(1), log.send(1));
        log.complete(b);
        log.complete(a);
        let c = log.send(1);
        log.complete(c);
        log
    }

    #[test]
    fn posts_under_way_together_may_stand_in_either_order_and_no_others() {
        let log = log();
        assert!(in_a_possible_order(&[0, 1, 2], &[0, 1, 2], &log));
        assert!(in_a_possible_order(&[1, 0, 2], &[0, 1, 2], &log));
        assert!(!in_a_possible_order(&[0, 2, 1], &[0, 1, 2], &log));
        assert!(!in_a_possible_order(&[2, 0, 1], &[0, 1, 2], &log));
    }

    #[test]
    fn only_the_oldest_may_be_cut_off_and_none_may_stand_twice() {
        let log = log();
        assert!(in_a_possible_order(&[0, 2], &[0, 1, 2], &log));
        assert!(in_a_possible_order(&[1, 2], &[0, 1, 2], &log));
        assert!(!in_a_possible_order(&[0, 1], &[0, 1, 2], &log));
        assert!(!in_a_possible_order(&[2, 2], &[0, 1, 2], &log));
    }
}
