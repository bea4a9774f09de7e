//! Owns the identity of a node: which node of which cluster a data directory belongs to.
//!
//! - It stands in a sled database; sled is beta, so the catalog's log says the same and wins: an unreadable identity
//!   is set aside and rebuilt from it.
//! - The database is open only while it is read or written.
//! - A directory is made in an order in which a stop at any point leaves it empty, or to be finished by the next start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fanfold_storage::codec::{Encoded, Reader, put_u64};
use fanfold_storage::fs::{FileSystem, RealFs};
use parking_lot::Mutex;

use crate::backup::RESTORE_FILE;
use crate::catalog::CatalogState;
use crate::error::OpenError;
use crate::lock::LOCK_FILE;

/// The version of the data directory's format.
pub const FORMAT_VERSION: u64 = 1;

/// The folder of the identity database.
pub(crate) const IDENTITY_DIR: &str = "identity";

/// Where an unreadable identity database is moved.
const DAMAGED_DIR: &str = "identity.damaged";

/// The folder of the write-ahead log.
pub(crate) const LOG_DIR: &str = "log";

/// The key of the identity.
const KEY: &[u8] = b"identity";

/// The key of the last known state of the catalog.
const CATALOG_KEY: &[u8] = b"catalog";

/// The key of the replicas that this node has.
const REPLICAS_KEY: &[u8] = b"replicas";

/// Room on the disk with which the database is opened.
const ROOM_BYTES: u64 = 4 << 20;

/// How long the lock of the database is waited for. Whoever has the directory has its own lock already, so nobody else uses it.
const UNLOCK_WAIT: Duration = Duration::from_secs(5);

/// Between two attempts.
const UNLOCK_RETRY: Duration = Duration::from_millis(10);

/// The most bytes sled may cache: the content is one small value.
const CACHE_BYTES: u64 = 64 << 10;

/// Which node of which cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, drawn at random when it is made.
    pub cluster_id: u128,
    /// The node.
    pub node_id: u64,
}

/// What the identity database of a data directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredIdentity {
    /// Which node of which cluster.
    pub identity: Identity,
    /// The number of partitions.
    pub partitions: u16,
    /// Whether all groups were formed, or the cluster has answered; before, nothing was answered yet and the first start
    /// goes on.
    pub founded: bool,
    /// This directory, drawn at random when it is made; 0 if it was made before directories had ids.
    pub directory_id: u128,
}

/// What a node that runs has written to its identity database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub identity: Identity,
    pub replicas: BTreeMap<u32, u64>,
    /// The epoch of the catalog that is there, at least; 0 if none needs to be.
    pub epoch: u64,
}

/// Whether the directory belongs to a cluster: one that was founded or joined to its end. One whose identity cannot be
/// read counts as such; opening it says what is wrong.
pub fn is_settled(data_dir: &Path) -> bool {
    let dir = DataDir::at(data_dir);
    let has_begun = dir.has_identity() || dir.has(LOG_DIR);
    has_begun && !matches!(dir.peek(), Ok(Some(stored)) if !stored.founded)
}

/// The cluster that the directory belongs to, if it does and says so.
pub fn cluster_of(data_dir: &Path) -> Option<u128> {
    let stored = DataDir::at(data_dir).peek().ok().flatten();
    stored.filter(|stored| stored.founded).map(|stored| stored.identity.cluster_id)
}

/// A data directory, locked or not.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Where the database is opened: that of the directory, or a copy, since opening it writes.
    opened: PathBuf,
    /// Held while the database is open: it can be opened once at a time.
    database: Mutex<()>,
}

impl DataDir {
    /// Makes the directory if there is none; refuses one that holds something else.
    pub fn prepare(path: &Path) -> Result<Self, OpenError> {
        let dir = Self::at(path);
        fs::create_dir_all(path).map_err(dir.failed(path))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        dir.sync(parent.unwrap_or(Path::new(".")))?;
        if !dir.has(IDENTITY_DIR) && !dir.has(LOG_DIR) {
            for item in fs::read_dir(path).map_err(dir.failed(path))? {
                let name = item.map_err(dir.failed(path))?.file_name();
                if ![LOCK_FILE, DAMAGED_DIR, RESTORE_FILE].iter().any(|ours| name == *ours) {
                    let (data_dir, foreign) = (path.to_owned(), name.into());
                    return Err(OpenError::NotADataDirectory { data_dir, foreign });
                }
            }
        }
        Ok(dir)
    }

