//! Reads that any replica may answer, on three nodes in three processes of which one is stopped for a while, and of which only
//! one is left.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanfold_client::{Client, UserId};

use crate::cluster::trio;

const OWNER: UserId = UserId(1);
const READER: UserId = UserId(2);

/// How old a read may be.
const MAX: Duration = Duration::from_millis(300);

/// When each post was answered, in their order.
type Answered = Arc<Mutex<Vec<Instant>>>;

async fn post_for(client: Client, answered: Answered, time: Duration) {
    let (posts, until) = (client.space("posts"), Instant::now() + time);
    while Instant::now() < until {
        let made = posts.append(OWNER, "post").deadline(Duration::from_secs(30)).await.unwrap();
        answered.lock().unwrap().push(Instant::now());
        // One's own write is seen at once, wherever it is read.
        let own = posts.timeline(OWNER).limit(1).at_least(&made.token).await.unwrap();
        assert!(own.entries[0].id >= made.id);
    }
}

/// Reads at the replicas of one zone; how many reads came from there in time.
async fn read_for(client: Client, answered: Answered, time: Duration) -> usize {
    let (posts, until) = (client.space("posts"), Instant::now() + time);
    let mut reads = 0;
    while Instant::now() < until {
        let asked = Instant::now();
        let page = posts.timeline(OWNER).limit(1_000).stale_ok(MAX).await.unwrap();
        let answered = answered.lock().unwrap();
        let must_see = answered.iter().filter(|at| **at + MAX <= asked).count().min(1_000);
        assert!(page.entries.len() >= must_see, "{} of {must_see} posts", page.entries.len());
        reads += 1;
    }
    reads
}

#[test]
fn reads_at_replicas_are_never_older_than_allowed_though_one_is_stopped_for_a_while() {
    let [one, two, three] = trio();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let in_zone = |zone: &str| Client::builder(&one.1.address).or(&two.1.address).zone(zone).connect();
        let answered = Answered::default();
        let time = Duration::from_secs(12);
        let writer = in_zone("zone-1").await.unwrap();
        writer.follows().follow(READER, OWNER).await.unwrap();
        let mut readers = Vec::new();
        for zone in ["zone-1", "zone-2", "zone-3"] {
            let client = in_zone(zone).await.unwrap();
            readers.push(tokio::spawn(read_for(client, answered.clone(), time)));
        }
        let posting = tokio::spawn(post_for(writer.clone(), answered.clone(), time));
        // What comes to it meanwhile waits in its sockets, and is old when it goes on.
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            three.1.signal("STOP");
            tokio::time::sleep(Duration::from_secs(2)).await;
            three.1.signal("CONT");
        }
        posting.await.unwrap();
        for reader in readers {
            assert!(reader.await.unwrap() > 10);
        }
        assert!(answered.lock().unwrap().len() > 10);

        // A token holds at every replica, and in feeds.
        let posts = writer.space("posts");
        let last = posts.append(OWNER, "last").await.unwrap();
        for zone in ["zone-1", "zone-2", "zone-3"] {
            let client = in_zone(zone).await.unwrap();
            let page =
                client.space("posts").feed(READER).limit(1).hydrate().at_least(&last.token).await.unwrap();
            assert_eq!(page.entries[0].id, last.id, "{zone}");
            // From here on the node knows how old it is.
            let readers = [OWNER, READER, UserId(3), UserId(4), UserId(5), UserId(6)];
            let pages =
                client.space("posts").feeds(&readers).stale_ok(Duration::from_secs(600)).await.unwrap();
            assert!(pages.iter().all(Result::is_ok));
        }

        // With one node left, the leader cannot answer, and old pages can be had.
        let left = in_zone("zone-1").await.unwrap();
        left.space("posts").feed(READER).stale_ok(Duration::from_secs(600)).await.unwrap();
        two.1.signal("KILL");
        three.1.signal("KILL");
        let posts = left.space("posts");
        let stale = posts.feed(READER).limit(1).stale_ok(Duration::from_secs(600)).await.unwrap();
        assert_eq!(stale.entries[0].id, last.id);
        let strict = posts.feed(READER).limit(1).deadline(Duration::from_secs(4)).await;
        assert!(strict.is_err(), "{strict:?}");
        let young = posts.feed(READER).limit(1).stale_ok(MAX).deadline(Duration::from_secs(4)).await;
        assert!(young.is_err(), "{young:?}");
    });
}
