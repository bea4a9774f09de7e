//! Stops while time passes: segments are dropped and split, expiries change in them, and much is imported.

use fanfold_storage::command::{Append, Command, Limits, Ttl, Write};
use fanfold_storage::entry::{Audience, Entry};
use fanfold_storage::fs::{FaultFs, PowerLoss};
use fanfold_storage::ids::{DAY_MS, EntryId, SlotIndex, Stamp, UserId};
use fanfold_storage::import::{ImportEdge, ImportEntry, Lifetime, Place};

use super::model::{GRAPH, Model};
use super::{Failed, Formation, Kept, Node, OWNER, OWNERS, SPACE, definition, owners};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// What expires in this time lies in one segment, as seen when it is flushed.
const WINDOW_MS: u64 = MINUTE_MS << 11;

/// What lives for [`LIFE_MS`] from here expires soon after a window begins.
const START: Stamp = Stamp(7_000 * WINDOW_MS + 2 * HOUR_MS - LIFE_MS);

/// How long most entries live that are there before anything is stopped.
const LIFE_MS: u64 = 20 * DAY_MS;

/// So much of what expires together is left for a split to make several segments of.
const LARGE_BYTES: usize = 16 << 10;

fn append(owner: UserId, ttl: Ttl, payload: Vec<u8>) -> Append {
    let (author, key, reference) = (None, None, None);
    Append {
        space: SPACE,
        owner,
        author,
        audience: Audience::Public,
        ttl,
        key,
        reference,
        payload: payload.into(),
    }
}

impl Node {
    /// Appends an entry of each of these lives.
    async fn append_all(
        &self,
        model: &mut Model,
        bytes: usize,
        lives: impl Iterator<Item = Ttl>,
    ) -> Result<(), Failed> {
        let salt = model.now.0 as u8;
        let items = owners().cycle().zip(lives).map(|(owner, ttl)| append(owner, ttl, vec![salt; bytes]));
        let items = items.collect();
        self.write_model(model, Write::Append { items }).await
    }

    async fn set_expiry(&self, model: &mut Model, entry: &Entry, ttl: Ttl) -> Result<(), Failed> {
        let (space, owner, id) = (entry.space, entry.owner, entry.id);
        self.write_model(model, Write::SetExpiry { space, owner, id, ttl }).await
    }

    /// Sets, changes and clears expiries of old entries, which lie in segments, and deletes one.
    async fn change_old(&self, model: &mut Model) -> Result<(), Failed> {
        let (expiring, lasting): (Vec<_>, Vec<_>) =
            model.live().into_iter().partition(|entry| entry.expiry.is_some());
        let settled =
            self.group.read(|machine| machine.state_as_is().segments().map(|s| s.info().highest).max());
        assert!(
            expiring.iter().chain(&lasting).all(|entry| Some(entry.id) <= settled),
            "all lie in segments"
        );
        // Those in the middle are large, the first time.
        let middle = expiring.len() / 2;
        self.set_expiry(model, &expiring[0], Ttl::Never).await?;
        self.set_expiry(model, &expiring[1], Ttl::Ms { ttl_ms: 90 * MINUTE_MS }).await?;
        self.set_expiry(model, &expiring[middle], Ttl::Never).await?;
        self.set_expiry(model, &lasting[0], Ttl::Ms { ttl_ms: HOUR_MS }).await?;
        let Entry { space, owner, id, .. } = expiring[middle + 1];
        self.write_model(model, Write::Delete { space, owner, id }).await
    }

    /// Imports entries by their times and by their ids, some of which expire, and edges.
    async fn import(&self, model: &mut Model) -> Result<(), Failed> {
        let then = Stamp(model.now.0 - DAY_MS);
        let entries = owners().flat_map(|owner| {
            let id = EntryId::from_tick(EntryId::first_tick_at(then) + 900, SlotIndex::of(owner));
            [Place::Time { stamp: then }, Place::Id { id }].map(|place| (owner, place))
        });
        let expiry = Stamp(model.now.0 + HOUR_MS);
        let entries = entries.enumerate().map(|(n, (owner, place))| ImportEntry {
            space: SPACE,
            owner,
            author: None,
            audience: Audience::Public,
            place,
            lifetime: if n % 3 == 0 { Lifetime::Until { expiry } } else { Lifetime::Never },
            version: 1 + n as u32,
            key: None,
            reference: None,
            payload: vec![n as u8; 100].into(),
        });
        let entries = entries.collect();
        self.write_model(model, Write::ImportEntries { entries }).await?;
        // Others each time.
        let next = UserId(OWNER.0 + model.now.0 % OWNERS);
        let edges = owners().filter(|reader| *reader != next);
        let edges = edges.map(|reader| ImportEdge { reader, owner: next, since: Some(then) }).collect();
        self.write_model(model, Write::ImportFollows { graph: GRAPH, edges }).await
    }

