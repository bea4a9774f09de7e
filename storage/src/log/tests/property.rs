//! Owns the property test: random submissions, restarts, kills and losses of power against the model.

use proptest::prelude::*;

use super::*;
use crate::fs::PowerLoss;

#[derive(Debug, Clone)]
enum Step {
    Vote(u8),
    Append(u8, u16),
    AppendMany(u8, u8),
    Truncate(u8, u8),
    TruncateAll(u8),
    Purge(u8, i8),
    Committed(u8),
    Forget(u8),
    Restart,
    Kill,
    PowerLoss(u64),
    CrashAfter(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let group = 0..3u8;
    prop_oneof![
        3 => group.clone().prop_map(Step::Vote),
        8 => (group.clone(), 0..6000u16).prop_map(|(g, bytes)| Step::Append(g, bytes)),
        2 => (group.clone(), 1..30u8).prop_map(|(g, count)| Step::AppendMany(g, count)),
        2 => (group.clone(), 0..6u8).prop_map(|(g, back)| Step::Truncate(g, back)),
        1 => group.clone().prop_map(Step::TruncateAll),
        4 => (group.clone(), -3..8i8).prop_map(|(g, keep)| Step::Purge(g, keep)),
        1 => group.clone().prop_map(Step::Committed),
        1 => group.prop_map(Step::Forget),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerLoss),
        1 => (0..40u8, any::<u64>()).prop_map(|(after, seed)| Step::CrashAfter(after, seed)),
    ]
}

/// The records of a step, given what is there.
fn records(step: &Step, model: &Model, round: usize) -> Vec<Record> {
    let id = |group: &u8| [A, B, C][usize::from(*group)];
    let state = |group: &u8| model.groups.get(&id(group)).cloned().unwrap_or_default();
    let next = |group: &u8| {
        let state = state(group);
        let last = state.entries.keys().next_back().copied();
        last.or(state.purged.map(|(index, _)| index)).map_or(1, |index| index + 1)
    };
    let data = |bytes: u16| vec![round as u8; usize::from(bytes)];
    match step {
        Step::Vote(group) => vec![vote(id(group), &format!("vote {round}"))],
        Step::Append(group, bytes) => vec![append(id(group), next(group), data(*bytes))],
        Step::AppendMany(group, count) => {
            let first = next(group);
            (0..u64::from(*count))
                .map(|more| append(id(group), first + more, data(more as u16 * 40)))
                .collect()
        }
        Step::Truncate(group, back) => {
            vec![truncate(id(group), (next(group) - 1).saturating_sub(u64::from(*back)))]
        }
        Step::TruncateAll(group) => vec![truncate(id(group), None)],
        Step::Purge(group, keep) => {
            let index = next(group).saturating_add_signed(-1 - i64::from(*keep));
            let purged = state(group).purged.map_or(0, |(purged, _)| purged);
            if index > purged { vec![purge(id(group), index)] } else { Vec::new() }
        }
        Step::Committed(group) => vec![committed(id(group), &format!("at {round}"))],
        Step::Forget(group) => vec![Record::Forget { group: id(group) }],
        Step::Restart | Step::Kill | Step::PowerLoss(_) | Step::CrashAfter(..) => Vec::new(),
    }
}

/// A log on a disk that may be taken away from under it.
struct Machine {
    fs: FaultFs,
    log: Log,
}

impl Machine {
    fn start(fs: FaultFs) -> Self {
        let (fs, (log, recovered)) = match open(&fs, small()) {
            Ok(opened) => (fs, opened),
            // The crash that was planned comes during recovery.
            Err(OpenError::Io { .. }) => {
                let fs = fs.lose_power(PowerLoss::Random(fs.operations()));
                let opened = open(&fs, small()).expect("nothing is damaged");
                (fs, opened)
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(recovered.damaged, []);
        Self { fs, log }
    }

    fn crash(&mut self, loss: Option<PowerLoss>) {
        let fs = loss.map_or_else(|| self.fs.kill(), |loss| self.fs.lose_power(loss));
        *self = Self::start(fs);
    }
}

fn run(steps: &[Step]) {
    let mut machine = Machine::start(FaultFs::new());
    let mut model = Model::default();
    let mut seed = 0;
    for (round, step) in steps.iter().enumerate() {
        match step {
            Step::Restart => {
                machine.log.clone().close().ok();
                machine = Machine::start(machine.fs.clone());
            }
            Step::Kill => machine.crash(None),
            Step::PowerLoss(seed) => machine.crash(Some(PowerLoss::Random(*seed))),
            Step::CrashAfter(after, then) => {
                machine.fs.stop_after(u64::from(*after));
                seed = *then;
            }
            _ => {}
        }
        let records = records(step, &model, round);
        let mut then = model.clone();
        then.apply(&records);
        if submit_and_wait(&machine.log, records).is_ok() {
            model = then;
        } else {
            machine.crash(Some(PowerLoss::Random(seed)));
            let found = Model::of(&machine.log).unwrap();
            if found != model {
                assert!(found == then || matches!(step, Step::AppendMany(..)), "{found:?}");
                model = found;
            }
        }
        if let Ok(found) = Model::of(&machine.log) {
            assert_eq!(found, model, "after step {round}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}
