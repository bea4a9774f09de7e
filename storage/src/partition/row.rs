//! Owns the row: what the partition knows of one entry, in 24 bytes.
//!
//! - An expiry stands as its distance from the entry's time; one that does not fit stands aside, with the version of
//!   an amended entry and those involved beside the owner.
//! - The previous row of the chain stands as the low half of its position: both were in the window at once, so they
//!   are less than 2^31 apart (R6).

use super::owners::OwnerIndex;
use crate::entry::Audience;
use crate::ids::{EntryId, RowPosition, SpaceId, Stamp};

/// Why a row is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowState {
    Live,
    /// Its expiry has passed; an update puts it back (R13).
    Expired,
    /// Deleted by its owner, or its subscription ended; for ever.
    Dead,
}

const STATE_MASK: u8 = 3;
const EXPIRED: u8 = 1;
const DEAD: u8 = 2;
const FOLLOWERS_ONLY: u8 = 4;
const PRIVATE: u8 = 8;
const BACKFILL: u8 = 16;
const ASIDE: u8 = 32;

/// Bytes of the expiry in a row.
const EXPIRY_BYTES: usize = 5;
/// The largest expiry that stands in the row, one above its distance in milliseconds from the entry's time.
const EXPIRY_MAX: u64 = (1 << (8 * EXPIRY_BYTES)) - 1;

/// A row of the delivered table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Row {
    pub(super) id: EntryId,
    pub(super) owner: OwnerIndex,
    previous: u32,
    pub(super) space: SpaceId,
    flags: u8,
    expiry: [u8; EXPIRY_BYTES],
}

/// Bytes of a row, in memory and in an image.
pub(super) const ROW_BYTES: usize = 24;

const _: () = assert!(size_of::<Row>() == ROW_BYTES);

impl Row {
    pub(super) fn new(id: EntryId, owner: OwnerIndex, space: SpaceId, audience: Audience) -> Self {
        let flags = match audience {
            Audience::Public => 0,
            Audience::Followers => FOLLOWERS_ONLY,
            Audience::Private => PRIVATE,
        };
        Self { id, owner, previous: 0, space, flags, expiry: [0; EXPIRY_BYTES] }
    }

    #[inline]
    pub(super) fn state(&self) -> RowState {
        match self.flags & STATE_MASK {
            0 => RowState::Live,
            EXPIRED => RowState::Expired,
            _ => RowState::Dead,
        }
    }