    /// Everything that time, and what is done to old entries, brings about.
    async fn live_long(&self, model: &mut Model, kept: &mut Kept) -> Result<(), Failed> {
        // Half of what is large has expired: the rest is split.
        self.pass(model, LIFE_MS).await?;
        self.keep(kept).await?;
        let lives = (0..8).map(|n| if n % 2 == 0 { Ttl::Never } else { Ttl::Ms { ttl_ms: 2 * LIFE_MS } });
        self.append_all(model, 100, lives).await?;
        self.keep(kept).await?;
        self.change_old(model).await?;
        self.import(model).await?;
        self.keep(kept).await?;
        self.snapshot().await?;
        // All that is short has expired: it is dropped.
        self.pass(model, 45 * MINUTE_MS).await?;
        self.keep(kept).await?;
        self.snapshot().await?;
        // So has what was set to expire.
        self.pass(model, HOUR_MS).await?;
        self.keep(kept).await?;
        self.snapshot().await
    }
}

/// A disk with segments that are soon to be split and dropped, two snapshots that name them, and a purged log.
async fn prepared() -> (FaultFs, Model) {
    let node = Node::open(FaultFs::new(), Formation::New).await.unwrap();
    let limits = Limits { session_life_ms: u64::MAX / 2, ..Limits::default() };
    for command in [
        Command::Configure { limits },
        Command::DefineSpace { definition: definition() },
        Command::OpenSession,
    ] {
        assert!(node.apply(START.0, &command).await.is_ok());
    }
    let (mut model, mut kept) = (Model::new(START), Kept::default());
    let of = |ttl_ms: u64| Ttl::Ms { ttl_ms };
    let lasting = || (0..6).map(|_| Ttl::Never);
    assert!(node.append_all(&mut model, 100, lasting()).await.is_ok() && node.keep(&mut kept).await.is_ok());
    assert!(node.snapshot().await.is_ok());
    let short = (0..10).map(|n| of(LIFE_MS + 30 * MINUTE_MS + n));
    assert!(node.append_all(&mut model, 100, short).await.is_ok() && node.keep(&mut kept).await.is_ok());
    for part in 0..8 {
        // Half expire together, the others from an hour later on, one after the other. Three are as much as the log takes at once.
        let large = (3 * part..3 * part + 3)
            .map(|n| if n % 2 == 0 { LIFE_MS - HOUR_MS } else { LIFE_MS + HOUR_MS + n * 20 * MINUTE_MS });
        assert!(node.append_all(&mut model, LARGE_BYTES, large.map(of)).await.is_ok());
    }
    assert!(node.keep(&mut kept).await.is_ok());
    for _ in 0..2 {
        assert!(node.snapshot().await.is_ok());
    }
    assert_eq!((kept.dropped, kept.splits), (0, 0));
    (node.disk.duplicate(), model)
}

/// Starts what is left, checks it, goes on until the log was purged anew, and starts it once more.
async fn goes_on(disk: FaultFs, model: &mut Model, what: &str) {
    let node = Node::open(disk, Formation::Existing).await.expect(what);
    node.check_model(model, what).await;
    let first = node.first_of_log();
    assert!(node.live_long(model, &mut Kept::default()).await.is_ok(), "{what}");
    node.purged_behind(first).await;
    node.check_model(model, &format!("{what}, went on")).await;
    assert!(!node.kinds().contains("new"), "{what}: {:?}", node.disk.paths());
    let disk = node.disk.lose_power(PowerLoss::LoseAll);
    drop(node);
    let node = Node::open(disk, Formation::Existing).await.expect(what);
    node.check_model(model, &format!("{what}, once more")).await;
}

#[tokio::test]
async fn a_loss_of_power_while_time_passes_brings_nothing_back_and_loses_nothing() {
    let (begun, model) = prepared().await;
    let node = Node::open(begun.duplicate(), Formation::Existing).await.unwrap();
    let (before, mut all, mut kept) = (node.disk.operations(), model.clone(), Kept::default());
    assert!(node.live_long(&mut all, &mut kept).await.is_ok());
    let operations = node.disk.operations() - before;
    node.check_model(&mut all, "never stopped").await;
    drop(node);
    assert!(kept.dropped > 0 && kept.splits > 0, "{kept:?}");
    assert!(operations > 80, "{operations}");
    let mut stopped = 0;
    for stop in 0..operations + 4 {
        // One of the losses at each operation: the next one has another.
        let loss = [PowerLoss::LoseAll, PowerLoss::KeepAll, PowerLoss::Random(stop)][stop as usize % 3];
        let what = format!("stopped after {stop} operations, {loss:?}");
        let mut model = model.clone();
        let node = Node::open(begun.duplicate(), Formation::Existing).await.expect(&what);
        node.disk.stop_after(stop);
        stopped += u32::from(node.live_long(&mut model, &mut Kept::default()).await.is_err());
        let disk = node.disk.lose_power(loss);
        drop(node);
        goes_on(disk, &mut model, &what).await;
    }
    assert!(stopped > 80, "{stopped}");
}
