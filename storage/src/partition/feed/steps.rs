//! Owns the steps: references as the distances from each to the next newer one, in words of 16 bits.
//!
//! - A step of one to 65,535 is one word: nearly all are, and storing them is one store. A step of 0 never occurs.
//! - Anything else ends with a 0, before which it stands in two words: a longer step upwards, or, with the highest bit set, a
//!   detour: how far the reference is behind the one before, from which the next step leads on. So what slices store late costs
//!   three words, not the way there and back. What two words cannot say stands in four more before them, if they say 0.
//! - Words are written at their end and read from their end, so that a reader stops where it likes.

use crate::ids::RowPosition;

/// The most words of a step.
const STEP_WORDS_MAX: usize = 7;

/// Marks a detour.
const DETOUR: u32 = 1 << 31;

/// The words of a step, and where the next one leads on from.
#[derive(Debug)]
pub(super) struct Step {
    raw: [u16; STEP_WORDS_MAX],
    count: usize,
    pub(super) is_detour: bool,
}

impl Step {
    /// From one position to the next.
    pub(super) fn between(last: RowPosition, position: RowPosition) -> Self {
        let (step, behind) = (position.0.wrapping_sub(last.0), last.0.wrapping_sub(position.0));
        let is_detour = (1..u64::from(DETOUR)).contains(&behind);
        let stands = if is_detour { behind | u64::from(DETOUR) } else { step };
        let word = |n: u32| (stands >> (16 * n)) as u16;
        let (raw, count) = match step {
            1..=0xFFFF => ([word(0), 0, 0, 0, 0, 0, 0], 1),
            0x1_0000..0x8000_0000 => ([word(0), word(1), 0, 0, 0, 0, 0], 3),
            _ if is_detour => ([word(0), word(1), 0, 0, 0, 0, 0], 3),
            _ => ([word(0), word(1), word(2), word(3), 0, 0, 0], 7),
        };
        Self { raw, count, is_detour }
    }

    /// The first of a feed, which leads from nowhere.
    pub(super) fn first() -> Self {
        Self::between(RowPosition(0), RowPosition(1))
    }

    pub(super) fn words(&self) -> &[u16] {
        &self.raw[..self.count]
    }
}

/// Reads references from their end, newest first.
#[derive(Clone, Debug)]
pub(super) struct Steps<'a> {
    words: &'a [u16],
    position: u64,
    left: u32,
}

impl<'a> Steps<'a> {
    /// The `left` references whose steps are `words`, the last of which that is no detour leads to `position`.
    #[inline]
    pub(super) fn new(words: &'a [u16], position: RowPosition, left: u32) -> Self {
        Self { words, position: position.0, left }
    }

    /// The reference that is no single word behind the one before.
    #[cold]
    fn wide(&mut self) -> u64 {
        let position = self.position;
        let step = match self.take::<2>().map(|[low, high]| u32::from(low) | u32::from(high) << 16) {
            Some(0) => self.take::<4>().map(|four| {
                let step = four.iter().rev().fold(0, |step, word| step << 16 | u64::from(*word));
                self.position = position.wrapping_sub(step);
                position
            }),
            Some(behind) if behind & DETOUR != 0 => Some(position.wrapping_sub(u64::from(behind & !DETOUR))),
            Some(step) => {
                self.position = position.wrapping_sub(u64::from(step));
                Some(position)
            }
            None => None,
        };
        step.unwrap_or_else(|| self.end())
    }

    /// Takes words off their end.
    fn take<const N: usize>(&mut self) -> Option<[u16; N]> {
        let (before, words) = self.words.split_last_chunk::<N>()?;
        self.words = before;
        Some(*words)
    }

    /// There is nothing older.
    fn end(&mut self) -> u64 {
        self.left = 0;
        self.position
    }
}

impl Steps<'_> {
    /// Appends all of them, newest first.
    #[inline]
    pub(super) fn append_to(mut self, positions: &mut Vec<RowPosition>) {
        let from = positions.len();
        let end = from + self.left as usize;
        if self.words.len() == self.left as usize && !self.words.contains(&0) {
            // Nearly all feeds: no step is wide.
            positions.extend(self.words.iter().rev().map(|word| {
                let position = self.position;
                self.position = position.wrapping_sub(u64::from(*word));
                RowPosition(position)
            }));
            return;
        }
        positions.resize(end, RowPosition(0));
        let mut whole = from;
        for (to, position) in positions[from..].iter_mut().zip(&mut self) {
            *to = position;
            whole += 1;
        }
        positions.truncate(whole);
    }
}

impl Iterator for Steps<'_> {
    type Item = RowPosition;

    #[inline]
    fn next(&mut self) -> Option<RowPosition> {
        self.left = self.left.checked_sub(1)?;
        let Some((word, before)) = self.words.split_last() else { return Some(RowPosition(self.end())) };
        self.words = before;
        let position = self.position;
        if *word == 0 {
            return Some(RowPosition(self.wide()));
        }
        self.position = position.wrapping_sub(u64::from(*word));
        Some(RowPosition(position))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes steps to these positions; answers the words, and where the next step would lead on from.
    fn write(positions: &[u64]) -> (Vec<u16>, RowPosition) {
        let (mut words, mut last) = (Vec::new(), None);
        for position in positions {
            let step = last.map_or(Step::first(), |last| Step::between(last, RowPosition(*position)));
            words.extend_from_slice(step.words());
            last = last.filter(|_| step.is_detour).or(Some(RowPosition(*position)));
        }
        (words, last.unwrap_or(RowPosition(0)))
    }

    proptest! {
        #[test]
        fn references_return_newest_first(
            steps in prop_oneof![
                prop::collection::vec(1..1i64 << 16, 1..60),
                prop::collection::vec(
                    prop_oneof![4 => 1..1i64 << 17, 2 => -(1i64 << 17)..0, 1 => any::<i32>().prop_map(i64::from), 1 => any::<i64>()],
                    1..60,
                ),
            ],
            start: u64,
        ) {
            let mut positions = vec![start];
            for step in &steps {
                positions.push(positions[positions.len() - 1].wrapping_add(*step as u64));
            }
            let (words, last) = write(&positions);
            let read = Steps::new(&words, last, positions.len() as u32);
            prop_assert!(read.clone().map(|p| p.0).eq(positions.iter().rev().copied()));
            let mut appended = vec![RowPosition(7)];
            read.append_to(&mut appended);
            prop_assert!(appended.iter().skip(1).map(|p| p.0).eq(positions.iter().rev().copied()));
        }
    }

    #[test]
    fn what_is_stored_late_costs_three_words_and_nothing_behind_it() {
        let (words, last) = write(&[1_000_000, 1_000_001, 900_000, 1_000_002]);
        assert_eq!((words.len(), last.0), (1 + 1 + 3 + 1, 1_000_002));
        for (behind, count) in [(1, 3), (0x7FFF_FFFF, 3), (0x8000_0000, 7)] {
            let step = Step::between(RowPosition(1 << 40), RowPosition((1 << 40) - behind));
            assert_eq!((step.words().len(), step.is_detour), (count, count == 3), "{behind} behind");
        }
        for (ahead, count) in [(0xFFFF, 1), (0x1_0000, 3), (0x7FFF_FFFF, 3), (0x8000_0000, 7)] {
            let step = Step::between(RowPosition(0), RowPosition(ahead));
            assert_eq!((step.words().len(), step.is_detour), (count, false), "{ahead} ahead");
        }
    }
}