    /// The directory at `path`, as it is.
    pub fn at(path: &Path) -> Self {
        Self::looked_at(path, path.join(IDENTITY_DIR))
    }

    /// The directory at `path` with a copy of its database, for those who only look.
    pub fn looked_at(path: &Path, opened: PathBuf) -> Self {
        Self { path: path.to_owned(), opened, database: Mutex::default() }
    }

    /// The identity, if there is a readable one; nothing is made or moved.
    pub fn peek(&self) -> Result<Option<StoredIdentity>, OpenError> {
        if !self.has(IDENTITY_DIR) {
            return Ok(None);
        }
        let _held = self.database.lock();
        match self.open().and_then(|db| db.get(KEY)) {
            Ok(Some(bytes)) => self.decode(&bytes),
            _ => Ok(None),
        }
    }

    /// What of the database is not as it was written, by the checksums of its values, and by what the node knows if it runs.
    /// Nothing is said of a disk without room, since the database would write to it.
    pub fn check(&self, known: Option<&Known>) -> Vec<&'static str> {
        /// What becomes of it.
        const LOST: &str = "the identity cannot be read: the next start of a node that is alone rebuilds it from the log, \
             one of several has to be replaced (`fanfold node replace`)";
        if !self.has(IDENTITY_DIR) || !self.has_room() {
            return if known.is_some() && !self.has(IDENTITY_DIR) { vec![LOST] } else { Vec::new() };
        }
        let _held = self.database.lock();
        let Ok(db) = self.open() else { return vec![LOST] };
        let mut wrong = Vec::new();
        let identity = db.get(KEY).ok().flatten().and_then(|bytes| self.decode(&bytes).ok().flatten());
        if identity.is_none()
            || known.is_some_and(|known| identity.map(|i| i.identity) != Some(known.identity))
        {
            wrong.push(LOST);
        }
        let replicas = db.get(REPLICAS_KEY);
        let is_right = match &replicas {
            Ok(Some(bytes)) => whole::<BTreeMap<u32, u64>>(bytes)
                .is_some_and(|replicas| known.is_none_or(|known| known.replicas == replicas)),
            // It was not there at first.
            Ok(None) => known.is_none(),
            Err(_) => false,
        };
        if !is_right {
            wrong.push("the list of this node's replicas is not as it was written");
        }
        let is_right = match db.get(CATALOG_KEY) {
            Ok(Some(bytes)) => whole::<CatalogState>(&bytes)
                .is_some_and(|state| known.is_none_or(|known| state.epoch >= known.epoch)),
            Ok(None) => known.is_none_or(|known| known.epoch == 0),
            Err(_) => false,
        };
        if !is_right {
            wrong.push("the last known state of the catalog is not as it was written");
        }
        wrong
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the identity database is.
    pub fn identity(&self) -> PathBuf {
        self.path.join(IDENTITY_DIR)
    }

    /// Whether there is an identity database.
    pub fn has_identity(&self) -> bool {
        self.has(IDENTITY_DIR)
    }

