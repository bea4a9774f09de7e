//! Owns what may fail together, and when the replicas of a group lie as far apart as they can.
//!
//! - A node that names no zone is a zone of its own.
//! - Replicas lie as far apart as they can when none could move to a zone that has at least two fewer of them: they are then in
//!   as many zones as possible, and the loss of any zone costs as few of them as possible.

/// What may fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone<'a> {
    /// All nodes that name it.
    Named(&'a str),
    /// Only this node: it names none.
    Own(u64),
}

impl<'a> Zone<'a> {
    /// The zone of a node that says this of its zone; nothing if it is empty.
    pub fn of(node: u64, named: &'a str) -> Self {
        if named.is_empty() { Self::Own(node) } else { Self::Named(named) }
    }

    /// How many of these are this one.
    pub fn count(self, held: &[Self]) -> usize {
        held.iter().filter(|zone| **zone == self).count()
    }

    /// Whether replicas in the zones `held` lie further apart when one of this zone moves to the other.
    pub fn parts(self, to: Self, held: &[Self]) -> bool {
        to.count(held) + 1 < self.count(held)
    }

    /// Whether they lie as far apart as before, or further, when one of this zone moves to the other.
    pub fn keeps(self, to: Self, held: &[Self]) -> bool {
        self == to || to.count(held) < self.count(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_part_replicas_that_share_a_zone_and_no_others() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Zone::of(1, name));
        for (held, from, to, parts, keeps) in [
            (vec![a, b, b], b, c, true, true),
            (vec![a, b, b], b, a, false, true),
            (vec![a, b, b], a, b, false, false),
            (vec![a, b, b], a, c, false, true),
            (vec![a, b, b], b, b, false, true),
            // As many zones as before, and the loss of the fullest takes the majority no more.
            (vec![a, a, a, b, c], a, b, true, true),
        ] {
            assert_eq!((from.parts(to, &held), from.keeps(to, &held)), (parts, keeps), "{held:?}");
        }
    }

    #[test]
    fn nodes_without_a_zone_are_one_each() {
        assert_eq!(Zone::of(1, "a"), Zone::of(2, "a"));
        assert_ne!(Zone::of(1, ""), Zone::of(2, ""));
        assert_ne!(Zone::of(1, ""), Zone::of(1, "a"));
    }
}
