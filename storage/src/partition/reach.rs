//! Owns the reach of the owners homed here: which partitions subscribed to each, and under which generation (R9).
//!
//! - The subscriptions of an owner are sorted by partition; an owner without any is not there.

use super::heap::HeapBytes;
use super::map::IdMap;
use crate::codec::{Encoded, Malformed, Reader, put_u64};
use crate::ids::{Generation, GraphId, PartitionId, UserId};

/// One subscription; the generation as bytes, so that ten bytes hold both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subscription {
    partition: PartitionId,
    generation: [u8; 8],
}

const _: () = assert!(size_of::<Subscription>() == 10);

/// Subscribed partitions by owner.
#[derive(Debug, Default)]
pub(super) struct Reach {
    owners: IdMap<(GraphId, UserId), Box<[Subscription]>>,
    heap: HeapBytes,
}

fn bytes_of(subscriptions: usize) -> usize {
    subscriptions * size_of::<Subscription>()
}

impl Reach {
    fn subscriptions(&self, graph: GraphId, owner: UserId) -> &[Subscription] {
        self.owners.get(&(graph, owner)).map_or(&[], |subscriptions| subscriptions)
    }

    /// The partitions that subscribed to an owner, ascending.
    pub(super) fn of(&self, graph: GraphId, owner: UserId) -> impl Iterator<Item = PartitionId> {
        self.subscriptions(graph, owner).iter().map(|subscription| subscription.partition)
    }

    /// Notes a subscription, in place of an earlier one of the same partition.
    pub(super) fn subscribe(
        &mut self,
        graph: GraphId,
        owner: UserId,
        partition: PartitionId,
        generation: Generation,
    ) {
        let new = Subscription { partition, generation: generation.0.to_le_bytes() };
        let known = self.owners.or_default((graph, owner));
        match known.binary_search_by_key(&partition, |s| s.partition) {
            Ok(at) => known[at] = new,
            Err(at) => {
                let mut grown = std::mem::take(known).into_vec();
                self.heap.resize(bytes_of(grown.len()), bytes_of(grown.len() + 1));
                grown.reserve_exact(1);
                grown.insert(at, new);
                *known = grown.into_boxed_slice();
            }
        }
    }

    /// Ends a subscription, if it is still the one of this generation.
    pub(super) fn unsubscribe(
        &mut self,
        graph: GraphId,
        owner: UserId,
        partition: PartitionId,
        generation: Generation,
    ) {
        let ended = Subscription { partition, generation: generation.0.to_le_bytes() };
        let Some(known) = self.owners.get_mut(&(graph, owner)) else { return };
        if without(known, |subscription| *subscription == ended, &mut self.heap) == 0 {
            self.owners.remove(&(graph, owner));
        }
    }

    /// Ends all subscriptions of a partition.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        let heap = &mut self.heap;
        self.owners.retain(|_, known| without(known, |s| s.partition == partition, heap) > 0);
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.owners.memory() + self.heap.get()
    }
}

/// Takes the subscriptions out that `ended` names; answers how many are left.
fn without(
    known: &mut Box<[Subscription]>,
    ended: impl Fn(&Subscription) -> bool,
    heap: &mut HeapBytes,
) -> usize {
    if known.iter().any(&ended) {
        let mut left = std::mem::take(known).into_vec();
        let before = left.len();
        left.retain(|subscription| !ended(subscription));
        heap.resize(bytes_of(before), bytes_of(left.len()));
        *known = left.into_boxed_slice();
    }
    known.len()
}

impl Encoded for Reach {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut sorted: Vec<_> = self.owners.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| **key);
        put_u64(out, sorted.len() as u64);
        for (key, subscriptions) in sorted {
            key.encode(out);
            put_u64(out, subscriptions.len() as u64);
            for subscription in subscriptions {
                subscription.partition.encode(out);
                Generation(u64::from_le_bytes(subscription.generation)).encode(out);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut reach = Self::default();
        for _ in 0..from.count()? {
            let (graph, owner) = Encoded::decode(from)?;
            for _ in 0..from.count()? {
                let (partition, generation) = Encoded::decode(from)?;
                reach.subscribe(graph, owner, partition, generation);
            }
        }
        Ok(reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: GraphId = GraphId(1);
    const OWNER: UserId = UserId(7);

    fn partitions(reach: &Reach) -> Vec<u16> {
        reach.of(GRAPH, OWNER).map(|partition| partition.0).collect()
    }

    #[test]
    fn only_the_generation_that_began_it_ends_a_subscription() {
        let mut reach = Reach::default();
        for (partition, generation) in [(3, 10), (1, 11), (3, 12)] {
            reach.subscribe(GRAPH, OWNER, PartitionId(partition), Generation(generation));
        }
        assert_eq!(partitions(&reach), [1, 3]);
        reach.unsubscribe(GRAPH, OWNER, PartitionId(3), Generation(10));
        assert_eq!(partitions(&reach), [1, 3]);
        reach.unsubscribe(GRAPH, OWNER, PartitionId(3), Generation(12));
        assert_eq!(partitions(&reach), [1]);
    }

    #[test]
    fn a_forgotten_partition_leaves_no_bytes_behind() {
        let mut reach = Reach::default();
        reach.subscribe(GRAPH, OWNER, PartitionId(1), Generation(1));
        reach.subscribe(GRAPH, UserId(8), PartitionId(1), Generation(2));
        assert!(reach.heap.get() > 0);
        reach.forget(PartitionId(1));
        assert_eq!((reach.heap.get(), reach.owners.len(), partitions(&reach)), (0, 0, vec![]));
    }
}
