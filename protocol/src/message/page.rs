//! Owns the answers to reads: entries as a reader sees them, and pages of them.

use bytes::Bytes;

use crate::cursor::{Cursor, Mark};
use crate::error::BodyError;
use crate::field::Field;
use crate::ids::{EntryId, PartitionId, Stamp, UserId};
use crate::message::write::Audience;
use crate::sealed::Last;
use crate::token::Token;
use crate::wire::{Reader, Writer, bitmap};

/// A page of a feed or timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<EntryView>,
    /// Where to go on; `None` at the true end.
    pub next: Option<Cursor>,
    /// Every entry above this id has been shown; zero is the true end.
    pub complete_to: EntryId,
    /// Why the page is short, if it is (R15).
    pub short_of: Vec<ShortReason>,
    /// What a later `newer_than` counts from; `None` on pages of a timeline.
    pub mark: Option<Mark>,
    /// How many entries are newer than the mark asked for.
    pub new_count: Option<u64>,
    /// What the page reflects.
    pub token: Token,
}

/// Why a page is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShortReason {
    /// A partition could not be asked.
    Unreachable(PartitionId),
    /// A named budget was spent.
    Spent(Budget),
}

/// A budget of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Owners whose timelines were asked.
    OwnersAsked,
    /// Time.
    Time,
    /// Bytes of the answer's frame.
    Bytes,
}

/// An entry as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// Its id.
    pub id: EntryId,
    /// Whose timeline it stands in.
    pub owner: UserId,
    /// Who wrote it; often the owner.
    pub author: UserId,
    /// Who may see it.
    pub audience: Audience,
    /// Goes up with every amend; starts at 1.
    pub version: u32,
    /// When it expires; `None` is never.
    pub expiry: Option<Stamp>,
    /// The application's bytes; `None` when not hydrated.
    pub payload: Option<Bytes>,
    /// The entry it refers to.
    pub reference: Option<ReferenceView>,
}

/// What an entry is encoded from, wherever that lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryParts<'a> {
    /// Its id.
    pub id: EntryId,
    /// Whose timeline it stands in.
    pub owner: UserId,
    /// Who wrote it.
    pub author: UserId,
    /// Who may see it.
    pub audience: Audience,
    /// From 1.
    pub version: u32,
    /// When it expires; `None` is never.
    pub expiry: Option<Stamp>,
    /// The application's bytes; `None` when not hydrated.
    pub payload: Option<&'a [u8]>,
    /// The entry it refers to.
    pub reference: Option<&'a ReferenceView>,
}

/// A reference as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceView {
    /// The owner of the entry referred to.
    pub owner: UserId,
    /// Its id.
    pub id: EntryId,
    /// What is known of it.
    pub state: ReferenceState,
}

/// What is known of an entry referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceState {
    /// Nothing was asked.
    NotHydrated,
    /// It is deleted, expired, or not for this reader.
    Gone,
    /// It lives. References inside it are never hydrated: the wire carries one level.
    Live(Box<EntryView>),
}

/// Most entries of one page; the limit of a connection may be lower.
pub const PAGE_ENTRIES_MAX: usize = 1_000;
/// Most reasons why one page is short: each partition once, and each budget.
const SHORT_REASONS_MAX: usize = 4_096 + 3;
/// The bits of an entry's presence that say who may see it.
const AUDIENCE_BITS: u8 = 0b11;
/// Fewest bytes of an entry: presence, id, owner.
const ENTRY_BYTES_MIN: usize = 3;

impl Page {
    pub(crate) fn encode(&self, w: &mut Writer) {
        let sorted = self.entries.is_sorted_by(|newer, older| newer.id >= older.id);
        self.encode_head(w, Token::encode, Mark::encode);
        encode_entries(w, sorted, self.entries.iter().map(EntryView::parts));
    }

