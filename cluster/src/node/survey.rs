//! Owns what nodes tell each other of the groups that they lead and of the replicas that they have, and what follows for
//! those that are not here.

use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::codec::{Encoded, Malformed, Reader};
use fanfold_storage::ids::{SpaceId, Stamp};
use fanfold_storage::log::GroupId;
use parking_lot::{Mutex, RwLock};

use super::member::Member;
use crate::catalog::ReplicaRecord;
use crate::map::node_of;
use crate::partition::{Mark, first_difference};
use crate::raft::{GroupMembers, ReplicaAddress, ReplicaId, Stranded};

/// The members of a group that its leader knows to be committed: nobody else belongs to it.
#[derive(Debug, Default)]
pub(super) struct Settled(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    term: u64,
    members: GroupMembers,
    /// The leader goes by the catalog of this epoch, and adds nobody whom that does not want.
    epoch: u64,
}

impl Settled {
    /// These are committed, as the leader of this term knows, which goes by the catalog of this epoch.
    pub fn set(&self, term: u64, members: &GroupMembers, epoch: u64) {
        let mut known = self.0.lock();
        match &mut *known {
            Some(known) if known.term == term && known.members == *members => known.epoch = epoch,
            known => *known = Some(Known { term, members: members.clone(), epoch }),
        }
    }

    /// The epoch for which that was said of these in this term; 0 if it was not.
    fn epoch_of(&self, term: u64, members: &GroupMembers) -> u64 {
        let known = self.0.lock();
        known.as_ref().filter(|known| known.term == term && known.members == *members).map_or(0, |k| k.epoch)
    }
}

/// What the leader of a group says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupReport {
    pub group: u32,
    pub term: u64,
    /// The members below are committed, and no change of them is under way; the leader goes by the catalog of this epoch.
    /// 0: they may change yet.
    pub settled_epoch: u64,
    pub voters: Vec<ReplicaRecord>,
    pub learners: Vec<ReplicaRecord>,
    /// By replica: Raft entries that it is behind.
    pub lag: Vec<(u64, Option<u64>)>,
    /// The replica that leads, and the index of its last Raft entry: as much as it has if it is all that is left.
    pub leader: (u64, u64),
    /// The time up to which it has applied entries; zero of the catalog, or if that was not known at the moment.
    pub applied: Stamp,
}

impl GroupReport {
    /// What this node says of a group, if it leads it, and has applied entries up to a time.
    pub fn of(member: &dyn Member, settled: &Settled, applied: impl FnOnce() -> Stamp) -> Option<Self> {
        let metrics = member.metrics();
        if !metrics.is_leader {
            return None;
        }
        let members = member.members();
        let records = |all: &BTreeMap<ReplicaId, ReplicaAddress>| {
            let record = |(replica, address): (&ReplicaId, &_)| ReplicaRecord {
                replica: replica.0,
                node: node_of(address),
            };
            all.iter().map(record).collect::<Vec<_>>()
        };
        let last = metrics.last_log_index.unwrap_or_default();
        let lag = |held: Option<u64>| held.map(|held| last.saturating_sub(held));
        Some(Self {
            group: member.id().0,
            term: metrics.term,
            settled_epoch: if members.is_joint { 0 } else { settled.epoch_of(metrics.term, &members) },
            voters: records(&members.voters),
            learners: records(&members.learners),
            lag: member.held().into_iter().map(|(replica, held)| (replica.0, lag(held))).collect(),
            leader: (member.replica().0, last),
            applied: applied(),
        })
    }

    /// Whether a replica belongs to the group.
    pub fn has(&self, replica: u64) -> bool {
        self.members().any(|record| record.replica == replica)
    }

    /// Whether a replica of the group is on a node.
    pub fn is_on(&self, node: u64) -> bool {
        self.members().any(|record| record.node == node)
    }

    /// The replicas of the group, those that vote first.
    pub fn members(&self) -> impl Iterator<Item = &ReplicaRecord> {
        self.voters.iter().chain(&self.learners)
    }
}

