//! Owns the damage tests: a small log cut at every byte, with every bit flipped, and with damage at chosen places.

use super::*;
use crate::fs::PowerLoss;
use crate::log::{AffectedGroups, LogStatus, open as files};

/// Submissions that become one batch each.
fn script() -> Vec<Vec<Record>> {
    vec![
        vec![vote(A, "va"), vote(B, "vb")],
        vec![append(A, 1, bytes("a1"))],
        vec![append(B, 1, vec![3; 600])],
        vec![append(A, 2, bytes("a2")), append(B, 2, bytes("b2"))],
        vec![truncate(A, 1), append(A, 2, bytes("a2 again")), vote(A, "va2")],
        vec![append(A, 3, bytes("a3"))],
    ]
}

fn model(script: &[Vec<Record>]) -> Model {
    let mut model = Model::default();
    for records in script {
        model.apply(records);
    }
    model
}

/// The log of the script, its last batch with or without a mark behind it.
fn made(marked: bool) -> FaultFs {
    let fs = FaultFs::new();
    let options = LogOptions { segment_bytes: 40 << 10, ..unmarked() };
    let (log, _) = open(&fs, options).unwrap();
    for records in script() {
        submit_and_wait(&log, records).unwrap();
    }
    if marked {
        log.close().unwrap();
        fs
    } else {
        let killed = fs.kill();
        drop(log);
        killed
    }
}

/// What opening finds, without starting threads: each group's state, or that it is quarantined.
fn look(fs: &FaultFs) -> Result<(BTreeMap<GroupId, Option<ModelGroup>>, Recovered), OpenError> {
    let options = LogOptions { segment_bytes: 40 << 10, recent_bytes_max: u64::MAX, ..unmarked() };
    let recovery = files::read(fs, Path::new(DIR), &options)?.recovery;
    let mut groups = BTreeMap::new();
    for group in [A, B] {
        let state = recovery.index.get(group).map(|index| {
            let state = index.state();
            let entry = |at| match index.find(at) {
                Some(super::super::index::Found::InMemory(data)) => (at, data),
                other => panic!("everything is in memory: {other:?}"),
            };
            let entries = state.last.map_or(0..0, |last| state.first..last + 1).map(entry).collect();
            ModelGroup { vote: state.vote, committed: state.committed, purged: state.purged, entries }
        });
        let quarantined = recovery.ledger.quarantine().of(group).is_some();
        groups.insert(group, (!quarantined).then(|| state.unwrap_or_default()));
    }
    Ok((groups, recovery.recovered))
}

fn matches_model(found: &BTreeMap<GroupId, Option<ModelGroup>>, model: &Model) -> bool {
    let expected = |group: &GroupId| model.groups.get(group).cloned().unwrap_or_default();
    found.iter().all(|(group, state)| state.as_ref().is_some_and(|state| *state == expected(group)))
}

/// Every bit of what is in use, and one of each byte of padding.
fn bits(content: &[u8]) -> Vec<usize> {
    let used: Vec<usize> = content.chunks(4096).map(end_of).collect();
    let in_use = |at: usize| at % 4096 < used[at / 4096];
    (0..end_of(content) * 8).filter(|bit| bit % 8 == bit / 8 % 8 || in_use(bit / 8)).collect()
}

/// Whether a cut leaves all of a block that is not zero.
fn used_up(content: &[u8], cut: usize, block: usize) -> bool {
    let start = 4096 * block;
    start + end_of(&content[start..start + 4096]) <= cut
}

/// Where the segment's batches end.
fn end_of(content: &[u8]) -> usize {
    super::super::scan::used_bytes(content) as usize
}

