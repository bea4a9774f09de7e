//! Owns what a measured page of a feed has to be.
//!
//! - Every page is walked: each field and each id is decoded, the entries are counted, payloads are measured.
//! - One page of [`DECODE_ONE_IN`] is decoded by the protocol crate as well, its owners compared with the graph and its payloads with
//!   what was appended: as large a part as Redis's side keeps for its comparison.
//! - The layout is the one of `PROTOCOL.md`; tests hold the walk to the protocol crate.

use std::sync::Arc;

use bytes::Bytes;
use fanfold_protocol::frame::Flags;
use fanfold_protocol::message::Page;
use fanfold_protocol::{Frame, Opcode, RequestId, Response};

use super::answer::Fields;
use crate::load::graph::BenchGraph;

/// One page of so many is decoded as a whole.
const DECODE_ONE_IN: u64 = 61;
/// Bits of a page's presence: a cursor, a mark, a count of what is new, and why it is short.
const HAS: [u8; 4] = [1, 2, 4, 8];
/// Bit of an entry's presence: a payload. Entries of a measurement have nothing else that is optional.
const HAS_PAYLOAD: u8 = 1 << 5;

/// Why a page is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// It does not decode, or holds what no entry of a measurement has.
    #[error("it does not decode as a page of measured entries")]
    Malformed,
    /// The node says that it could not show everything.
    #[error("the node calls it short")]
    Short,
    /// It has too few or too many entries.
    #[error("it shows {shown} entries instead of {least} to {most}")]
    Count {
        /// Entries shown.
        shown: usize,
        /// Entries that the feed is known to have, as far as a page takes them.
        least: usize,
        /// Entries asked for.
        most: usize,
    },
    /// An entry stands twice, or before a newer one.
    #[error("its entries are not in order, newest first, each once")]
    Order,
    /// An entry has no payload or another one than appended, or one that was not asked for.
    #[error("an entry's payload is not the one that was appended")]
    Payload,
    /// An entry is by somebody whom the reader does not follow.
    #[error("it shows an entry by user {owner}, whom the reader does not follow")]
    Owner {
        /// Whose entry it is.
        owner: u64,
    },
}

/// What was appended, and how long payloads are.
#[derive(Debug, Clone)]
pub(super) struct Payloads {
    /// Every payload is the beginning of this.
    pub(super) bytes: Arc<[u8]>,
    /// Of the fill and of the measurement.
    pub(super) lengths: [u32; 2],
}

/// Looks at the pages of a measurement.
#[derive(Debug)]
pub(super) struct PageCheck {
    graph: Arc<BenchGraph>,
    /// Entries that each reader's feed shows since the fill; readers begin with 1.
    shown: Arc<[u32]>,
    payloads: Payloads,
    walked: u64,
}

/// A page as it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) reader: u32,
    pub(super) limit: u32,
    pub(super) hydrate: bool,
}

impl Payloads {
    /// Whether this is a payload that was appended.
    pub(super) fn has(&self, payload: &[u8]) -> bool {
        self.has_length(payload.len()) && self.bytes.starts_with(payload)
    }

    fn has_length(&self, length: usize) -> bool {
        self.lengths.iter().any(|known| *known as usize == length)
    }

    /// Whether every entry of a page has a payload that was appended.
    pub(super) fn are_in(&self, page: &Page) -> bool {
        page.entries.iter().all(|entry| entry.payload.as_ref().is_some_and(|payload| self.has(payload)))
    }
}

impl PageCheck {
    /// For feeds that show at least so many entries, by reader.
    pub(super) fn new(graph: Arc<BenchGraph>, shown: Arc<[u32]>, payloads: Payloads) -> Self {
        Self { graph, shown, payloads, walked: 0 }
    }

    /// Looks at one page.
    pub(super) fn check(&mut self, asked: Asked, body: &[u8]) -> Result<(), PageError> {
        let shown = self.walk(asked, body)?;
        let known = self.shown.get(asked.reader as usize - 1).map_or(0, |shown| *shown);
        let (least, most) = (known.min(asked.limit) as usize, asked.limit as usize);
        if !(least..=most).contains(&shown) {
            return Err(PageError::Count { shown, least, most });
        }
        let is_drawn = self.walked.is_multiple_of(DECODE_ONE_IN);
        self.walked += 1;
        if is_drawn { self.decode(asked, shown, body) } else { Ok(()) }
    }

