//! Owns the reach of the owners homed here: which partitions subscribed to each, and under which generation (R9).
//!
//! - The subscriptions of an owner are sorted by partition; an owner without any is not there.
//! - Owners stand in slots, so that a cut finds them in an order; it is told before one changes.

use super::cut::Tracked;
use super::heap::HeapBytes;
use super::index::Index;
use super::map::hash;
use super::slots::{Extent, Slot, Slots};
use crate::codec::{Encoded, Malformed, Reader};
use crate::ids::{Generation, GraphId, PartitionId, UserId};

/// One subscription; the generation as bytes, so that ten bytes hold both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subscription {
    partition: PartitionId,
    generation: [u8; 8],
}

const _: () = assert!(size_of::<Subscription>() == 10);

/// The subscriptions of one owner.
#[derive(Debug)]
pub(super) struct Reached {
    owner: UserId,
    graph: GraphId,
    subscriptions: Box<[Subscription]>,
}

const _: () = assert!(size_of::<Slot<Reached>>() == size_of::<Reached>());

/// Owners of a bucket, as a power of two.
pub(super) const BUCKET_SHIFT: u32 = 11;

/// Subscribed partitions by owner.
#[derive(Debug)]
pub(super) struct Reach {
    slots: Slots<Reached>,
    /// Owners by the index of their slot.
    pub(super) tracked: Tracked,
    index: Index,
    heap: HeapBytes,
}

impl Default for Reach {
    fn default() -> Self {
        let (slots, index) = (Slots::default(), Index::default());
        Self { slots, tracked: Tracked::new(BUCKET_SHIFT), index, heap: HeapBytes::default() }
    }
}

fn bytes_of(subscriptions: usize) -> usize {
    subscriptions * size_of::<Subscription>()
}

impl Reach {
    /// The reach of an image.
    pub(super) fn restore(slots: Slots<Reached>) -> Self {
        let mut reach = Self { slots, ..Self::default() };
        for (index, reached) in reach.slots.iter() {
            reach.index.insert(hash(&(reached.graph, reached.owner)), index);
            reach.heap.resize(0, bytes_of(reached.subscriptions.len()));
        }
        reach
    }

    pub(super) fn extent(&self) -> Extent {
        self.slots.extent()
    }

    /// Writes a slot as a bucket holds it.
    pub(super) fn encode_slot(&self, index: u32, out: &mut Vec<u8>) {
        encode_slot(&self.slots, index, out);
    }

    /// Tells a cut that a slot is about to change.
    fn touch(&mut self, index: u32) {
        let Self { slots, tracked, .. } = self;
        tracked.touch(u64::from(index), |out| encode_slot(slots, index, out));
    }

    fn find(&self, graph: GraphId, owner: UserId) -> Option<u32> {
        let same = |index| self.slots.get(index).is_some_and(|r| r.owner == owner && r.graph == graph);
        self.index.find(hash(&(graph, owner)), same)
    }

    /// The partitions that subscribed to an owner, ascending.
    pub(super) fn of(&self, graph: GraphId, owner: UserId) -> impl Iterator<Item = PartitionId> {
        let reached = self.find(graph, owner).and_then(|index| self.slots.get(index));
        let subscriptions = reached.map_or(&[][..], |reached| &reached.subscriptions);
        subscriptions.iter().map(|subscription| subscription.partition)
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
        let index = self.find(graph, owner);
        self.touch(index.unwrap_or_else(|| self.slots.next()));
        let index = index.unwrap_or_else(|| {
            let made = self.slots.insert(Reached { owner, graph, subscriptions: Box::default() });
            self.index.insert(hash(&(graph, owner)), made);
            made
        });
        let reached = self.slots.get_mut(index).expect("it was found or made");
        let known = &mut reached.subscriptions;
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
        if let Some(index) = self.find(graph, owner) {
            self.end(index, |subscription| *subscription == ended);
        }
    }

    /// Ends all subscriptions of a partition.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        for index in 0..self.slots.extent().len {
            self.end(index, |subscription| subscription.partition == partition);
        }
    }

    /// Ends some subscriptions of an owner, who is forgotten with the last.
    fn end(&mut self, index: u32, ended: impl Fn(&Subscription) -> bool) {
        let Some(reached) = self.slots.get(index).filter(|r| r.subscriptions.iter().any(&ended)) else {
            return;
        };
        let hash = hash(&(reached.graph, reached.owner));
        self.touch(index);
        let Some(reached) = self.slots.get_mut(index) else { return };
        let mut left = std::mem::take(&mut reached.subscriptions).into_vec();
        let before = left.len();
        left.retain(|subscription| !ended(subscription));
        self.heap.resize(bytes_of(before), bytes_of(left.len()));
        if left.is_empty() {
            self.index.remove(hash, index);
            self.slots.remove(index);
        } else {
            reached.subscriptions = left.into_boxed_slice();
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.slots.memory() + self.index.memory() + self.heap.get() + self.tracked.memory()
    }
}

fn encode_slot(slots: &Slots<Reached>, index: u32, out: &mut Vec<u8>) {
    if let Some(slot) = slots.slot(index) {
        slot.encode(out, Reached::encode);
    }
}

impl Encoded for Reached {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.graph, self.owner).encode(out);
        self.subscriptions.encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (graph, owner) = Encoded::decode(from)?;
        let subscriptions: Box<[Subscription]> = Encoded::decode(from)?;
        let ascending = subscriptions.is_sorted_by(|a, b| a.partition < b.partition);
        if !ascending || subscriptions.is_empty() {
            return Err(from.malformed("larger partition"));
        }
        Ok(Self { owner, graph, subscriptions })
    }
}

impl Encoded for Subscription {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.partition, Generation(u64::from_le_bytes(self.generation))).encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (partition, generation): (_, Generation) = Encoded::decode(from)?;
        Ok(Self { partition, generation: generation.0.to_le_bytes() })
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
        assert_eq!((reach.heap.get(), reach.slots.used(), partitions(&reach)), (0, 0, vec![]));
    }
}
