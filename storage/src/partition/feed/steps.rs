//! Owns the steps: references as the distances from each to the next newer one, in words of 16 bits.
//!
//! - A step of one to 65,535 is one word: nearly all are, and storing them is one store. A step of 0 never occurs.
//! - Any other step stands in the low half of its words, behind which a 0 says so: of 32 bits in two words, or, if those
//!   say 0, of 64 bits in four more before them. A step that leads upwards, as slices make them, wraps around.
//! - Words are written at their end and read from their end, so that a reader stops where it likes.

use crate::ids::RowPosition;

/// The most words of a step.
pub(super) const STEP_WORDS_MAX: usize = 7;

/// The words of a step that is no single word, and how many there are.
pub(super) fn wide(step: u64) -> ([u16; STEP_WORDS_MAX], usize) {
    let word = |n: u32| (step >> (16 * n)) as u16;
    match step {
        1..=0xFFFF => ([word(0), 0, 0, 0, 0, 0, 0], 1),
        0x1_0000..=0xFFFF_FFFF => ([word(0), word(1), 0, 0, 0, 0, 0], 3),
        _ => ([word(0), word(1), word(2), word(3), 0, 0, 0], 7),
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
    /// The `left` references whose steps are `words`, the newest of them to `position`.
    #[inline]
    pub(super) fn new(words: &'a [u16], position: RowPosition, left: u32) -> Self {
        Self { words, position: position.0, left }
    }

    #[inline]
    fn step(&mut self) -> Option<u64> {
        let (word, before) = self.words.split_last()?;
        self.words = before;
        if *word != 0 { Some(u64::from(*word)) } else { self.wide_step() }
    }

    #[cold]
    fn wide_step(&mut self) -> Option<u64> {
        let (before, two) = self.words.split_last_chunk::<2>()?;
        self.words = before;
        let step = u64::from(two[0]) | u64::from(two[1]) << 16;
        if step != 0 {
            return Some(step);
        }
        let (before, four) = self.words.split_last_chunk::<4>()?;
        self.words = before;
        Some(four.iter().rev().fold(0, |step, word| step << 16 | u64::from(*word)))
    }
}

impl Steps<'_> {
    /// Appends all of them, newest first.
    #[inline]
    pub(super) fn append_to(mut self, positions: &mut Vec<RowPosition>) {
        let from = positions.len();
        let end = from + self.left as usize;
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
        let position = RowPosition(self.position);
        match self.step() {
            Some(step) => self.position = self.position.wrapping_sub(step),
            None => self.left = 0,
        }
        Some(position)
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

    proptest! {
        #[test]
        fn references_return_newest_first(
            steps in prop::collection::vec(prop_oneof![4 => 1..1u64 << 17, 1 => any::<u64>()], 1..60),
            start: u64,
        ) {
            let (mut words, mut positions) = (Vec::new(), vec![start]);
            for step in &steps {
                let (raw, count) = wide(*step);
                words.extend_from_slice(&raw[..count]);
                positions.push(positions[positions.len() - 1].wrapping_add(*step));
            }
            let last = RowPosition(positions[positions.len() - 1]);
            let read = Steps::new(&words, last, steps.len() as u32);
            prop_assert!(read.map(|p| p.0).eq(positions[1..].iter().rev().copied()));
        }
    }
}
