//! Owns the streams between the partitions: at their worst on the way, and faithful in the end.

use super::*;

impl System {
    /// Makes messages from any position and delivers some, in any order.
    pub(super) fn streams(&mut self, seed: u64) {
        let mut random = seed;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below.max(1)
        };
        for _ in 0..6 {
            let n = next(self.nodes.len());
            let node = &self.nodes[n];
            for destination in node.partition.destinations() {
                let acknowledged = node.acknowledged.get(&destination).copied().unwrap_or_default();
                let after = JournalPosition(acknowledged.0 + next(4) as u64);
                if let Some(message) = node.partition.stream_message(destination, after, 1 + next(5), 1 << 20)
                {
                    self.wire.push((destination, message));
                }
            }
            for _ in 0..next(4) {
                if self.wire.is_empty() {
                    break;
                }
                let at = next(self.wire.len());
                let repeated = next(3) == 0;
                let (to, message) = if repeated { self.wire[at].clone() } else { self.wire.swap_remove(at) };
                if next(4) > 0 {
                    self.deliver(to, message);
                }
            }
        }
        let n = next(self.nodes.len());
        self.trim(n);
    }

    pub(super) fn one_event(&mut self, from: UserId, to: UserId) {
        let destination = home(&self.nodes, to).id();
        let source = home(&self.nodes, from);
        assert_ne!(source.id(), destination, "the two users live apart");
        let answer = home(&self.nodes, to).stream_answer(source.id());
        let StreamVerdict::SendAfter(after) = source.stream_verdict(destination, &answer) else {
            panic!("a stream that nobody broke wants a reset");
        };
        if let Some(message) = source.stream_message(destination, after, 1, 1 << 20) {
            self.deliver(destination, message);
        }
    }

    /// Applies a message at its destination and takes the answer back to the source.
    pub(super) fn deliver(&mut self, to: PartitionId, message: StreamMessage) {
        let (now, source) = (self.now, message.source);
        let outcomes = self.nodes[usize::from(to.0)].propose(now, &[Command::Stream { message }]);
        let Outcome::Stream { answer } = outcomes[0] else { panic!("{outcomes:?}") };
        let node = &mut self.nodes[usize::from(source.0)];
        match node.partition.stream_verdict(to, &answer) {
            StreamVerdict::SendAfter(position) => {
                node.acknowledged.insert(to, position);
            }
            StreamVerdict::Resume { incarnation } => {
                node.propose(now, &[Command::ResumeDestination { destination: to, incarnation }]);
                node.acknowledged.insert(to, JournalPosition(0));
            }
        }
    }

    /// Trims what every destination has acknowledged.
    pub(super) fn trim(&mut self, n: usize) {
        let (now, node) = (self.now, &mut self.nodes[n]);
        let mut through = JournalPosition(node.partition.journal_next().0 - 1);
        for destination in node.partition.destinations() {
            let acknowledged = node.acknowledged.get(&destination).copied().unwrap_or_default();
            let pending = node.partition.stream_message(destination, acknowledged, 1, 1);
            let first = pending.map(|message| message.events[0].0);
            through = first.map_or(through, |first| through.min(JournalPosition(first.0 - 1)));
        }
        node.propose(now, &[Command::Trim { through }]);
    }

    /// Delivers everything, faithfully.
    pub(super) fn drain(&mut self) {
        for round in 0.. {
            assert!(round < 200, "the streams do not come to rest");
            let mut quiet = true;
            for n in 0..self.nodes.len() {
                for destination in self.nodes[n].partition.destinations() {
                    let to = usize::from(destination.0);
                    let source = self.nodes[n].partition.id();
                    let answer = self.nodes[to].partition.stream_answer(source);
                    let after = match self.nodes[n].partition.stream_verdict(destination, &answer) {
                        StreamVerdict::SendAfter(position) => position,
                        StreamVerdict::Resume { incarnation } => {
                            let resume = Command::ResumeDestination { destination, incarnation };
                            let now = self.now;
                            self.nodes[n].propose(now, &[resume]);
                            JournalPosition(0)
                        }
                    };
                    let message = self.nodes[n].partition.stream_message(destination, after, 7, 1 << 20);
                    if let Some(message) = message {
                        quiet = false;
                        self.deliver(destination, message);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }
}