/// A replica that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub group: u32,
    pub replica: u64,
    /// Not so if its log or its state is damaged, or it could not be opened.
    pub is_open: bool,
    /// The index up to which it has applied the log.
    pub applied: u64,
    /// While nobody leads the group, as far as the replica knows.
    pub stranded: Option<Left>,
    /// By what it is compared with the others.
    pub marks: Vec<Mark>,
}

/// What is left of a group that nobody leads, as one of its replicas knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub voters: Vec<ReplicaRecord>,
    /// The term and the index of the replica's last Raft entry.
    pub last: (u64, u64),
    /// The time up to which entries were applied; zero of the catalog, or if that was not known at the moment.
    pub applied: Stamp,
}

impl Left {
    /// What a replica here says, which has applied entries up to a time.
    pub fn of(member: &dyn Member, applied: impl FnOnce() -> Stamp) -> Option<Self> {
        let Stranded { voters, last } = member.stranded()?;
        let record = |(replica, address): &(ReplicaId, ReplicaAddress)| ReplicaRecord {
            replica: replica.0,
            node: node_of(address),
        };
        Some(Self { voters: voters.iter().map(record).collect(), last, applied: applied() })
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NodeReport {
    /// The groups that it leads.
    pub led: Vec<GroupReport>,
    /// The replicas that it has.
    pub held: Vec<Held>,
    /// It is over its memory budget; older programs do not say.
    pub is_over_memory: bool,
}

impl NodeReport {
    /// Reads what a node says of itself. What a newer program says stands behind what this one knows, and is passed over.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::decode(&mut Reader::new(bytes))
    }
}

/// What is known of all groups.
#[derive(Debug, Default)]
pub(super) struct Survey(RwLock<Surveyed>);

/// What was said last of all groups.
#[derive(Debug, Clone, Default)]
pub(super) struct Surveyed {
    led: BTreeMap<GroupId, GroupReport>,
    /// By node.
    held: BTreeMap<u64, BTreeMap<GroupId, Held>>,
    /// The nodes that are over their memory budget.
    over_memory: BTreeSet<u64>,
}

impl Survey {
    /// Takes what a node says.
    pub fn note(&self, node: u64, report: NodeReport) {
        self.0.write().note(node, report);
    }

    /// What was said last of a group.
    pub fn of(&self, group: GroupId) -> Option<GroupReport> {
        self.0.read().of(group).cloned()
    }

    /// Up to where a replica has applied its group's log, as its node said last.
    pub fn applied(&self, group: GroupId, record: &ReplicaRecord) -> Option<u64> {
        let surveyed = self.0.read();
        let held = surveyed.held(group, record.node).filter(|held| held.replica == record.replica);
        held.map(|held| held.applied)
    }

    /// Whether the node of a replica says that it cannot take part.
    pub fn is_closed(&self, group: GroupId, record: &ReplicaRecord) -> bool {
        self.0.read().is_closed(group, record)
    }

    /// What was said last of all.
    pub fn all(&self) -> Surveyed {
        self.0.read().clone()
    }
}

impl Surveyed {
    /// Takes what a node says.
    pub fn note(&mut self, node: u64, report: NodeReport) {
        for report in report.led {
            let group = GroupId(report.group);
            if self.led.get(&group).is_none_or(|before| before.term <= report.term) {
                self.led.insert(group, report);
            }
        }
        if report.is_over_memory {
            self.over_memory.insert(node);
        } else {
            self.over_memory.remove(&node);
        }
        self.held.insert(node, report.held.into_iter().map(|held| (GroupId(held.group), held)).collect());
    }

    /// What was said last of a group.
    pub fn of(&self, group: GroupId) -> Option<&GroupReport> {
        self.led.get(&group)
    }

    /// Whether a node has said anything yet.
    pub fn has_heard(&self, node: u64) -> bool {
        self.held.contains_key(&node)
    }

    /// Whether a node says that it is over its memory budget.
    pub fn is_over_memory(&self, node: u64) -> bool {
        self.over_memory.contains(&node)
    }

