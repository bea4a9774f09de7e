//! Owns the text of what a node answers, one fact a line.

use std::fmt::Write as _;

use fanfold_cluster::Node;
use fanfold_cluster::read::{EntryView, FeedRequest, ReferenceState, TimelineRequest};
use fanfold_storage::ids::{EntryId, GraphId, PartitionId, UserId};
use fanfold_storage::space::SpaceDefinition;

use crate::{POSTS, STORIES, make, users};

/// Whatever it is, all of it.
const LIMIT: u32 = 1_000;

/// The state of every partition, before anybody asked or told it anything.
pub fn states(node: &Node) -> String {
    let mut said = String::new();
    for partition in (0..node.partitions()).map(PartitionId) {
        let line = node.read_partition(partition, |state| {
            let usage = state.usage();
            format!(
                "state {partition}: applied {} stamp {} incarnation {} checksum {:032x}; entries {} users {} edges {} \
                 owners {} rows {} sessions {} events {}\n",
                state.applied(),
                state.stamp().0,
                state.incarnation(),
                state.checksum(),
                usage.entries,
                usage.users,
                usage.edges,
                usage.owners,
                usage.rows,
                usage.sessions,
                state.journal_len(),
            )
        });
        said += &line.unwrap();
    }
    said
}

/// What everybody is answered.
pub async fn answers(node: &Node, when: &str) -> String {
    let mut said = format!("{when}\n");
    for space in node.spaces() {
        let SpaceDefinition { id, name, graph, graph_name, version, policy } = space;
        let ttl_ms = policy.default_ttl_ms;
        writeln!(said, "space {id} {name}, graph {graph} {graph_name}, version {version}, {ttl_ms:?}")
            .unwrap();
    }
    for user in users() {
        for space in [POSTS, STORIES] {
            let request = TimelineRequest {
                space,
                owner: user,
                viewer: None,
                limit: LIMIT,
                below: EntryId::MAX,
                hydrate: true,
                at_least: None,
                consistency: fanfold_cluster::read::Consistency::Leader,
            };
            for entry in node.read_timeline(&request).await.unwrap().entries {
                writeln!(said, "timeline {user} {space}: {}", line(&entry)).unwrap();
            }
            let request = FeedRequest {
                space,
                reader: user,
                limit: LIMIT,
                below: EntryId::MAX,
                newer_than: None,
                hydrate: true,
                at_least: None,
                consistency: fanfold_cluster::read::Consistency::Leader,
            };
            let page = node.read_feed(&request).await.unwrap();
            assert!(page.short_of.is_empty() && page.next.is_none(), "{page:?}");
            for entry in page.entries {
                writeln!(said, "feed {user} {space}: {}", line(&entry)).unwrap();
            }
        }
        for (graph, _) in node.graphs() {
            let counts = node.counts(graph, user).await.unwrap();
            writeln!(said, "counts {user} {graph}: {} {}", counts.followers, counts.followees).unwrap();
            said += &edges(node, graph, user).await;
        }
    }
    said
}

async fn edges(node: &Node, graph: GraphId, user: UserId) -> String {
    let (followees, followers) = (
        node.scan_followees(graph, user, None, LIMIT).await.unwrap(),
        node.scan_followers(graph, user, None, LIMIT).await.unwrap(),
    );
    let mut said = String::new();
    for (what, page) in [("follows", followees), ("is followed by", followers)] {
        for edge in page.users {
            writeln!(said, "edge {user} {what} {} since {}", edge.user, edge.since.0).unwrap();
        }
    }
    said
}

fn line(entry: &EntryView) -> String {
    let EntryView { id, owner, author, audience, version, expiry, payload, reference } = entry;
    let reference = reference.as_ref().map(|reference| match &reference.state {
        ReferenceState::Live(to) => format!("{} of {}, live, version {}", to.id.0, to.owner, to.version),
        state => format!("{} of {}, {state:?}", reference.id.0, reference.owner),
    });
    let payload = payload.as_ref().map(|payload| (payload.len(), sum_of(payload)));
    let expiry = expiry.map(|expiry| expiry.0);
    format!("{} {owner} {author} {audience:?} {version} {expiry:?} {payload:?} {reference:?}", id.0)
}

/// A sum over a payload that tells two of them apart: FNV-1a.
fn sum_of(payload: &[u8]) -> u32 {
    payload.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// What requests are answered that were sent before: the same session and sequence, the same application key.
pub async fn repeated(node: &Node) -> String {
    let mut said = String::new();
    for (tag, owner, write) in make::answered() {
        let receipt = node.write(node.partition_of(owner), tag, write).await;
        let result = receipt.map(|receipt| receipt.result);
        writeln!(said, "repeated {} of {}: {result:?}", tag.sequence.0, tag.session.0).unwrap();
    }
    said
}

/// The newest post of a timeline.
pub async fn newest(node: &Node, owner: UserId) -> Option<EntryId> {
    let request = TimelineRequest {
        space: POSTS,
        owner,
        viewer: None,
        limit: 1,
        below: EntryId::MAX,
        hydrate: false,
        at_least: None,
        consistency: fanfold_cluster::read::Consistency::Leader,
    };
    Some(node.read_timeline(&request).await.unwrap().entries.first()?.id)
}
