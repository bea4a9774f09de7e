//! Owns the merge of chains: of many owners the newest row at a time, by a tree of losers (Knuth, The Art of Computer
//! Programming, vol. 3, 5.4.1).
//!
//! - A node holds who lost there; the winner of all is on top. To go on, one path is played again, without a look at a
//!   row.
//! - A chain at its end stands with the id 0, which no entry has.
//! - Rows are looked at where they stand: a copy in one piece of what was just stored in two waits until both are through.

use super::delivered::Row;
use crate::ids::{EntryId, RowPosition, UserId};

/// A chain at its newest row that is left; it ends at a floor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender {
    pub(super) owner: UserId,
    pub(super) floor: EntryId,
    pub(super) position: RowPosition,
    pub(super) row: Row,
}

/// The id of a chain's newest row that is left, and which chain that is. No id is in two chains, so only ids are compared.
#[derive(Clone, Copy, Debug, Default)]
struct Key {
    id: u64,
    chain: u64,
}

impl Key {
    fn new(id: EntryId, chain: usize) -> Self {
        Self { id: id.0, chain: chain as u64 }
    }

    /// Puts the larger id here and the smaller there.
    #[inline]
    fn play(&mut self, other: &mut Self) {
        if other.id > self.id {
            std::mem::swap(self, other);
        }
    }
}

/// Chains, merged.
#[derive(Debug, Default)]
pub(super) struct Chains {
    chains: Vec<Contender>,
    /// The winner, and behind it who lost at each inner node of a tree whose leaves are the chains.
    tree: Vec<Key>,
}

impl Chains {
    /// How many there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.chains.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.chains.clear();
        self.tree.clear();
    }

    /// Takes up a chain; [`Chains::order`] ends the taking.
    pub(super) fn add(&mut self, chain: Contender) {
        self.chains.push(chain);
    }

    /// Plays all.
    pub(super) fn order(&mut self) {
        let Self { chains, tree } = self;
        let count = chains.len();
        tree.clear();
        // The leaves stand behind the inner nodes. Who wins at a node goes up, and who lost stays at the left one below it.
        tree.resize(count, Key::default());
        tree.extend(chains.iter().enumerate().map(|(n, chain)| Key::new(chain.row.id, n)));
        for node in (1..count).rev() {
            let (mut winner, mut loser) = (tree[2 * node], tree[2 * node + 1]);
            winner.play(&mut loser);
            (tree[node], tree[2 * node]) = (winner, loser);
        }
        let winner = tree.get(1).copied();
        for node in 1..count {
            tree[node] = tree[2 * node];
        }
        tree.truncate(count);
        if let (Some(top), Some(winner)) = (tree.first_mut(), winner) {
            *top = winner;
        }
    }

    /// The largest id that is left; 0 if there is none.
    #[inline]
    pub(super) fn top(&self) -> EntryId {
        self.tree.first().map_or(EntryId::ZERO, |winner| EntryId(winner.id))
    }

    /// The chain with that id.
    #[inline]
    pub(super) fn newest(&self) -> Option<&Contender> {
        let winner = self.tree.first().filter(|_| self.top() > EntryId::ZERO)?;
        self.chains.get(winner.chain as usize)
    }

    /// The chain with that id goes on with another row, or is at its end.
    #[inline]
    pub(super) fn go_on(&mut self, next: Option<(RowPosition, &Row)>) {
        let Self { chains, tree } = self;
        let Some(top) = tree.first() else { return };
        let at = top.chain as usize;
        let mut winner = Key::new(EntryId::ZERO, at);
        if let (Some((position, row)), Some(chain)) = (next, chains.get_mut(at)) {
            (chain.position, chain.row) = (position, *row);
            winner = Key::new(row.id, at);
        }
        let leaf = chains.len() + at;
        let mut node = leaf / 2;
        while node > 0 {
            winner.play(&mut tree[node]);
            node /= 2;
        }
        tree[0] = winner;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Audience;
    use crate::ids::SpaceId;
    use crate::partition::owners::OwnerIndex;

    fn contender(owner: usize, id: EntryId) -> Contender {
        let row = Row::new(id, OwnerIndex(0), SpaceId(1), Audience::Public);
        Contender { owner: UserId(owner as u64), floor: EntryId::ZERO, position: RowPosition(id.0), row }
    }

    proptest! {
        #[test]
        fn all_rows_come_once_largest_first(
            ids in prop::collection::vec(prop::collection::btree_set(1u64..1 << 48, 1..20), 0..40),
            before in 0usize..40,
        ) {
            // No id is in two chains.
            let count = ids.len() as u64;
            let of = |n: usize| ids[n].iter().rev().map(|id| id * count + n as u64).collect::<Vec<_>>();
            let mut left: Vec<_> = (0..ids.len()).map(|n| of(n).into_iter()).collect();
            let mut chains = Chains::default();
            // Of others before, whatever is left of them.
            for n in 0..before {
                chains.add(contender(n, EntryId(n as u64 + 1)));
            }
            chains.order();
            chains.clear();
            for (n, ids) in left.iter_mut().enumerate() {
                chains.add(contender(n, EntryId(ids.next().expect("not empty"))));
            }
            chains.order();
            let mut came = Vec::new();
            while let Some(newest) = chains.newest() {
                prop_assert_eq!((newest.row.id, newest.position.0), (chains.top(), chains.top().0));
                came.push(newest.row.id.0);
                let next = left[newest.owner.0 as usize].next().map(|id| contender(0, EntryId(id)));
                chains.go_on(next.as_ref().map(|next| (next.position, &next.row)));
            }
            let mut all: Vec<_> = (0..ids.len()).flat_map(of).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(came, all);
        }
    }
}
