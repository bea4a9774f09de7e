//! Owns the imports into the system under test, and what is expected of them.

use std::collections::HashMap;

use fanfold_storage::import::{ImportEdge, ImportEntry, Lifetime, Place};

use super::*;

#[derive(Clone, Debug)]
pub enum ImportPlace {
    /// So many milliseconds before now.
    Ago(i64),
    /// A moment before everything began.
    Start,
    /// Under the id of an entry that was made before.
    IdOf(u8),
}

#[derive(Clone, Debug)]
pub struct ImportItem {
    pub space: usize,
    pub owner: u64,
    pub audience: Audience,
    pub place: ImportPlace,
    pub key: Option<u8>,
    pub expiry_in_ms: Option<i64>,
}

/// What was imported.
#[derive(Default)]
pub struct Imports {
    pub entries: HashSet<EntryId>,
    pub since: HashMap<(UserId, UserId), Stamp>,
    /// With the time they were made.
    keys: HashMap<(SpaceId, UserId, bytes::Bytes), (EntryId, ImportEntry, Stamp)>,
}

fn before(now: Stamp, ms: i64) -> Stamp {
    Stamp(now.0.checked_add_signed(-ms).unwrap())
}

impl System {
    fn at_home_with(&self, one: UserId, other: u64) -> bool {
        let home = |user| PartitionId::of_user(user, self.nodes.len() as u16);
        home(one) == home(UserId(other))
    }

    pub fn import_follows(&mut self, reader: UserId, edges: &[(u64, u64, i64)]) {
        let edges = edges.iter().filter(|(other, ..)| self.at_home_with(reader, *other));
        let edges: Vec<ImportEdge> = edges
            .map(|(reader, owner, age_ms)| ImportEdge {
                reader: UserId(*reader),
                owner: UserId(*owner),
                since: (age_ms % 5 != 0).then_some(before(self.now, *age_ms)),
            })
            .collect();
        let write = Write::ImportFollows { graph: GRAPH, edges: edges.clone() };
        let Ok(WriteResult::FollowsImported { changed, refused }) = self.write(reader, write) else {
            panic!("an import was refused");
        };
        let mut new = 0;
        for (n, edge) in edges.into_iter().enumerate() {
            let (reader, owner, now) = (edge.reader, edge.owner, self.now);
            let since = edge.since.unwrap_or(now);
            match refused.iter().find(|(place, _)| *place == n as u32) {
                Some((_, Refusal::TimeAhead { .. })) => assert!(since > now),
                Some((_, refusal)) => assert!(matches!(refusal, Refusal::Blocked { .. }), "{refusal:?}"),
                None => {
                    assert!(since <= now);
                    if owner != reader && !self.oracle.follows(GRAPH, reader, owner) {
                        new += 1;
                        self.oracle.follow(GRAPH, reader, owner);
                        self.imports.since.insert((reader, owner), since);
                    }
                }
            }
        }
        assert_eq!(changed, new);
    }

    pub fn import_entries(&mut self, owner: UserId, items: &[ImportItem]) {
        let items: Vec<&ImportItem> = items.iter().filter(|i| self.at_home_with(owner, i.owner)).collect();
        let entries = items.into_iter().enumerate().filter_map(|(n, item)| self.import_entry(n, item));
        let entries: Vec<ImportEntry> = entries.collect();
        let write = Write::ImportEntries { entries: entries.clone() };
        let Ok(WriteResult::Appended { items }) = self.write(owner, write) else {
            panic!("an import was refused");
        };
        self.oracle.set_now(self.now);
        assert_eq!(items.len(), entries.len());
        let mut last: HashMap<(SpaceId, UserId, Stamp), EntryId> = HashMap::new();
        for (entry, item) in entries.into_iter().zip(items) {
            self.take_imported(&entry, &item);
            if let (Place::Time { stamp }, AppendResult::Made { id, duplicate: false }) = (entry.place, item)
            {
                assert!(id >= EntryId::first_at(stamp) && id.time().0 <= stamp.0 + 1);
                let before = last.insert((entry.space, entry.owner, stamp), id);
                assert!(before.is_none_or(|before| before < id), "the order of an import is kept");
            }
        }
    }

