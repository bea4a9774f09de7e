//! The client of Fanfold, a timeline server: one call posts, one call reads a merged feed.
//!
//! ```
//! use std::time::Duration;
//!
//! use fanfold_client::{Audience, Client, UserId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = "127.0.0.1:7117";
//! # let node = fanfold_server::TestNode::start().await?;
//! # let address = node.address();
//! let client = Client::connect(address).await?;
//! let (posts, stories) = (client.space("posts"), client.space("stories"));
//! let (ada, ben) = (UserId(7), UserId(9));
//!
//! client.follows().follow(ben, ada).await?;
//! let hello = posts.append(ada, "hello").key("request-1").await?;
//! stories.append(ada, "for an hour").ttl(Duration::from_secs(3_600)).audience(Audience::Followers).await?;
//!
//! // Ben's feed shows the post, at the latest when its delivery is done.
//! client.wait_delivered(&hello.token).await?;
//! let page = posts.feed(ben).limit(20).hydrate().await?;
//! assert_eq!(page.entries[0].id, hello.id);
//! # Ok(())
//! # }
//! ```
//!
//! # How it behaves
//!
//! - A [`Client`] is cheap to clone; all clones share **one connection per node**. Calls made at the same time are
//!   pipelined and gathered into few frames by themselves: run them concurrently, and batch only what is a list anyway
//!   ([`Space::append_many`], [`Graph::follow_many`], [`Space::feeds`]).
//! - A call is sent when it is awaited. Everything optional is a method on the call before that.
//! - Every call has one **deadline** that covers connecting, waiting for room, and all attempts. There is no call
//!   without one.
//! - **Retries** happen within the deadline: after a lost connection, `Busy` (not before the delay it names), a change
//!   of leader. A write keeps its session and sequence, so that it has one effect however often it is sent.
//! - An [`Error`] says whether trying again can help ([`Error::is_retryable`]) and whether the call may have had its
//!   effect ([`Error::may_have_applied`]; `false` is certain). After a "maybe", repeat an append under its
//!   [`key`](Append::key); everything else may simply be repeated.
//! - Dropping a call's future gives up on its answer. If the request was still queued it is never sent; otherwise a
//!   write may still take effect.
//! - A page that lacks something because a partition is unreachable for the moment, as while it changes its leader, is read
//!   again within the deadline, for three seconds from when that partition was first missed. What it lacks then it says itself.
//! - A [`Token`] comes with every write and page. A read with [`at_least`](FeedRead::at_least) sees at least what it
//!   stands for, [`Client::wait_delivered`] waits until everybody does. Tokens, [`Cursor`]s and [`Mark`]s turn into
//!   bytes and back (`to_bytes`, `from_bytes`), to be kept anywhere.
//!
//! # Errors
//!
//! ```
//! use fanfold_client::{Client, Status, UserId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = fanfold_server::TestNode::start().await?;
//! # let client = Client::connect(node.address()).await?;
//! # let (posts, ada) = (client.space("posts"), UserId(7));
//! match posts.append(ada, "hello").key("request-2").await {
//!     Ok(appended) => println!("entry {}", appended.id),
//!     Err(error) if matches!(error.status(), Some(Status::TooLarge { .. })) => println!("too long: {error}"),
//!     Err(error) if error.is_retryable() => println!("tell the user to try again: {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Pages
//!
//! ```
//! use fanfold_client::{Client, UserId};
//! use futures_util::TryStreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = fanfold_server::TestNode::start().await?;
//! # let client = Client::connect(node.address()).await?;
//! # let (posts, ben) = (client.space("posts"), UserId(9));
//! let mut pages = posts.feed(ben).limit(100).hydrate().pages();
//! while let Some(page) = pages.try_next().await? {
//!     for entry in page.entries {
//!         println!("{} by {}: {:?}", entry.id, entry.author, entry.payload);
//!     }
//! }
//!
//! // What is new since a page was read, with a count that misses nothing.
//! let page = posts.feed(ben).limit(20).await?;
//! if let Some(mark) = page.mark {
//!     let news = posts.feed(ben).newer_than(mark).limit(20).await?;
//!     println!("{} new", news.new_count.unwrap_or_default());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Who answers a read
//!
//! The leader of the user's partition, by default: everything is seen that was answered before. Any replica may answer, and the
//! leaders have less to do, if a read says what it must see: what a token stands for, or everything that is older than some time.
//! The client asks a replica, in its own [zone](ClientBuilder::zone) if there is one, then another, and in the end the leader.
//!
//! ```
//! use std::time::Duration;
//!
//! use fanfold_client::{Client, UserId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = fanfold_server::TestNode::start().await?;
//! # let address = node.address();
//! let client = Client::builder(address).zone("eu-1").connect().await?;
//! let (posts, ada) = (client.space("posts"), UserId(7));
//!
//! // One's own write, at any replica.
//! let post = posts.append(ada, "hello").await?;
//! let page = posts.timeline(ada).at_least(&post.token).await?;
//! assert_eq!(page.entries[0].id, post.id);
//!
//! // At most two seconds old, at any replica; also while the leader is away.
//! let page = posts.feed(ada).stale_ok(Duration::from_secs(2)).hydrate().await?;
//! # let _ = page;
//! # Ok(())
//! # }
//! ```
//!
//! # In your own tests
//!
//! `fanfold_server::TestNode` starts a whole node inside your test, on a free port, with a clock that you turn:
//! connect to its address, append a story, turn the clock by a day, and see it gone. Nothing waits.
//!
//! More: [what you did with Redis → what you call here](from_redis), and `examples/social_feed.rs`.
//!
#![doc = include_str!("docs/defaults.md")]