#[test]
fn a_log_cut_at_any_byte_holds_a_prefix_and_everything_before_the_cut() {
    let fs = made(false);
    let path = segment_path(1);
    let content = fs.content(&path).unwrap();
    let known_durable = fs
        .content(&segment_path(2))
        .map_or(0, |ahead| super::super::segment::SegmentHeader::decode(&ahead, 0).unwrap().durable_number);
    let states: Vec<Model> = (0..=script().len()).map(|done| model(&script()[..done])).collect();
    for cut in 0..=end_of(&content) + 1 {
        fs.damage(&path, &content[..cut]);
        let (found, recovered) = match look(&fs) {
            Ok(found) => found,
            Err(error) => {
                assert!(cut < 64, "only a cut header is refused, not {cut}: {error}");
                assert!(matches!(&error, OpenError::SegmentHeader { path: named, .. } if *named == path));
                continue;
            }
        };
        // The first batch is the mark of creation; the others take 4 KiB each.
        let whole = (cut / 4096).saturating_sub(2);
        let next_too = whole < script().len() && used_up(&content, cut, whole + 2);
        let whole = (whole + usize::from(next_too)).min(script().len());
        let batches = if used_up(&content, cut, 1) { whole as u64 + 1 } else { 0 };
        if batches < known_durable {
            // The segment made ahead says that more had been durable. A cut payload still tells whose it was.
            assert!(found.values().any(Option::is_none), "cut at {cut}: {found:?}");
            let next = &states[whole + 1].groups;
            let unharmed = found.iter().filter_map(|(group, state)| Some((group, state.as_ref()?)));
            for (group, state) in unharmed {
                assert_eq!(next.get(group), Some(state), "cut at {cut}");
            }
            continue;
        }
        assert!(matches_model(&found, &states[whole]), "cut at {cut}: not {whole} submissions but {found:?}");
        assert!(recovered.damaged.iter().all(|damage| damage.offset == 2048), "cut at {cut}: {recovered:?}");
    }
}

#[test]
fn no_flipped_bit_in_a_marked_log_loses_anything_silently() {
    let fs = made(true);
    let path = segment_path(1);
    let mut content = fs.content(&path).unwrap();
    let full = model(&script());
    let (mut quarantined, mut unharmed) = (0, 0);
    for bit in bits(&content) {
        content[bit / 8] ^= 1 << (bit % 8);
        fs.damage(&path, &content);
        content[bit / 8] ^= 1 << (bit % 8);
        let (found, recovered) = look(&fs).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        if matches_model(&found, &full) {
            unharmed += 1;
            continue;
        }
        quarantined += 1;
        for (group, state) in &found {
            match state {
                Some(state) => assert_eq!(*state, full.groups[group], "bit {bit}"),
                None => assert!(recovered.damaged.iter().any(|damage| {
                    let block = bit as u64 / 8 / 4096 * 4096;
                    damage.path == path
                        && damage.offset / 4096 * 4096 == block
                        && damage.groups.contains(*group)
                })),
            }
        }
    }
    assert!(quarantined > 1000 && unharmed > 1000, "{quarantined} and {unharmed}");
}

#[test]
fn a_flipped_bit_in_an_unmarked_log_can_only_cost_the_last_batch() {
    let fs = made(false);
    let path = segment_path(1);
    let mut content = fs.content(&path).unwrap();
    let (full, less) = (model(&script()), model(&script()[..script().len() - 1]));
    let last = 4096 * (script().len() + 1);
    let mut torn = 0;
    for bit in bits(&content).into_iter().filter(|bit| bit / 8 >= 4096 * 2) {
        content[bit / 8] ^= 1 << (bit % 8);
        fs.damage(&path, &content);
        content[bit / 8] ^= 1 << (bit % 8);
        let (found, recovered) = look(&fs).unwrap();
        if bit / 8 >= last && !matches_model(&found, &full) {
            assert!(matches_model(&found, &less), "bit {bit}");
            assert_eq!(recovered.torn.unwrap().offset, last as u64);
            torn += 1;
            continue;
        }
        for (group, state) in &found {
            assert!(state.as_ref().is_none_or(|state| *state == full.groups[group]), "bit {bit}");
        }
    }
    assert!(torn > 100, "{torn}");
}