    /// What a node says that it has of a group.
    pub fn held(&self, group: GroupId, node: u64) -> Option<&Held> {
        self.held.get(&node)?.get(&group)
    }

    /// Of a group that nobody leads, what is left on the nodes that may be asked.
    pub fn left(
        &self,
        group: GroupId,
        may: impl Fn(u64, &Held) -> bool,
    ) -> impl Iterator<Item = (u64, &Left)> {
        let held = self.held.iter().filter_map(move |(node, held)| Some((*node, held.get(&group)?)));
        let left = held.filter(move |(node, held)| held.is_open && may(*node, held));
        left.filter_map(|(node, held)| Some((node, held.stranded.as_ref()?)))
    }

    /// Of a group that nobody leads, what is left on the node with the last of its Raft entries, among those that may be
    /// asked: every other one has less of what was acknowledged.
    pub fn furthest(&self, group: GroupId, may: impl Fn(u64, &Held) -> bool) -> Option<(u64, &Left)> {
        self.left(group, may).max_by_key(|(_, left)| left.last)
    }

    /// The groups whose replicas do not agree, each with the first index at which they do not.
    pub fn diverged(&self) -> Vec<(GroupId, u64)> {
        let groups: BTreeSet<GroupId> = self.held.values().flat_map(BTreeMap::keys).copied().collect();
        let differs = |group: GroupId| {
            let replicas = self.held.values().filter_map(move |held| held.get(&group));
            let first = first_difference(&replicas.map(|held| held.marks.as_slice()));
            first.map(|index| (group, index))
        };
        groups.into_iter().filter_map(differs).collect()
    }

    /// The nodes that say that they have something of a group.
    pub fn holders(&self, group: GroupId) -> impl Iterator<Item = u64> {
        let all = self.held.iter().filter(move |(_, held)| held.contains_key(&group));
        all.map(|(node, _)| *node)
    }

    /// Whether the node of a replica says that it cannot take part.
    pub fn is_closed(&self, group: GroupId, record: &ReplicaRecord) -> bool {
        let held = self.held(group, record.node).filter(|held| held.replica == record.replica);
        held.is_some_and(|held| !held.is_open)
    }
}

/// What nodes ask each other beside what the network itself knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Control {
    /// The groups that you lead, and what you have.
    Reports,
    /// Answer when all partitions that you lead know this version of a space.
    AwaitSpace { space: SpaceId, version: u64 },
    /// The feature level that your program has.
    Level,
    /// The node that asks listens for other nodes here, which the catalog may not say yet.
    ListensAt { peer_address: String },
    /// Where you listen, for clients and for other nodes.
    Addresses,
}

impl Encoded for GroupReport {
    fn encode(&self, out: &mut Vec<u8>) {
        self.group.encode(out);
        self.term.encode(out);
        self.settled_epoch.encode(out);
        self.voters.encode(out);
        self.learners.encode(out);
        self.lag.encode(out);
        self.leader.encode(out);
        self.applied.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            group: from.u32()?,
            term: from.u64()?,
            settled_epoch: from.u64()?,
            voters: Encoded::decode(from)?,
            learners: Encoded::decode(from)?,
            lag: Encoded::decode(from)?,
            leader: Encoded::decode(from)?,
            applied: Encoded::decode(from)?,
        })
    }
}

impl Encoded for Held {
    fn encode(&self, out: &mut Vec<u8>) {
        self.group.encode(out);
        self.replica.encode(out);
        self.is_open.encode(out);
        self.applied.encode(out);
        self.stranded.encode(out);
        self.marks.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            group: from.u32()?,
            replica: from.u64()?,
            is_open: Encoded::decode(from)?,
            applied: from.u64()?,
            stranded: Encoded::decode(from)?,
            marks: Encoded::decode(from)?,
        })
    }
}

impl Encoded for Left {
    fn encode(&self, out: &mut Vec<u8>) {
        self.voters.encode(out);
        self.last.encode(out);
        self.applied.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            voters: Encoded::decode(from)?,
            last: Encoded::decode(from)?,
            applied: Encoded::decode(from)?,
        })
    }
}

