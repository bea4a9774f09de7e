//! Owns a set of numbers that lie together, a bit each.

use std::collections::VecDeque;

/// Numbers; takes a bit for each between the smallest and the largest that was ever added.
#[derive(Debug, Default)]
pub(super) struct Bits {
    /// The first word stands for the 64 numbers from 64 times this on.
    first: u64,
    words: VecDeque<u64>,
}

impl Bits {
    fn place(&self, number: u64) -> usize {
        // Far out of reach for a number below the first word.
        (number / 64).wrapping_sub(self.first) as usize
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.words.get(self.place(number)).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    #[inline]
    pub(super) fn add(&mut self, number: u64) {
        let place = self.place(number);
        if let Some(word) = self.words.get_mut(place) {
            *word |= 1 << (number % 64);
        } else {
            self.reach(number / 64);
            self.add(number);
        }
    }

    /// Makes room for the numbers of a word.
    #[cold]
    fn reach(&mut self, word: u64) {
        if self.words.is_empty() {
            self.first = word;
        }
        while word < self.first {
            self.words.push_front(0);
            self.first -= 1;
        }
        let needed = (word - self.first) as usize + 1;
        self.words.resize(needed.max(self.words.len()), 0);
    }

    /// Adds all numbers of another set.
    pub(super) fn add_all(&mut self, other: &Self) {
        for (word, bits) in (other.first..).zip(&other.words).filter(|(_, bits)| **bits != 0) {
            self.reach(word);
            let place = self.place(64 * word);
            self.words[place] |= bits;
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn equals_an_ordered_set(
            base in 0u64..1 << 40,
            numbers in prop::collection::vec(0u64..1_000, 0..40),
            others in prop::collection::vec(0u64..1_000, 0..40),
        ) {
            let of = |numbers: &[u64]| {
                let mut bits = Bits::default();
                numbers.iter().for_each(|number| bits.add(base + number));
                bits
            };
            let mut bits = of(&numbers);
            bits.add_all(&of(&others));
            let set: BTreeSet<u64> = numbers.iter().chain(&others).copied().collect();
            for number in 0..1_100 {
                prop_assert_eq!(bits.contains(base + number), set.contains(&number));
            }
            prop_assert!(bits.memory() <= 512, "far numbers take no room below them");
        }
    }
}