#[test]
fn damage_quarantines_its_group_for_good_and_the_others_work() {
    let fs = made(true);
    let path = segment_path(1);
    let mut content = fs.content(&path).unwrap();
    let at = content.windows(100).position(|window| window == [3; 100]).unwrap();
    content[at + 50] ^= 1;
    fs.damage(&path, &content);
    let mut index = 3;
    for _ in 0..3 {
        let (log, recovered) = open(&fs, small()).unwrap();
        assert_eq!(recovered.damaged.len(), 1);
        let damage = &recovered.damaged[0];
        assert_eq!((damage.offset, &damage.groups), (at as u64, &AffectedGroups::Listed([B].into())));
        assert!(recovered.groups.contains(&B));
        for error in [
            log.group_state(B).unwrap_err(),
            log.read(B, 0..9, 9).unwrap_err(),
            submit(&log, vec![append(A, index + 1, bytes("no")), vote(B, "no")]).unwrap_err(),
        ] {
            assert!(matches!(&error, LogError::Quarantined { group: B, path: named, offset }
                if *named == path && *offset == at as u64));
        }
        for _ in 0..20 {
            index += 1;
            submit_and_wait(&log, vec![append(A, index, vec![1; 3000]), purge(A, index - 1)]).unwrap();
        }
        let LogStatus { recycled_segments, .. } = log.status();
        assert_eq!(recycled_segments, 0, "the evidence stays");
    }
    let (log, _) = open(&fs, small()).unwrap();
    submit_and_wait(&log, vec![Record::Forget { group: B }, vote(B, "new"), append(B, 7, bytes("b7"))])
        .unwrap();
    submit_and_wait(&log, vec![append(A, index + 1, vec![1; 9000]), purge(A, index + 1)]).unwrap();
    submit_and_wait(&log, vec![append(A, index + 2, vec![1; 9000]), purge(A, index + 2)]).unwrap();
    log.close().unwrap();
    let (log, _) = open(&fs, small()).unwrap();
    let state = log.group_state(B).unwrap();
    assert_eq!((state.vote, state.last), (Some(bytes("new")), Some(7)));
    // Without quarantine the segment is given back.
    eventually(|| !fs.paths().contains(&path));
}

#[test]
fn a_forgotten_group_keeps_no_segment_and_begins_with_nothing() {
    for restart in [false, true] {
        let fs = FaultFs::new();
        let (mut log, _) = open(&fs, small()).unwrap();
        submit_and_wait(&log, vec![vote(B, "old"), append(B, 1, vec![1; 3000]), append(B, 2, vec![1; 3000])])
            .unwrap();
        let oldest = segment_path(1);
        let mut index = 0;
        let mut turn_over = |log: &Log| {
            for _ in 0..20 {
                index += 1;
                submit_and_wait(log, vec![append(A, index, vec![1; 3000]), purge(A, index - 1)]).unwrap();
            }
        };
        turn_over(&log);
        assert!(fs.paths().contains(&oldest), "its entries are needed");
        log.forget(B).unwrap();
        log.forget(C).unwrap();
        if restart {
            let fs = fs.lose_power(PowerLoss::LoseAll);
            log = open(&fs, small()).unwrap().0;
            assert_eq!(log.group_state(B).unwrap(), GroupState::default());
            turn_over(&log);
            eventually(|| !fs.paths().contains(&oldest));
        } else {
            turn_over(&log);
            eventually(|| !fs.paths().contains(&oldest));
        }
        assert_eq!(log.group_state(B).unwrap(), GroupState::default());
        submit_and_wait(&log, vec![vote(B, "new"), append(B, 9, bytes("anywhere"))]).unwrap();
        assert_eq!(log.group_state(B).unwrap().last, Some(9));
    }
}