    /// Goes through every field; how many entries there are.
    fn walk(&self, asked: Asked, body: &[u8]) -> Result<usize, PageError> {
        use PageError::Malformed;
        let mut fields = Fields(body);
        let present = fields.byte().ok_or(Malformed)?;
        let _complete_to = fields.array::<8>().ok_or(Malformed)?;
        let _token = fields.bytes().ok_or(Malformed)?;
        for bit in &HAS[..2] {
            if present & bit != 0 {
                fields.bytes().ok_or(Malformed)?;
            }
        }
        if present & HAS[3] != 0 {
            return Err(PageError::Short);
        }
        if present & HAS[2] != 0 {
            fields.number().ok_or(Malformed)?;
        }
        let header = fields.number().ok_or(Malformed)?;
        // The lowest bit says that ids are written as differences, which descending ones are.
        if header & 1 == 0 {
            return Err(PageError::Order);
        }
        let count = header >> 1;
        let mut newer: Option<(u64, u64)> = None;
        for _ in 0..count {
            let entry = self.walk_entry(&mut fields, asked.hydrate, newer)?;
            // Ids of two owners may be the same, those of one owner are not.
            if newer == Some(entry) {
                return Err(PageError::Order);
            }
            newer = Some(entry);
        }
        if fields.0.is_empty() { Ok(count as usize) } else { Err(Malformed) }
    }

    /// Goes through an entry; its id and owner.
    fn walk_entry(
        &self,
        fields: &mut Fields<'_>,
        hydrate: bool,
        newer: Option<(u64, u64)>,
    ) -> Result<(u64, u64), PageError> {
        use PageError::Malformed;
        let present = fields.byte().ok_or(Malformed)?;
        let id = match newer {
            None => fields.array().map(u64::from_le_bytes),
            Some((newer, _)) => fields.number().and_then(|less| newer.checked_sub(less)),
        };
        let id = id.ok_or(Malformed)?;
        let owner = fields.number().ok_or(Malformed)?;
        if present & !HAS_PAYLOAD != 0 || !(1..=u64::from(self.graph.everybody()) + 1).contains(&owner) {
            return Err(Malformed);
        }
        if (present & HAS_PAYLOAD != 0) != hydrate {
            return Err(PageError::Payload);
        }
        if hydrate && !self.payloads.has_length(fields.bytes().ok_or(Malformed)?.len()) {
            return Err(PageError::Payload);
        }
        Ok((id, owner))
    }

    /// Decodes a page as clients do, and compares it with the graph and with what was appended.
    fn decode(&self, asked: Asked, shown: usize, body: &[u8]) -> Result<(), PageError> {
        let page = decoded(body).ok_or(PageError::Malformed)?;
        if page.entries.len() != shown || !page.short_of.is_empty() {
            return Err(PageError::Malformed);
        }
        if asked.hydrate && !self.payloads.are_in(&page) {
            return Err(PageError::Payload);
        }
        let mut owners = Vec::new();
        self.graph.followees(asked.reader, &mut owners);
        owners.extend(self.graph.celebrities_of(asked.reader));
        owners.push(asked.reader);
        let is_known = |owner: u64| owners.iter().any(|known| u64::from(*known) == owner);
        match page.entries.iter().find(|entry| !is_known(entry.owner.0)) {
            Some(entry) => Err(PageError::Owner { owner: entry.owner.0 }),
            None => Ok(()),
        }
    }
}

