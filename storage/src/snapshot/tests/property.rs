//! Owns the property test: random snapshots, restarts and pruning against plain maps.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::snapshot::Pin;

#[derive(Debug, Clone)]
enum Step {
    /// A bucket has new bytes.
    Change(u8, u64, u16),
    /// A bucket goes.
    Remove(u8, u64),
    /// A segment is made.
    AddSegment(u16),
    /// The oldest segment goes.
    RemoveSegment,
    /// A snapshot, built on the newest one or full.
    Take {
        full: bool,
    },
    /// A snapshot that is dropped before its end.
    Abandon,
    Prune,
    Pin,
    Unpin,
    Reopen,
    LosePower,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3u8, 0..12u64, 0..400u16).prop_map(|(section, number, length)| Step::Change(section, number, length)),
        4 => (0..3u8, 0..12u64).prop_map(|(section, number)| Step::Remove(section, number)),
        2 => (0..500u16).prop_map(Step::AddSegment),
        1 => Just(Step::RemoveSegment),
        6 => prop::bool::weighted(0.1).prop_map(|full| Step::Take { full }),
        1 => Just(Step::Abandon),
        3 => Just(Step::Prune),
        1 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        1 => Just(Step::Reopen),
        1 => Just(Step::LosePower),
    ]
}

/// A store, what it should hold, and what the next snapshot will.
struct Run {
    fs: FaultFs,
    store: SnapshotStore,
    state: State,
    taken: Vec<(Arc<Manifest>, State)>,
    pins: Vec<(Pin, State)>,
    numbers: BTreeSet<u64>,
}

impl Run {
    fn new() -> Self {
        let fs = FaultFs::new();
        let store = open_whole(&fs);
        Self {
            fs,
            store,
            state: State::default(),
            taken: Vec::new(),
            pins: Vec::new(),
            numbers: BTreeSet::new(),
        }
    }

    fn base(&self) -> Option<(&Manifest, &State)> {
        self.taken.last().map(|(manifest, state)| (&**manifest, state))
    }

    fn step(&mut self, step: &Step, round: u64) {
        match *step {
            Step::Change(section, number, length) => {
                self.state.buckets.insert((section, number), vec![round as u8; usize::from(length)]);
            }
            Step::Remove(section, number) => drop(self.state.buckets.remove(&(section, number))),
            Step::AddSegment(length) => {
                let segment = make_segment(&self.fs, &self.store, &vec![round as u8; usize::from(length)]);
                self.state.segments.push(segment.unwrap());
            }
            Step::RemoveSegment if !self.state.segments.is_empty() => drop(self.state.segments.remove(0)),
            Step::Take { full } => {
                self.state.index += 1;
                let manifest = take(&self.store, self.base().filter(|_| !full), &self.state).unwrap();
                let before = self.base().filter(|_| !full).map_or(Vec::new(), |(base, _)| base.files.clone());
                let own = manifest.files.iter().filter(|file| !before.contains(file));
                for number in own.map(|file| file.number).chain([manifest.number]) {
                    assert!(self.numbers.insert(number), "{number} was used twice");
                }
                self.taken.push((manifest, self.state.clone()));
            }
            Step::Abandon => {
                let mut writer = self.store.begin(self.base().map(|(manifest, _)| manifest));
                for ((section, number), bytes) in &self.state.buckets {
                    writer.put(*section, *number, bytes, &no_pace).unwrap();
                }
            }
            Step::Prune => self.prune(),
            Step::Pin => {
                let pinned =
                    self.base().and_then(|(base, state)| Some((self.store.pin(base)?, state.clone())));
                self.pins.extend(pinned);
            }
            Step::Unpin => drop(self.pins.pop()),
            Step::Reopen | Step::LosePower => {
                self.pins.clear();
                if matches!(step, Step::LosePower) {
                    self.fs = self.fs.lose_power(PowerLoss::Random(round));
                }
                self.store = open_whole(&self.fs);
            }
            Step::RemoveSegment => {}
        }
    }

    /// Prunes; what is left is exactly what is needed.
    fn prune(&mut self) {
        let in_use = |name: &str| self.state.segments.iter().any(|segment| segment.name == name);
        self.store.prune(&in_use).unwrap();
        let newest = self.taken.iter().rev().take(2).map(|(manifest, _)| manifest);
        let pinned = self.pins.iter().map(|(pin, _)| pin.manifest());
        let needed: BTreeSet<String> = newest.chain(pinned).flat_map(|manifest| manifest.names()).collect();
        let in_use = self.state.segments.iter().map(|segment| segment.name.clone());
        let expected: BTreeSet<String> = needed.into_iter().chain(in_use).collect();
        assert_eq!(names(&self.fs).into_iter().collect::<BTreeSet<_>>(), expected);
    }

    fn check(&self) {
        let offered = [self.store.newest(), self.store.previous()];
        for (offered, (manifest, state)) in offered.iter().flatten().zip(self.taken.iter().rev()) {
            assert_eq!(offered, manifest);
            assert_eq!(load(&self.store, offered).unwrap(), *state);
            verify(&self.store, offered).unwrap();
        }
        assert_eq!(offered.iter().flatten().count(), self.taken.len().min(2));
        for (pin, state) in &self.pins {
            assert_eq!(load(&self.store, pin.manifest()).unwrap(), *state);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn snapshots_hold_what_was_put_into_them(steps in prop::collection::vec(step(), 1..80)) {
        let mut run = Run::new();
        for (round, step) in steps.iter().enumerate() {
            run.step(step, round as u64);
            run.check();
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_manifest_and_no_panic(body: Vec<u8>) {
        let mut bytes = crate::snapshot::header::begin(*b"FFSM", GROUP, 1);
        bytes.extend_from_slice(&body);
        crate::snapshot::header::seal(&mut bytes);
        // With a right checksum, only what is inside can be wrong.
        if let Ok(manifest) = Manifest::decode(&bytes, GROUP, 1) {
            prop_assert_eq!(Manifest::decode(&manifest.encode(), GROUP, 1), Ok(manifest));
        }
    }
}
