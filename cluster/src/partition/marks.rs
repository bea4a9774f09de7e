//! Owns the marks by which the replicas of a partition are compared: what its state came to at certain indexes.
//!
//! - A mark is made right behind the Raft entry of each index that is a multiple of [`EVERY`], on every replica that applies it.
//! - It is a checksum of what the log has decided so far and costs nothing to know: the stamp, how far ids, rows and the journal have
//!   come, the local users. Two replicas of one incarnation whose marks of one index differ have applied something differently.
//!   What is equal proves less than a checksum of the whole state, which would stop the partition for as long as it takes.
//! - The last few are kept, in memory only: a restart makes new ones.

use std::collections::VecDeque;

use fanfold_storage::encoded_struct;
use fanfold_storage::partition::Partition;

/// Raft entries between two marks.
const EVERY: u64 = 4_096;

/// Marks that are kept: enough for a replica that is behind, and for those who compare now and then.
const KEPT: usize = 8;

/// What a state came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Behind the Raft entry of this index.
    pub index: u64,
    /// Of this incarnation of the partition.
    pub incarnation: u64,
    /// The checksum.
    pub sum: u32,
}

encoded_struct!(Mark { index, incarnation, sum });

/// The marks of one replica.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(VecDeque<Mark>);

impl Marks {
    /// The entry of this index is applied.
    pub fn note(&mut self, index: u64, state: &Partition) {
        if !index.is_multiple_of(EVERY) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Mark { index, incarnation: state.incarnation(), sum: sum_of(state) });
    }

    /// Those that are kept, the oldest first.
    pub fn all(&self) -> Vec<Mark> {
        self.0.iter().copied().collect()
    }
}

fn sum_of(state: &Partition) -> u32 {
    let (row, id_bound) = state.feed_mark();
    let figures =
        [state.stamp().0, state.journal_next().0, row.0, id_bound.0, u64::from(state.user_indexes())];
    let bytes: Vec<u8> = figures.iter().flat_map(|figure| figure.to_le_bytes()).collect();
    crc32fast::hash(&bytes)
}

/// The first index at which replicas of one partition, each with its marks, do not agree.
pub(crate) fn first_difference<'m>(replicas: &(impl Iterator<Item = &'m [Mark]> + Clone)) -> Option<u64> {
    let all = replicas.clone().flatten();
    let differs = |mark: &&Mark| {
        let same = |other: &&Mark| (other.index, other.incarnation) == (mark.index, mark.incarnation);
        replicas.clone().flatten().filter(same).any(|other| other.sum != mark.sum)
    };
    all.filter(differs).map(|mark| mark.index).min()
}

#[cfg(test)]
mod tests {
    use fanfold_storage::command::{Command, encode_batch};
    use fanfold_storage::ids::{PartitionId, Stamp};

    use super::*;

    fn marked(stamps: impl Fn(u64) -> u64) -> Vec<Mark> {
        let (mut state, mut marks) = (Partition::new(PartitionId(0), 1), Marks::default());
        for index in 1..=3 * EVERY {
            let batch = encode_batch(Stamp(stamps(index)), &[Command::Tick.to_bytes()]);
            let mut applying = state.begin(index, &batch).unwrap();
            while state.go_on(&mut applying) {}
            marks.note(index, &state);
        }
        marks.all()
    }

    #[test]
    fn replicas_that_applied_the_same_agree_and_others_do_not() {
        let (one, same) = (marked(|index| index), marked(|index| index));
        assert_eq!(one.iter().map(|mark| mark.index).collect::<Vec<_>>(), [EVERY, 2 * EVERY, 3 * EVERY]);
        assert_eq!(first_difference(&[&one[..], &same[1..]].into_iter()), None);
        let other = marked(|index| index + u64::from(index > EVERY));
        assert_eq!(first_difference(&[&one[..], &same[..], &other[..]].into_iter()), Some(2 * EVERY));
        let reborn: Vec<_> = other.iter().map(|mark| Mark { incarnation: 7, ..*mark }).collect();
        assert_eq!(first_difference(&[&one[..], &reborn[..]].into_iter()), None, "another history");
    }

    #[test]
    fn marks_are_bounded() {
        let (state, mut marks) = (Partition::new(PartitionId(0), 1), Marks::default());
        (0..2 * KEPT as u64).for_each(|n| marks.note(n * EVERY, &state));
        assert_eq!(marks.all().len(), KEPT);
        assert_eq!(marks.all()[0].index, KEPT as u64 * EVERY);
    }
}