/// Decodes the body of an answer to `ReadFeed`.
pub(super) fn decoded(body: &[u8]) -> Option<Page> {
    let body = Bytes::copy_from_slice(body);
    let opcode = Opcode::ReadFeed.code();
    let frame = Frame { opcode, flags: Flags::RESPONSE, request_id: RequestId(0), body };
    match frame.decode_reply() {
        Ok(Ok(Response::Page(page))) => Some(page),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use fanfold_protocol::message::{Audience, Budget, EntryView, ShortReason};
    use fanfold_protocol::{EntryId, PartitionId, Token, UserId};

    use super::*;
    use crate::load::graph::{GraphOptions, GraphShape};

    pub(in super::super) const READER: u32 = 5;

    /// A graph, those whom the reader follows, and somebody else.
    pub(in super::super) fn graph() -> (Arc<BenchGraph>, [u32; 2], u32) {
        let shape = GraphShape::Uniform;
        let options = GraphOptions { shape, users: 20, mean_followers: 2.0, celebrities: false, seed: 1 };
        let graph = BenchGraph::new(&options).unwrap();
        let mut owners = Vec::new();
        graph.followees(READER, &mut owners);
        let owners: [u32; 2] = owners.try_into().unwrap();
        let other = (1..=20).find(|user| !owners.contains(user) && *user != READER).unwrap();
        (Arc::new(graph), owners, other)
    }

    /// A check of pages of at least three entries with payloads of 4 or 6 bytes.
    pub(in super::super) fn check() -> PageCheck {
        let payloads = Payloads { bytes: Arc::from(*b"payloads"), lengths: [4, 6] };
        PageCheck::new(graph().0, vec![3; 20].into(), payloads)
    }

    /// A page of these ids and owners, each entry with this payload.
    pub(in super::super) fn page(entries: &[(u64, u32)], payload: Option<&'static [u8]>) -> Page {
        let view = |(id, owner): &(u64, u32)| EntryView {
            id: EntryId(*id),
            owner: UserId(u64::from(*owner)),
            author: UserId(u64::from(*owner)),
            audience: Audience::Public,
            version: 1,
            expiry: None,
            payload: payload.map(Bytes::from_static),
            reference: None,
        };
        Page {
            entries: entries.iter().map(view).collect(),
            next: None,
            complete_to: EntryId(0),
            short_of: Vec::new(),
            mark: None,
            new_count: Some(3),
            token: Token {
                partition: PartitionId(0),
                incarnation: 1,
                log_index: 300,
                journal_position: None,
            },
        }
    }

    fn body(page: Page) -> Bytes {
        Frame::response(Opcode::ReadFeed.code(), RequestId(1), &Response::Page(page)).body
    }

    /// A right page.
    pub(in super::super) fn three_entries() -> Bytes {
        let (_, [a, b], _) = graph();
        body(page(&[(900, a), (500, READER), (20, b)], None))
    }

    /// What the second page is said to be, which is not decoded by the protocol crate.
    fn walked(page: Page, hydrate: bool) -> Result<(), PageError> {
        let mut check = check();
        check.walked = 1;
        check.check(Asked { reader: READER, limit: 4, hydrate }, &body(page))
    }

    #[test]
    fn a_walk_tells_right_pages_from_wrong_ones() {
        let (_, [a, b], _) = graph();
        let right = [(900, a), (500, READER), (20, b)];
        assert_eq!(walked(page(&right, None), false), Ok(()));
        assert_eq!(walked(page(&right, Some(b"payl")), true), Ok(()));
        assert_eq!(walked(page(&right, Some(b"payloa")), true), Ok(()));
        assert_eq!(walked(page(&right, Some(b"pay")), true), Err(PageError::Payload));
        assert_eq!(walked(page(&right, None), true), Err(PageError::Payload));
        assert_eq!(walked(page(&right, Some(b"payl")), false), Err(PageError::Payload));
        let count = |shown| Err(PageError::Count { shown, least: 3, most: 4 });
        assert_eq!(walked(page(&right[..2], None), false), count(2));
        let long = [(9, a), (8, a), (7, a), (6, a), (5, a)];
        assert_eq!(walked(page(&long, None), false), count(5));
        let twice = [(900, a), (900, a), (20, b)];
        assert_eq!(walked(page(&twice, None), false), Err(PageError::Order));
        let ascending = [(20, b), (500, READER), (900, a)];
        assert_eq!(walked(page(&ascending, None), false), Err(PageError::Order));
        let mut short = page(&right, None);
        short.short_of = vec![ShortReason::Spent(Budget::Time)];
        assert_eq!(walked(short, false), Err(PageError::Short));
    }

    #[test]
    fn a_page_that_is_cut_or_has_too_much_is_malformed() {
        let (_, [a, b], _) = graph();
        let body = body(page(&[(900, a), (500, READER), (20, b)], Some(b"payl")));
        let asked = Asked { reader: READER, limit: 4, hydrate: true };
        let mut check = check();
        for length in 0..body.len() {
            assert!(check.check(asked, &body[..length]).is_err(), "{length} bytes");
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(check.check(asked, &longer), Err(PageError::Malformed));
        assert_eq!(check.check(asked, &body), Ok(()));
    }

    #[test]
    fn one_page_in_many_is_compared_with_the_graph_and_with_what_was_appended() {
        let (_, [a, b], other) = graph();
        let asked = Asked { reader: READER, limit: 4, hydrate: true };
        let wrong_owner = body(page(&[(900, a), (500, other), (20, b)], Some(b"payl")));
        let wrong_payload = body(page(&[(900, a), (500, READER), (20, b)], Some(b"pail")));
        let mut check = check();
        for number in 0..2 * DECODE_ONE_IN {
            let is_drawn = number.is_multiple_of(DECODE_ONE_IN);
            let (body, wrong) = match number {
                0 => (&wrong_owner, PageError::Owner { owner: u64::from(other) }),
                _ => (&wrong_payload, PageError::Payload),
            };
            assert_eq!(check.check(asked, body), if is_drawn { Err(wrong) } else { Ok(()) }, "{number}");
        }
    }
}