    /// Where the write-ahead log is.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG_DIR)
    }

    /// Whether there is a write-ahead log: its folder with a segment in it.
    pub fn has_log(&self, fs: &dyn FileSystem) -> bool {
        let is_segment =
            |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "log");
        fs.list(&self.log()).is_ok_and(|names| names.iter().any(is_segment))
    }

    /// Whether the disk has room for the database to be opened: it writes then, and what does not fit damages it.
    pub fn has_room(&self) -> bool {
        RealFs.free_bytes(self.opened.parent().unwrap_or(&self.path)).is_ok_and(|bytes| bytes >= ROOM_BYTES)
    }

    /// The identity, if there is one. An unreadable one is moved aside, to be rebuilt.
    pub fn load(&self) -> Result<Option<StoredIdentity>, OpenError> {
        if !self.has(IDENTITY_DIR) {
            return Ok(None);
        }
        let _held = self.database.lock();
        let found = self.open().and_then(|db| db.get(KEY));
        let stored = match &found {
            Ok(Some(bytes)) => self.decode(bytes)?,
            // Made, and stopped before anything was written.
            Ok(None) => return Ok(None),
            Err(_) => None,
        };
        if stored.is_none() {
            self.set_aside(found.err().as_ref())?;
        }
        Ok(stored)
    }

    /// Writes the identity and waits until it is durable.
    pub fn store(&self, stored: &StoredIdentity) -> Result<(), OpenError> {
        self.put(KEY, encode(stored))
    }

    /// The last known state of the catalog, if there is a whole one.
    pub fn load_catalog(&self) -> Option<CatalogState> {
        self.get_whole(CATALOG_KEY)
    }

    /// Writes the last known state of the catalog.
    pub fn store_catalog(&self, state: &CatalogState) -> Result<(), OpenError> {
        self.put(CATALOG_KEY, with_checksum(state))
    }

    /// The replicas that this node has, by group; none if that was never written.
    pub fn load_replicas(&self) -> Option<BTreeMap<u32, u64>> {
        self.get_whole(REPLICAS_KEY)
    }

    /// Writes which replicas this node has.
    pub fn store_replicas(&self, replicas: &BTreeMap<u32, u64>) -> Result<(), OpenError> {
        self.put(REPLICAS_KEY, with_checksum(replicas))
    }

    fn get_whole<T: Encoded>(&self, key: &[u8]) -> Option<T> {
        if !self.has(IDENTITY_DIR) || !self.has_room() {
            return None;
        }
        let _held = self.database.lock();
        whole(&self.open().and_then(|db| db.get(key)).ok()??)
    }

    fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), OpenError> {
        let failed =
            |error| OpenError::Identity { path: self.path.join(IDENTITY_DIR), source: Box::new(error) };
        if !self.has_room() {
            let (path, source) = (self.path.join(IDENTITY_DIR), std::io::ErrorKind::StorageFull.into());
            return Err(OpenError::Io { path, source });
        }
        let _held = self.database.lock();
        let db = self.open().map_err(failed)?;
        db.insert(key, value).map_err(failed)?;
        db.flush().map_err(failed)?;
        drop(db);
        self.sync(&self.path.join(IDENTITY_DIR))?;
        self.sync(&self.path)
    }

    /// Opens the database. sled gives its lock back some time after the last handle is dropped, so that is waited for.
    fn open(&self) -> sled::Result<sled::Db> {
        let config = sled::Config::new().path(&self.opened).cache_capacity(CACHE_BYTES);
        let config = config.flush_every_ms(None);
        let give_up = Instant::now() + UNLOCK_WAIT;
        loop {
            match config.open() {
                // sled puts the error of the lock into one of its own, of which only the text is left.
                Err(sled::Error::Io(error))
                    if error.to_string().contains("could not acquire lock") && Instant::now() < give_up =>
                {
                    std::thread::sleep(UNLOCK_RETRY);
                }
                opened => return opened,
            }
        }
    }

    /// The value, or none if it is not what it should be. Another version of the format is refused, never rebuilt.
    fn decode(&self, bytes: &[u8]) -> Result<Option<StoredIdentity>, OpenError> {
        let Some((body, checksum)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Ok(None);
        }
        let mut from = Reader::new(body);
        let Ok(found) = from.u64() else { return Ok(None) };
        if found != FORMAT_VERSION {
            let (data_dir, supported) = (self.path.clone(), FORMAT_VERSION);
            return Err(OpenError::FormatVersion { data_dir, found, supported });
        }
        let mut read = || {
            let identity = Identity { cluster_id: from.u128()?, node_id: from.u64()? };
            let (partitions, founded) = (from.u16()?, from.flag()?);
            // It was not there at first.
            let directory_id = if from.left() > 0 { from.u128()? } else { 0 };
            from.end().map(|()| StoredIdentity { identity, partitions, founded, directory_id })
        };
        Ok(read().ok())
    }

    fn set_aside(&self, reason: Option<&sled::Error>) -> Result<(), OpenError> {
        let (from, to) = (self.path.join(IDENTITY_DIR), self.path.join(DAMAGED_DIR));
        tracing::warn!(?reason, moved_to = ?to, "the identity database is unreadable; it is rebuilt from the log");
        if to.is_dir() {
            fs::remove_dir_all(&to).map_err(self.failed(&to))?;
        }
        fs::rename(&from, &to).map_err(self.failed(&from))?;
        self.sync(&self.path)
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    fn sync(&self, dir: &Path) -> Result<(), OpenError> {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(self.failed(dir))
    }

    #[expect(clippy::unused_self, reason = "reads better at the call")]
    fn failed(&self, path: &Path) -> impl Fn(std::io::Error) -> OpenError + use<> {
        let path = path.to_owned();
        move |source| OpenError::Io { path: path.clone(), source }
    }
}