    fn import_entry(&self, n: usize, item: &ImportItem) -> Option<ImportEntry> {
        let place = match item.place {
            ImportPlace::Ago(ms) => Place::Time { stamp: before(self.now, ms) },
            ImportPlace::Start => Place::Time { stamp: before(START, 1) },
            ImportPlace::IdOf(pick) => Place::Id { id: self.picked(pick)?.0 },
        };
        Some(ImportEntry {
            space: SPACES[item.space],
            owner: UserId(item.owner),
            author: None,
            audience: item.audience,
            place,
            lifetime: match item.expiry_in_ms {
                Some(ms) => Lifetime::Until { expiry: before(self.now, -ms) },
                None => Lifetime::SpaceDefault,
            },
            version: 1 + n as u32,
            key: item.key.map(|key| bytes::Bytes::from(vec![key + 1])),
            reference: None,
            payload: bytes::Bytes::from(format!("imported {}", self.made.len())),
        })
    }

    fn take_imported(&mut self, entry: &ImportEntry, result: &AppendResult) {
        let now = self.now;
        let expiry = if let Lifetime::Until { expiry } = entry.lifetime { Some(expiry) } else { None };
        let keyed = entry.key.as_ref().map(|key| (entry.space, entry.owner, key.clone()));
        let known = keyed.as_ref().and_then(|key| self.imports.keys.get(key));
        let known = known.filter(|(.., made)| made.0 + KEY_WINDOW_MS > now.0);
        let is_own =
            |id| self.oracle.entry(id).is_some_and(|e| (e.space, e.owner) == (entry.space, entry.owner));
        let id = match *result {
            AppendResult::Made { id, duplicate: true } => {
                let by_key = known.is_some_and(|(made, same, _)| *made == id && same == entry);
                assert!(by_key || (entry.place == Place::Id { id } && is_own(id)));
                return;
            }
            AppendResult::Made { id, .. } => id,
            AppendResult::Refused { refusal } => {
                match (refusal, entry.place) {
                    (Refusal::TimeAhead { .. }, place) => assert!(place.time() > now),
                    (Refusal::ExpiredAlready { .. }, _) => {
                        assert!(expiry.is_some_and(|expiry| expiry <= now));
                    }
                    (Refusal::KeyConflict { existing }, _) => {
                        assert!(known.is_some_and(|(made, other, _)| *made == existing && other != entry));
                    }
                    // What has expired keeps its id until it is swept.
                    (Refusal::IdTaken, Place::Id { id }) => assert!(!is_own(id)),
                    (Refusal::NotTheOwner, Place::Id { id }) => {
                        assert_ne!(id.slot(), fanfold_storage::ids::SlotIndex::of(entry.owner));
                    }
                    other => panic!("{other:?}"),
                }
                return;
            }
        };
        assert!(known.is_none() && self.oracle.entry(id).is_none(), "an id is given out once");
        assert!(entry.place.time() <= now && expiry.is_none_or(|expiry| expiry > now));
        if let Some(key) = keyed {
            self.imports.keys.insert(key, (id, entry.clone(), now));
        }
        self.imports.entries.insert(id);
        match self.made.iter_mut().find(|(made, ..)| *made == id) {
            // Its id was free again; whether that is news is nobody's business.
            Some(made) => {
                *made = (id, entry.space, entry.owner);
                self.touched.insert(id);
            }
            None => self.made.push((id, entry.space, entry.owner)),
        }
        // One that has expired may be in the model still.
        self.oracle.delete(id);
        self.oracle.append(Entry {
            id,
            space: entry.space,
            owner: entry.owner,
            author: entry.owner,
            audience: entry.audience,
            version: entry.version,
            expiry,
            reference: None,
            payload: entry.payload.clone(),
        });
    }
}
