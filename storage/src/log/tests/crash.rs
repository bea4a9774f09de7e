//! Owns the crash tests: the machine stops at every single operation on files, and again while it recovers.

use super::*;
use crate::fs::PowerLoss;

/// Votes, entries, truncations and purges that roll over several segments and reuse them.
fn script() -> Vec<Vec<Record>> {
    let mut all = vec![vec![vote(A, "first"), vote(B, "other")]];
    let mut last = 0;
    for round in 0..14 {
        last += 1;
        all.push(vec![append(A, last, vec![round; 3000]), append(B, u64::from(round) + 1, vec![round; 20])]);
        last += 1;
        all.push(vec![vote(A, &format!("vote {round}")), append(A, last, vec![round; 5000])]);
        if round % 3 == 2 {
            all.push(vec![truncate(A, last - 1), append(A, last, bytes("replaced"))]);
            all.push(vec![purge(A, last - 2), purge(B, u64::from(round)), committed(A, "c")]);
        }
    }
    all
}

/// The states after none, one, two … submissions.
fn states(script: &[Vec<Record>]) -> Vec<Model> {
    let mut model = Model::default();
    let mut states = vec![model.clone()];
    for records in script {
        model.apply(records);
        states.push(model.clone());
    }
    states
}

/// Runs the script until something fails; how many submissions were completed.
fn run(fs: &FaultFs, script: &[Vec<Record>]) -> usize {
    let Ok((log, _)) = open(fs, small()) else { return 0 };
    script.iter().take_while(|records| submit_and_wait(&log, (*records).clone()).is_ok()).count()
}

/// Opens the log and checks that it holds what was completed, perhaps the one submission in flight, and nothing else.
fn check(fs: &FaultFs, states: &[Model], completed: usize, what: &str) {
    let (log, recovered) = open(fs, small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(recovered.damaged, [], "{what}");
    let found = Model::of(&log).unwrap();
    let fits = found == states[completed] || states.get(completed + 1) == Some(&found);
    assert!(fits, "{what}: {completed} were completed, found {found:?}");
}

#[test]
fn whatever_was_completed_survives_a_loss_of_power_at_every_operation() {
    let script = script();
    let states = states(&script);
    let whole = FaultFs::new();
    assert_eq!(run(&whole, &script), script.len());
    let operations = whole.operations();
    assert!(operations > 100);
    let mut torn = 0;
    for stop in 0..operations + 3 {
        for loss in
            [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop), PowerLoss::Random(stop + 7777)]
        {
            let fs = FaultFs::new();
            fs.stop_after(stop);
            let completed = run(&fs, &script);
            let after = fs.lose_power(loss);
            torn += u32::from(open(&after.duplicate(), small()).is_ok_and(|(_, found)| found.torn.is_some()));
            check(&after, &states, completed, &format!("stop {stop}, {loss:?}"));
        }
    }
    assert!(torn > 0, "some losses tear a batch");
}

#[test]
fn a_killed_process_loses_nothing_that_was_completed() {
    let script = script();
    let states = states(&script);
    for stop in (0..260).step_by(3) {
        let fs = FaultFs::new();
        fs.stop_after(stop);
        let completed = run(&fs, &script);
        check(&fs.kill(), &states, completed, &format!("stop {stop}"));
    }
}

#[test]
fn recovery_itself_may_be_stopped_at_every_operation_again_and_again() {
    let script = script();
    let states = states(&script);
    for stop in (20..200).step_by(9) {
        let fs = FaultFs::new();
        fs.stop_after(stop);
        let completed = run(&fs, &script);
        let crashed = fs.lose_power(PowerLoss::Random(stop));
        for second in 0..14 {
            let mut fs = crashed.duplicate();
            for again in 0..3 {
                fs.stop_after(second + again);
                // It may get as far as to be open, or not.
                drop(open(&fs, small()));
                fs = fs.lose_power(PowerLoss::Random(second * 31 + again));
            }
            check(&fs, &states, completed, &format!("stop {stop}, then {second}"));
        }
    }
}

#[test]
fn what_recovery_reported_survives_the_next_loss_of_power() {
    let script = script();
    for stop in (10..240).step_by(5) {
        let fs = FaultFs::new();
        fs.stop_after(stop);
        run(&fs, &script);
        // The page cache holds more than the disk: what is reported has to be on the disk.
        let killed = fs.kill();
        let (log, _) = open(&killed, small()).unwrap();
        let reported = Model::of(&log).unwrap();
        let lost = killed.lose_power(PowerLoss::LoseAll);
        drop(log);
        let (log, recovered) = open(&lost, small()).unwrap();
        assert_eq!(recovered.damaged, []);
        assert_eq!(Model::of(&log).unwrap(), reported, "stop {stop}");
    }
}

#[test]
fn a_sync_that_fails_anywhere_loses_nothing_that_was_completed() {
    let script = script();
    let states = states(&script);
    let mut failed = 0;
    for sync in 0..40 {
        for kept in [PowerLoss::LoseAll, PowerLoss::Random(sync), PowerLoss::KeepAll] {
            let fs = FaultFs::new();
            fs.fail_sync_after(sync, kept);
            let completed = run(&fs, &script);
            failed += u32::from(completed < script.len());
            check(&fs.kill(), &states, completed, &format!("sync {sync}, {kept:?}"));
        }
    }
    assert!(failed > 60, "{failed}: nearly every failed sync stops the log");
}