fn with_checksum(value: &impl Encoded) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The value, if it is as it was written.
fn whole<T: Encoded>(bytes: &[u8]) -> Option<T> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut from = Reader::new(body);
    let value = T::decode(&mut from).ok()?;
    from.end().ok().map(|()| value)
}

fn encode(stored: &StoredIdentity) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, FORMAT_VERSION);
    out.extend_from_slice(&stored.identity.cluster_id.to_le_bytes());
    put_u64(&mut out, stored.identity.node_id);
    stored.partitions.encode(&mut out);
    stored.founded.encode(&mut out);
    stored.directory_id.encode(&mut out);
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{golden, golden_of_before};

    const STORED: StoredIdentity = StoredIdentity {
        identity: Identity { cluster_id: u128::MAX / 3, node_id: 1 },
        partitions: 16,
        founded: true,
        directory_id: 9,
    };

    #[test]
    fn an_identity_is_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("new/data")).unwrap();
        assert_eq!(dir.load().unwrap(), None);
        dir.store(&STORED).unwrap();
        assert_eq!(DataDir::prepare(dir.path()).unwrap().load().unwrap(), Some(STORED));
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "x").unwrap();
        let refused = DataDir::prepare(temp.path()).unwrap_err();
        assert!(
            matches!(&refused, OpenError::NotADataDirectory { foreign, .. } if foreign.ends_with("thesis.txt"))
        );
        assert!(temp.path().join("thesis.txt").exists());
    }

    #[test]
    fn every_flipped_bit_of_the_value_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(temp.path()).unwrap();
        let bytes = encode(&STORED);
        assert_eq!(dir.decode(&bytes).unwrap(), Some(STORED));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(dir.decode(&bytes).unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn the_golden_values_are_read_and_written_again_as_they_are() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(temp.path()).unwrap();
        assert_eq!(dir.decode(&golden("identity", &encode(&STORED))).unwrap(), Some(STORED));
        // Before directories had ids.
        let before = golden_of_before("identity_1", || {
            let mut bytes = encode(&STORED);
            bytes.truncate(bytes.len() - 4 - 16);
            let checksum = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            bytes
        });
        assert_eq!(dir.decode(&before).unwrap(), Some(StoredIdentity { directory_id: 0, ..STORED }));
        let replicas = BTreeMap::from([(0_u32, 1_u64), (3, 700)]);
        assert_eq!(whole(&golden("identity_replicas", &with_checksum(&replicas))), Some(replicas));
        let catalog = CatalogState { epoch: 7, ..CatalogState::default() };
        assert_eq!(whole(&golden("identity_catalog", &with_checksum(&catalog))), Some(catalog));
    }

    #[test]
    fn another_format_version_is_refused_and_kept() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(temp.path()).unwrap();
        let mut bytes = encode(&STORED);
        bytes.truncate(bytes.len() - 4);
        bytes[0] = FORMAT_VERSION as u8 + 1;
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let db = dir.open().unwrap();
        db.insert(KEY, bytes).unwrap();
        db.flush().unwrap();
        drop(db);
        assert!(matches!(dir.load().unwrap_err(), OpenError::FormatVersion { found: 2, supported: 1, .. }));
        assert!(dir.has(IDENTITY_DIR));
    }

    #[test]
    fn an_unreadable_database_is_set_aside() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(temp.path()).unwrap();
        fs::write(temp.path().join(IDENTITY_DIR), "not a directory").unwrap();
        assert_eq!(dir.load().unwrap(), None);
        assert!(temp.path().join(DAMAGED_DIR).exists());
        dir.store(&STORED).unwrap();
        assert_eq!(dir.load().unwrap(), Some(STORED));
    }
}