#[test]
fn an_unreadable_batch_quarantines_the_groups_that_the_next_one_names() {
    let fs = made(true);
    let path = segment_path(1);
    let mut content = fs.content(&path).unwrap();
    // The batch of the second submission, which concerns only A.
    content[3 * 4096 + 30] ^= 1;
    fs.damage(&path, &content);
    for _ in 0..3 {
        let (log, recovered) = open(&fs, small()).unwrap();
        assert_eq!(recovered.damaged[0].offset, 3 * 4096);
        assert_eq!(recovered.damaged[0].groups, AffectedGroups::ByMask(1 << A.0));
        assert!(matches!(log.group_state(A), Err(LogError::Quarantined { .. })));
        assert_eq!(log.group_state(B).unwrap().last, Some(2));
        submit_and_wait(&log, vec![vote(B, "goes on")]).unwrap();
    }
    // Whoever begins anew behind it is not concerned any more; others whose number has that bit may be.
    let (log, recovered) = open(&fs, small()).unwrap();
    assert!(recovered.damaged[0].concerns(A) && recovered.damaged[0].concerns(GroupId(A.0 + 64)));
    submit_and_wait(&log, vec![Record::Forget { group: A }]).unwrap();
    log.close().unwrap();
    let (_, recovered) = open(&fs, small()).unwrap();
    assert!(!recovered.damaged[0].concerns(A) && recovered.damaged[0].concerns(GroupId(A.0 + 64)));
    // Who knows that there is no such other gives the segment back.
    for (groups, is_kept) in [(Some(A.0 + 65), true), (Some(A.0 + 64), false)] {
        let (log, _) = open(&fs.duplicate(), LogOptions { groups, ..small() }).unwrap();
        submit_and_wait(&log, vec![append(A, 9, bytes("a9")), purge(A, 9), purge(B, 2)]).unwrap();
        for _ in 0..20 {
            submit_and_wait(
                &log,
                vec![vote(A, "v"), vote(B, "v"), Record::Committed { group: C, data: vec![1; 3000].into() }],
            )
            .unwrap();
        }
        let is_recycled = || log.status().recycled_segments > 0;
        if is_kept {
            assert!(!is_recycled());
        } else {
            eventually(is_recycled);
        }
    }
    // With the batch behind it unreadable too, nobody knows whose records are missing.
    content[4 * 4096 + 30] ^= 1;
    fs.damage(&path, &content);
    let (log, recovered) = open(&fs, small()).unwrap();
    assert_eq!(recovered.damaged[0].groups, AffectedGroups::All);
    assert!(log.group_state(C).is_err(), "not even a group never heard of may vote");
}

#[test]
fn the_only_good_batch_may_be_in_a_later_segment() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, unmarked()).unwrap();
    submit_and_wait(&log, vec![vote(A, "v")]).unwrap();
    for index in 1..12 {
        submit_and_wait(&log, vec![append(A, index, vec![1; 5000]), append(B, index, vec![1; 50])]).unwrap();
    }
    drop(log);
    let path = segment_path(2);
    let mut content = fs.content(&path).unwrap();
    content[4096..].fill(0xff);
    fs.damage(&path, &content);
    for _ in 0..2 {
        let (log, recovered) = open(&fs, unmarked()).unwrap();
        assert_eq!((recovered.torn, recovered.damaged.len()), (None, 1));
        assert_eq!((&recovered.damaged[0].path, recovered.damaged[0].offset), (&path, 4096));
        assert!(log.group_state(A).is_err() && log.group_state(B).is_err());
    }
}

#[test]
fn damage_met_while_reading_quarantines_the_group() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, small()).unwrap();
    for index in 1..5 {
        submit_and_wait(&log, vec![append(A, index, vec![0xEE; 1000]), append(B, index, vec![7; 1000])])
            .unwrap();
    }
    let path = segment_path(1);
    let mut content = fs.content(&path).unwrap();
    let at = content.iter().position(|byte| *byte == 0xEE).unwrap() + 2000 - 1500;
    content[at] ^= 4;
    fs.damage(&path, &content);
    assert!(matches!(log.read(A, 1..3, 1 << 20), Err(LogError::Quarantined { group: A, .. })));
    assert!(matches!(submit(&log, vec![vote(A, "no")]), Err(LogError::Quarantined { .. })));
    assert_eq!(log.read(B, 1..3, 1 << 20).unwrap().len(), 2);
}

#[test]
fn old_batches_in_a_reused_segment_never_count() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, unmarked()).unwrap();
    submit_and_wait(&log, vec![vote(A, "v")]).unwrap();
    let mut index = 0;
    while log.status().recycled_segments < 4 {
        index += 1;
        submit_and_wait(&log, vec![append(A, index, vec![index as u8; 1000]), purge(A, index)]).unwrap();
    }
    // Roll into a reused file, which is full of old batches behind the first new one.
    let segments = log.status().segments;
    while log.status().segments <= segments {
        index += 1;
        submit_and_wait(&log, vec![append(A, index, vec![index as u8; 1000])]).unwrap();
    }
    let before = Model::of(&log).unwrap();
    let killed = fs.kill();
    drop(log);
    let (log, recovered) = open(&killed, unmarked()).unwrap();
    assert_eq!((recovered.damaged, recovered.torn), (vec![], None));
    assert_eq!(Model::of(&log).unwrap(), before);
}