impl Encoded for NodeReport {
    fn encode(&self, out: &mut Vec<u8>) {
        self.led.encode(out);
        self.held.encode(out);
        self.is_over_memory.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (led, held) = (Encoded::decode(from)?, Encoded::decode(from)?);
        Ok(Self { led, held, is_over_memory: from.left() > 0 && from.flag()? })
    }
}

impl Encoded for Control {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Reports => out.push(1),
            Self::AwaitSpace { space, version } => {
                out.push(2);
                space.encode(out);
                version.encode(out);
            }
            Self::Level => out.push(3),
            Self::ListensAt { peer_address } => {
                out.push(4);
                peer_address.encode(out);
            }
            Self::Addresses => out.push(5),
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            1 => Self::Reports,
            2 => Self::AwaitSpace { space: SpaceId::decode(from)?, version: from.u64()? },
            3 => Self::Level,
            4 => Self::ListensAt { peer_address: from.string()? },
            5 => Self::Addresses,
            _ => return Err(from.malformed("question of a node")),
        })
    }
}

/// The whole of a body, or nothing.
pub(super) fn whole<T: Encoded>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut from = Reader::new(bytes);
    let value = T::decode(&mut from)?;
    from.end().map(|()| value)
}

/// A body.
pub(super) fn body(value: &impl Encoded) -> bytes::Bytes {
    let mut out = Vec::new();
    value.encode(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn questions_and_reports_return_from_their_encoding() {
        let one = ReplicaRecord { replica: 5, node: 2 };
        let report = GroupReport {
            group: 3,
            term: 4,
            settled_epoch: 9,
            voters: vec![one],
            learners: vec![one, one],
            lag: vec![(5, None), (6, Some(7))],
            leader: (5, 70),
            applied: Stamp(8),
        };
        let left = Left { voters: vec![one], last: (4, 70), applied: Stamp(8) };
        let held = [(true, Some(left)), (false, None)];
        let marks = vec![Mark { index: 4_096, incarnation: 2, sum: 9 }];
        let held = held.map(|(is_open, stranded)| Held {
            group: 3,
            replica: 5,
            is_open,
            applied: 40,
            stranded,
            marks: marks.clone(),
        });
        let report = NodeReport { led: vec![report], held: held.to_vec(), is_over_memory: true };
        let bytes = body(&report);
        assert_eq!(NodeReport::from_bytes(&bytes).unwrap(), report);
        let newer = [&bytes[..], b"what this program does not know"].concat();
        assert_eq!(NodeReport::from_bytes(&newer).unwrap(), report);
        let older = &bytes[..bytes.len() - 1];
        assert_eq!(NodeReport::from_bytes(older).unwrap(), NodeReport { is_over_memory: false, ..report });
        for cut in 0..older.len() {
            assert!(NodeReport::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}: nothing is guessed");
        }
        let (space, peer_address) = (SpaceId(3), "h:1".to_owned());
        for control in [
            Control::Reports,
            Control::AwaitSpace { space, version: 8 },
            Control::Level,
            Control::ListensAt { peer_address },
            Control::Addresses,
        ] {
            assert_eq!(whole::<Control>(&body(&control)).unwrap(), control);
        }
    }

    #[test]
    fn replicas_that_do_not_agree_are_found() {
        let held = |sum: u32| Held {
            group: 3,
            replica: 5,
            is_open: true,
            applied: 40,
            stranded: None,
            marks: vec![Mark { index: 4_096, incarnation: 2, sum }],
        };
        let survey = Survey::default();
        let report = |sum: u32| NodeReport { held: vec![held(sum)], ..NodeReport::default() };
        survey.note(1, report(9));
        survey.note(2, report(9));
        assert_eq!(survey.all().diverged(), []);
        survey.note(3, report(8));
        assert_eq!(survey.all().diverged(), [(GroupId(3), 4_096)]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = NodeReport::from_bytes(&bytes);
            let _ = whole::<Control>(&bytes);
        }
    }
}
