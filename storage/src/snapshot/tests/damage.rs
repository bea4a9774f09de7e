//! Owns the damage tests: two small snapshots with every bit flipped, and cut at every byte.

use super::*;

/// Opens, loads and verifies the newest snapshot; the first thing that is found.
fn look(fs: &FaultFs, newest: u64) -> (SnapshotStore, Result<State, SnapshotError>) {
    let (store, found) = open(fs);
    let first = found.into_iter().next().unwrap();
    assert_eq!(first.number, newest);
    let looked = first.manifest.and_then(|manifest| {
        let loaded = load(&store, &manifest)?;
        verify(&store, &manifest)?;
        Ok(loaded)
    });
    (store, looked)
}

/// The files that are found damaged by whoever only looks; at least one.
fn found_by_looking(fs: &FaultFs) -> Vec<PathBuf> {
    let operations = fs.operations();
    let (store, manifests) = SnapshotStore::look(Arc::new(fs.clone()), Path::new(DIR), GROUP).unwrap();
    let mut places = Vec::new();
    let mut found = |error: SnapshotError| places.extend(error.place().map(|(path, _)| path.to_path_buf()));
    for manifest in manifests {
        match manifest.manifest {
            Ok(manifest) => {
                manifest.names().for_each(|name| store.check_file(&manifest, &name, &no_pace, &mut found));
            }
            Err(error) => found(error),
        }
    }
    assert!(!places.is_empty() && fs.operations() == operations);
    places
}

/// Damages a file of the newest snapshot and checks that it is found, in the right file, that what is whole is
/// still offered, and that nothing is removed before there are two new ones.
fn check(name: &str, content: &[u8], what: &str) {
    let (fs, first, second) = two();
    let newest = open_whole(&fs).newest().unwrap();
    assert!(fs.damage(&path(name), content));
    let before = names(&fs);
    assert!(found_by_looking(&fs).iter().all(|place| *place == path(name)), "{what}");
    let (store, looked) = look(&fs, newest.number);
    let error = looked.expect_err(what);
    assert_eq!(error.place().expect(what).0, path(name), "{what}: {error}");
    assert!(error.is_damage() && !error.is_full());

    let is_shared = store.newest().is_none_or(|offered| verify(&store, &offered).is_err());
    let offered = store.newest();
    if let Some(offered) = &offered {
        assert_eq!(load(&store, offered).unwrap(), first, "{what}");
    }
    assert_eq!(is_shared, offered.is_none());
    assert_eq!(store.prune(NOTHING).unwrap(), 0);
    assert_eq!(names(&fs), before, "{what}");

    // Built on what is whole, two snapshots later everything is in order.
    let built = offered.as_ref().map(|offered| (&**offered, &first));
    let mended = State { segments: Vec::new(), ..second };
    let third = take(&store, built, &mended).unwrap();
    assert_eq!(store.prune(NOTHING).unwrap(), 0, "{what}: one new one is not enough");
    take(&store, Some((&third, &mended)), &mended).unwrap();
    assert!(store.prune(NOTHING).unwrap() > 0);
    let store = open_whole(&fs);
    assert_eq!(load(&store, &store.newest().unwrap()).unwrap(), mended, "{what}");
    verify(&store, &store.previous().unwrap()).unwrap();
}

fn files_of_the_newest() -> Vec<(String, Vec<u8>)> {
    let (fs, ..) = two();
    let newest = open_whole(&fs).newest().unwrap();
    newest.names().map(|name| (name.clone(), fs.content(&path(&name)).unwrap())).collect()
}

#[test]
fn every_flipped_bit_is_found() {
    for (name, mut content) in files_of_the_newest() {
        for bit in 0..content.len() * 8 {
            content[bit / 8] ^= 1 << (bit % 8);
            check(&name, &content, &format!("{name}, bit {bit}"));
            content[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_cut_at_any_byte_and_a_byte_too_many_are_found() {
    for (name, mut content) in files_of_the_newest() {
        for cut in 0..content.len() {
            check(&name, &content[..cut], &format!("{name}, cut at {cut}"));
        }
        content.push(0);
        check(&name, &content, &format!("{name}, too long"));
    }
}

#[test]
fn a_missing_file_is_reported_by_name_and_nothing_is_removed() {
    for (name, _) in files_of_the_newest().into_iter().skip(1) {
        let (fs, ..) = two();
        fs.remove(&path(&name)).unwrap();
        let before = names(&fs);
        let (store, found) = open(&fs);
        let error = found.into_iter().next().unwrap().manifest.unwrap_err();
        assert!(
            matches!(&error, SnapshotError::Missing { path: missing } if *missing == path(&name)),
            "{error}"
        );
        assert_eq!(store.prune(NOTHING).unwrap(), 0);
        assert_eq!(names(&fs), before);
        assert!(store.take_number() > 6, "the number of a missing file is not used again");
    }
}

#[test]
fn a_file_of_another_group_or_with_another_number_is_not_taken() {
    let (fs, ..) = two();
    let manifest = fs.content(&path("0000000000000006.manifest")).unwrap();
    let (store, _) = open(&fs);
    let file = fs.create(&path("0000000000000008.manifest")).unwrap();
    file.write_at(0, &manifest).unwrap();
    let (_, found) = open(&fs);
    assert!(matches!(found[0].manifest, Err(SnapshotError::Foreign { .. })), "{found:?}");
    assert!(found[1].manifest.is_ok());
    drop(store);
    let other = SnapshotStore::open(Arc::new(fs.clone()), Path::new(DIR), GroupId(8)).unwrap();
    assert!(other.1.iter().all(|found| matches!(found.manifest, Err(SnapshotError::Foreign { .. }))));
}

#[test]
fn damage_found_while_a_snapshot_builds_on_it_fails_that_snapshot() {
    let (fs, _, second) = two();
    let store = open_whole(&fs);
    let base = store.newest().unwrap();
    let mut writer = store.begin(Some(&base));
    writer.keep(1, 0);
    let mut content = fs.content(&path("0000000000000002.buckets")).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs.damage(&path("0000000000000002.buckets"), &content);
    let error = verify(&store, &base).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { offset: 27, .. }), "{error}");
    let error = writer.finish(30, Vec::new(), &no_pace).unwrap_err();
    assert!(matches!(error, SnapshotError::DamagedBase { number: 6 }), "{error}");
    assert!(store.newest().is_none());
    assert!(store.begin(Some(&base)).must_write(1, 0), "a damaged base is none");
    take(&store, Some((&base, &second)), &State { index: 30, ..second.clone() }).unwrap();
    assert_eq!(load(&store, &store.newest().unwrap()).unwrap().buckets, second.buckets);
}
