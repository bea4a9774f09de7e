//! Owns reads and posts at the same time: some lanes post, the others read.
//!
//! - As in a real service the two go over different connections, so that no read waits behind a fan-out on its own connection.

use super::error::RedisError;
use super::posting::Posting;
use super::pump::{Load, Micros};
use super::reading::Reading;
use super::resp::Reply;
use super::socket::Socket;

/// Posts on the first `posting_lanes` lanes, reads on the others.
#[derive(Debug)]
pub struct Mixed<'a> {
    /// The posts.
    pub posting: Posting<'a>,
    /// The reads.
    pub reading: Reading<'a>,
    /// Lanes that post.
    pub posting_lanes: usize,
}

impl Load for Mixed<'_> {
    fn issue(&mut self, lane: usize, sockets: &mut [Socket], now: Micros) {
        match lane.checked_sub(self.posting_lanes) {
            None => self.posting.issue(lane, sockets, now),
            Some(lane) => self.reading.issue(lane, sockets, now),
        }
    }

    fn reply(
        &mut self,
        lane: usize,
        instance: usize,
        reply: Reply<'_>,
        now: Micros,
    ) -> Result<(), RedisError> {
        match lane.checked_sub(self.posting_lanes) {
            None => self.posting.reply(lane, instance, reply, now),
            Some(lane) => self.reading.reply(lane, instance, reply, now),
        }
    }

    fn next_due(&self) -> Option<Micros> {
        match (self.posting.next_due(), self.reading.next_due()) {
            (Some(post), Some(read)) => Some(post.min(read)),
            (post, read) => post.or(read),
        }
    }

    fn due_lane(&mut self, now: Micros) -> Option<usize> {
        let reading = self.reading.due_lane(now).map(|lane| lane + self.posting_lanes);
        reading.or_else(|| self.posting.due_lane(now))
    }
}