mod admin;
mod append;
mod append_many;
mod attempts;
mod backoff;
mod batch;
#[cfg(test)]
mod behaviour;
mod call;
mod claim;
mod client;
mod cluster;
mod connection;
mod consistency;
mod core;
mod deadline;
mod defaults;
mod duration;
mod edges;
mod entries;
mod error;
mod feed;
mod feeds;
mod graph;
mod import;
mod jobs;
mod link;
mod lock;
mod names;
mod new_entry;
mod pages;
mod paging;
mod patience;
mod pending;
mod related;
mod renewable;
mod replicas;
mod router;
#[cfg(test)]
mod scripted;
mod session;
mod space;
mod spaces;
mod spread;
mod timeline;

pub use crate::append::{Append, Appended};
pub use crate::append_many::AppendMany;
pub use crate::call::Call;
pub use crate::client::{Client, ClientBuilder};
pub use crate::cluster::{ByNode, init_cluster};
pub use crate::edges::EdgeScan;
pub use crate::entries::EntriesRead;
pub use crate::error::{Error, Loss};
pub use crate::feed::FeedRead;
pub use crate::feeds::FeedsRead;
pub use crate::graph::Graph;
pub use crate::import::{
    IMPORT_BYTES_PER_WRITE, IMPORT_EDGES_PER_WRITE, IMPORT_ENTRIES_PER_WRITE, ImportLane, ImportOp,
    ImportedFollows,
};
pub use crate::new_entry::NewEntry;
pub use crate::related::Related;
pub use crate::space::{Amended, Deleted, ExpirySet, Space};
pub use crate::spaces::{CreateSpaceCall, Spaces};
pub use crate::timeline::TimelineRead;

pub use fanfold_protocol::message::{
    Audience, Budget, ChangeLoss, ChangeRefusal, ChangeStep, ClusterChange, ClusterChanged, ClusterNode,
    ClusterSettings, ClusterView, Counts, Edge, EdgePage, EntryRef, EntryView, Explanation, FanOut,
    GroupHealth, GroupName, GroupView, Hot, HotBy, HotList, ImportEdge, ImportEntry, ImportExpiry,
    ImportPlace, InitCluster, JobFinding, JobKind, JobPhase, JobState, JobStatus, KeptLog, LogStatus, Map,
    MemoryBudget, MemoryPart, MemoryState, MemoryUse, NodeAddress, NodeState, NodeStatus, Page,
    PartitionStatus, ProcessMemory, Reason, ReferenceState, ReferenceView, ReplicaRole, ReplicaView,
    ShortReason, SpaceChanges, SpaceInfo, SpacePolicy, StartJob, StreamStatus,
};
pub use fanfold_protocol::{
    ClusterId, Cursor, EntryId, Field, GraphId, LimitKind, Mark, NodeId, PartitionId, SealedError, SessionId,
    SlotIndex, SpaceId, Stamp, Status, Token, UserId,
};

#[doc = include_str!("docs/redis.md")]
pub mod from_redis {}

/// The examples of the repository's front page, compiled and run with those above.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