    /// Encodes a page of these entries, newest first, in place of its own.
    pub(crate) fn encode_with<'a>(
        &self,
        w: &mut Writer,
        seals: &mut PageSeals,
        entries: impl ExactSizeIterator<Item = EntryParts<'a>>,
    ) {
        let PageSeals { token, mark } = seals;
        let token = |value: &Token, w: &mut Writer| token.put(value, w, Token::encode);
        self.encode_head(w, token, |value, w| mark.put(value, w, Mark::encode));
        encode_entries(w, true, entries);
    }

    fn encode_head(
        &self,
        w: &mut Writer,
        token: impl FnOnce(&Token, &mut Writer),
        mark: impl FnOnce(&Mark, &mut Writer),
    ) {
        w.byte(bitmap([
            self.next.is_some(),
            self.mark.is_some(),
            self.new_count.is_some(),
            !self.short_of.is_empty(),
        ]));
        w.fixed64(self.complete_to.0);
        token(&self.token, w);
        if let Some(next) = &self.next {
            next.encode(w);
        }
        if let Some(value) = &self.mark {
            mark(value, w);
        }
        if let Some(new_count) = self.new_count {
            w.number(new_count);
        }
        if !self.short_of.is_empty() {
            w.count(self.short_of.len());
            for reason in &self.short_of {
                reason.encode(w);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let present = r.presence(0b1111)?;
        let complete_to = r.entry_id(Field::Entries)?;
        let token = Token::decode(r)?;
        let next = r.optional(present, 0, Cursor::decode)?;
        let mark = r.optional(present, 1, Mark::decode)?;
        let new_count = r.optional(present, 2, |r| r.number(Field::Entries))?;
        let short_of = r.optional(present, 3, decode_short_of)?.unwrap_or_default();
        let (count, sorted) = r.list_header(Field::Entries, ENTRY_BYTES_MIN, PAGE_ENTRIES_MAX)?;
        let mut entries = Vec::with_capacity(count);
        let mut newer = None;
        for _ in 0..count {
            let entry = EntryView::decode(r, newer, Depth::Outer)?;
            newer = sorted.then_some(entry.id);
            entries.push(entry);
        }
        Ok(Self { entries, next, complete_to, short_of, mark, new_count, token })
    }
}

/// The sealed strings of the page before: pages of one partition that are answered together have the same.
#[derive(Debug, Default)]
pub(crate) struct PageSeals {
    token: Last<Token>,
    mark: Last<Mark>,
}

fn encode_entries<'a>(w: &mut Writer, sorted: bool, entries: impl ExactSizeIterator<Item = EntryParts<'a>>) {
    w.list_header(entries.len(), sorted);
    let mut newer = None;
    for entry in entries {
        entry.encode(w, newer, Depth::Outer);
        newer = sorted.then_some(entry.id);
    }
}

fn decode_short_of(r: &mut Reader) -> Result<Vec<ShortReason>, BodyError> {
    let count = r.count(Field::ShortReason, 2, SHORT_REASONS_MAX)?;
    // No reasons are written as an absent list, so that a page has one encoding.
    if count == 0 {
        return Err(BodyError::Malformed { field: Field::ShortReason });
    }
    r.items(count, ShortReason::decode)
}