    /// Whether it is live, does not expire, and nothing of it stands aside: it says all there is to show.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.flags & (STATE_MASK | ASIDE) == 0 && self.expiry == [0; EXPIRY_BYTES]
    }

    pub(super) fn set_state(&mut self, state: RowState) {
        let bits = match state {
            RowState::Live => 0,
            RowState::Expired => EXPIRED,
            RowState::Dead => DEAD,
        };
        self.flags = self.flags & !STATE_MASK | bits;
    }

    #[inline]
    pub(super) fn audience(&self) -> Audience {
        match self.flags & (FOLLOWERS_ONLY | PRIVATE) {
            0 => Audience::Public,
            FOLLOWERS_ONLY => Audience::Followers,
            _ => Audience::Private,
        }
    }

    /// Whether it came by backfill, so that its arrival says nothing of when it was new.
    pub(super) fn is_backfill(&self) -> bool {
        self.flags & BACKFILL != 0
    }

    pub(super) fn set_backfill(&mut self, backfill: bool) {
        self.flags = self.flags & !BACKFILL | if backfill { BACKFILL } else { 0 };
    }

    /// Whether more of it stands aside.
    #[inline]
    pub(super) fn has_aside(&self) -> bool {
        self.flags & ASIDE != 0
    }

    pub(super) fn set_aside(&mut self, aside: bool) {
        self.flags = self.flags & !ASIDE | if aside { ASIDE } else { 0 };
    }

    /// The expiry that stands in the row.
    #[inline]
    pub(super) fn near_expiry(&self) -> Option<Stamp> {
        let mut raw = [0; 8];
        raw[..EXPIRY_BYTES].copy_from_slice(&self.expiry);
        let distance = u64::from_le_bytes(raw).checked_sub(1)?;
        Some(Stamp(self.id.time().0 + distance))
    }

    /// Sets the expiry that stands in the row; false, with none set, if it does not fit.
    pub(super) fn set_near_expiry(&mut self, expiry: Option<Stamp>) -> bool {
        let near = match expiry {
            None => Some(0),
            Some(expiry) => expiry.0.checked_sub(self.id.time().0).map(|distance| distance.saturating_add(1)),
        };
        let fitting = near.filter(|near| *near <= EXPIRY_MAX);
        self.expiry.copy_from_slice(&fitting.unwrap_or(0).to_le_bytes()[..EXPIRY_BYTES]);
        fitting.is_some()
    }

    /// The previous row of the chain, given this row's own position.
    #[inline]
    pub(super) fn previous(&self, own: RowPosition) -> Option<RowPosition> {
        let distance = self.previous.wrapping_sub(own.0 as u32) as i32;
        (distance != 0).then(|| RowPosition(own.0.wrapping_add_signed(i64::from(distance))))
    }

    /// Sets the previous row of the chain; none: the row names itself.
    pub(super) fn set_previous(&mut self, own: RowPosition, previous: Option<RowPosition>) {
        let previous = previous.unwrap_or(own);
        let distance = previous.0.wrapping_sub(own.0) as i64;
        assert!(i32::try_from(distance).is_ok(), "rows of one window are less than 2^31 apart");
        self.previous = previous.0 as u32;
    }

    /// The row as the bytes of an image.
    pub(super) fn raw(&self) -> [u8; ROW_BYTES] {
        let mut raw = [0; ROW_BYTES];
        raw[..8].copy_from_slice(&self.id.0.to_le_bytes());
        raw[8..12].copy_from_slice(&self.owner.0.to_le_bytes());
        raw[12..16].copy_from_slice(&self.previous.to_le_bytes());
        raw[16..18].copy_from_slice(&self.space.0.to_le_bytes());
        raw[18] = self.flags;
        raw[19..].copy_from_slice(&self.expiry);
        raw
    }

    /// A row from the bytes of an image; none if they are not of one.
    pub(super) fn from_raw(raw: &[u8; ROW_BYTES]) -> Option<Self> {
        let (id, rest) = raw.split_first_chunk::<8>()?;
        let (owner, rest) = rest.split_first_chunk::<4>()?;
        let (previous, rest) = rest.split_first_chunk::<4>()?;
        let (space, rest) = rest.split_first_chunk::<2>()?;
        let (flags, expiry) = rest.split_first()?;
        let row = Self {
            id: EntryId(u64::from_le_bytes(*id)),
            owner: OwnerIndex(u32::from_le_bytes(*owner)),
            previous: u32::from_le_bytes(*previous),
            space: SpaceId(u16::from_le_bytes(*space)),
            flags: *flags,
            expiry: expiry.try_into().ok()?,
        };
        let both = row.flags & (FOLLOWERS_ONLY | PRIVATE) == FOLLOWERS_ONLY | PRIVATE;
        (row.flags < 2 * ASIDE && row.flags & STATE_MASK != STATE_MASK && !both).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_expiry_returns_or_is_refused(time in 0u64..1 << 42, expiry in prop::option::of(0u64..1 << 43)) {
            let id = EntryId::first_at(Stamp(time));
            let mut row = Row::new(id, OwnerIndex(3), SpaceId(1), Audience::Followers);
            let expiry = expiry.map(Stamp);
            let fits = expiry.is_none_or(|e| e.0 >= time && e.0 - time < EXPIRY_MAX);
            prop_assert!(row.is_plain());
            prop_assert_eq!(row.set_near_expiry(expiry), fits);
            prop_assert_eq!(row.is_plain(), expiry.is_none() || !fits, "one that does not fit stands aside");
            prop_assert_eq!(row.near_expiry(), expiry.filter(|_| fits));
            row.set_previous(RowPosition(time), Some(RowPosition(time.wrapping_sub(3))));
            prop_assert_eq!(Row::from_raw(&row.raw()), Some(row));
        }
    }

    #[test]
    fn a_row_names_its_previous_across_the_wrap_of_the_low_half() {
        let mut row = Row::new(EntryId(9), OwnerIndex(0), SpaceId(1), Audience::Public);
        let wrap = 1u64 << 32;
        for (own, previous) in [(wrap + 5, wrap - 7), (wrap - 7, wrap + 5), (wrap, wrap - (1 << 31) + 1)] {
            row.set_previous(RowPosition(own), Some(RowPosition(previous)));
            assert_eq!(row.previous(RowPosition(own)), Some(RowPosition(previous)));
        }
        row.set_previous(RowPosition(wrap), None);
        assert_eq!(row.previous(RowPosition(wrap)), None);
    }

    #[test]
    fn flags_do_not_disturb_each_other() {
        let mut row = Row::new(EntryId(9), OwnerIndex(0), SpaceId(1), Audience::Followers);
        row.set_backfill(true);
        row.set_state(RowState::Expired);
        row.set_aside(true);
        row.set_state(RowState::Dead);
        assert_eq!((row.state(), row.audience()), (RowState::Dead, Audience::Followers));
        assert!(row.is_backfill() && row.has_aside());
        row.set_aside(false);
        assert!(row.is_backfill() && !row.has_aside());
    }
}