impl ShortReason {
    fn encode(self, w: &mut Writer) {
        match self {
            Self::Unreachable(partition) => {
                w.byte(1);
                w.number(partition.0);
            }
            Self::Spent(budget) => {
                w.byte(2);
                w.byte(match budget {
                    Budget::OwnersAsked => 1,
                    Budget::Time => 2,
                    Budget::Bytes => 3,
                });
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, BodyError> {
        let malformed = BodyError::Malformed { field: Field::ShortReason };
        Ok(match r.byte(Field::ShortReason)? {
            1 => Self::Unreachable(PartitionId(r.number16(Field::Partition)?)),
            2 => Self::Spent(match r.byte(Field::ShortReason)? {
                1 => Budget::OwnersAsked,
                2 => Budget::Time,
                3 => Budget::Bytes,
                _ => return Err(malformed),
            }),
            _ => return Err(malformed),
        })
    }
}

/// Whether an entry stands on its own or within a reference, where nothing nests further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Outer,
    Referenced,
}

impl EntryParts<'_> {
    #[inline]
    fn encode(&self, w: &mut Writer, newer: Option<EntryId>, depth: Depth) {
        let audience = self.audience.code();
        let present = bitmap([
            audience & 1 != 0,
            audience & 2 != 0,
            self.author != self.owner,
            self.version != 1,
            self.expiry.is_some(),
            self.payload.is_some(),
            self.reference.is_some(),
        ]);
        if let Some(newer) = newer {
            w.byte_and_numbers(present, newer.0 - self.id.0, self.owner.0);
        } else {
            w.byte(present);
            w.fixed64(self.id.0);
            w.number(self.owner.0);
        }
        // Nearly every entry of a page without payloads ends here.
        if present & !AUDIENCE_BITS != 0 {
            self.encode_rest(w, depth);
        }
    }

    fn encode_rest(&self, w: &mut Writer, depth: Depth) {
        if self.author != self.owner {
            w.number(self.author.0);
        }
        if self.version != 1 {
            w.number(self.version);
        }
        if let Some(expiry) = self.expiry {
            w.signed(expiry.0.wrapping_sub(self.id.time().0) as i64);
        }
        if let Some(payload) = &self.payload {
            w.bytes(payload);
        }
        if let Some(reference) = self.reference {
            reference.encode(w, depth);
        }
    }
}

impl EntryView {
    fn parts(&self) -> EntryParts<'_> {
        let Self { id, owner, author, audience, version, expiry, payload, reference } = self;
        EntryParts {
            id: *id,
            owner: *owner,
            author: *author,
            audience: *audience,
            version: *version,
            expiry: *expiry,
            payload: payload.as_deref(),
            reference: reference.as_ref(),
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer, newer: Option<EntryId>, depth: Depth) {
        self.parts().encode(w, newer, depth);
    }

    pub(crate) fn decode(r: &mut Reader, newer: Option<EntryId>, depth: Depth) -> Result<Self, BodyError> {
        let present = r.presence(0b111_1111)?;
        let audience = Audience::from_code(present & 3)?;
        let id = r.entry_id_after(newer, Field::EntryId)?;
        let owner = r.user(Field::Owner)?;
        Ok(Self {
            id,
            owner,
            author: r.optional(present, 2, |r| r.user(Field::Author))?.unwrap_or(owner),
            audience,
            version: r.optional(present, 3, |r| r.number32(Field::Version))?.unwrap_or(1),
            expiry: r.optional(present, 4, |r| decode_expiry(r, id))?,
            payload: r.optional(present, 5, |r| r.bytes(Field::Payload))?,
            reference: r.optional(present, 6, |r| ReferenceView::decode(r, depth))?,
        })
    }
}

/// An expiry is written as its distance from the entry's time, which is shorter than the stamp.
fn decode_expiry(r: &mut Reader, id: EntryId) -> Result<Stamp, BodyError> {
    let distance_ms = r.signed(Field::Expiry)?;
    Ok(Stamp(id.time().0.wrapping_add(distance_ms as u64)))
}

impl ReferenceView {
    fn encode(&self, w: &mut Writer, depth: Depth) {
        w.number(self.owner.0);
        w.fixed64(self.id.0);
        match &self.state {
            ReferenceState::Live(entry) if depth == Depth::Outer => {
                w.byte(2);
                entry.encode(w, None, Depth::Referenced);
            }
            ReferenceState::NotHydrated | ReferenceState::Live(_) => w.byte(0),
            ReferenceState::Gone => w.byte(1),
        }
    }

    fn decode(r: &mut Reader, depth: Depth) -> Result<Self, BodyError> {
        let owner = r.user(Field::Reference)?;
        let id = r.entry_id(Field::Reference)?;
        let state = match r.byte(Field::Reference)? {
            0 => ReferenceState::NotHydrated,
            1 => ReferenceState::Gone,
            2 if depth == Depth::Outer => {
                ReferenceState::Live(Box::new(EntryView::decode(r, None, Depth::Referenced)?))
            }
            _ => return Err(BodyError::Malformed { field: Field::Reference }),
        };
        Ok(Self { owner, id, state })
    }
}
