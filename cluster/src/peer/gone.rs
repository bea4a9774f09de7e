//! Owns which nodes have no process any more, as far as the operating system tells, and what was heard of them before.
//!
//! - A node is gone while nobody listens where it is said to be and no connection of it is open here in either
//!   direction. A process that is killed loses all that at once; one that hangs, or is cut off, keeps its connections.
//! - What a node answered says nothing of it any more once all its connections have ended.
//! - It is a hint, and may be wrong behind a network that refuses connections itself: whoever acts on it has to ask
//!   others, who see for themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// The nodes that are gone.
#[derive(Debug, Default)]
pub(super) struct Gone {
    seen: Mutex<BTreeMap<u64, Seen>>,
    nodes: watch::Sender<Arc<BTreeSet<u64>>>,
}

/// What is seen of one node.
#[derive(Debug, Default)]
struct Seen {
    /// Connections that are open.
    open: usize,
    /// When the first of them was opened.
    since: Option<Instant>,
    /// Nobody listened at the last attempt.
    is_refused: bool,
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open {
    gone: Arc<Gone>,
    node: u64,
}

impl Gone {
    /// A connection of a node, in whichever direction, is open until this is dropped.
    pub fn opened(self: &Arc<Self>, node: u64) -> Open {
        self.change(node, |seen| {
            let since = seen.since.filter(|_| seen.open > 0).or_else(|| Some(Instant::now()));
            *seen = Seen { open: seen.open + 1, since, is_refused: false };
        });
        Open { gone: self.clone(), node }
    }

    /// An attempt to connect failed: whether because nobody listens there.
    pub fn missed(&self, node: u64, is_refused: bool) {
        self.change(node, |seen| seen.is_refused = is_refused);
    }

    /// Whether what a node answered to what was sent so long ago counts: it does while connections have been open since.
    pub fn counts(&self, node: u64, ago: Duration) -> bool {
        let all = self.seen.lock();
        let is_open = |seen: &Seen| seen.open > 0 && seen.since.is_some_and(|since| since.elapsed() >= ago);
        all.get(&node).is_none_or(is_open)
    }

    /// Forgets nodes.
    pub fn retain(&self, is_known: impl Fn(u64) -> bool) {
        let mut all = self.seen.lock();
        all.retain(|node, seen| seen.open > 0 || is_known(*node));
        self.publish(&all);
    }

    /// The nodes that are gone.
    pub fn watch(&self) -> watch::Receiver<Arc<BTreeSet<u64>>> {
        self.nodes.subscribe()
    }

    fn change(&self, node: u64, change: impl FnOnce(&mut Seen)) {
        let mut all = self.seen.lock();
        change(all.entry(node).or_default());
        self.publish(&all);
    }

    fn publish(&self, all: &BTreeMap<u64, Seen>) {
        let is_gone = |(_, seen): &(&u64, &Seen)| seen.open == 0 && seen.is_refused;
        let now: BTreeSet<u64> = all.iter().filter(is_gone).map(|(node, _)| *node).collect();
        self.nodes.send_if_modified(|nodes| {
            let is_new = **nodes != now;
            if is_new {
                *nodes = Arc::new(now);
            }
            is_new
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gone.change(self.node, |seen| seen.open = seen.open.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_node_answered_counts_until_all_its_connections_end() {
        let gone = Arc::new(Gone::default());
        let (from, to) = (gone.opened(2), gone.opened(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(from);
        assert!(gone.counts(2, Duration::from_secs(1)), "one connection is open all the time");
        drop(to);
        assert!(!gone.counts(2, Duration::ZERO));
        let _again = gone.opened(2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!gone.counts(2, Duration::from_secs(2)), "it may have been another process");
        assert!(gone.counts(2, Duration::from_secs(1)));
    }

    #[test]
    fn a_node_is_gone_once_nobody_listens_and_nothing_is_open() {
        let gone = Arc::new(Gone::default());
        let nodes = gone.watch();
        let is_gone = || nodes.borrow().contains(&2);
        let (from, to) = (gone.opened(2), gone.opened(2));
        drop(to);
        gone.missed(2, true);
        assert!(!is_gone(), "it still reaches this node");
        drop(from);
        assert!(is_gone());
        let again = gone.opened(2);
        assert!(!is_gone());
        drop(again);
        assert!(!is_gone(), "that nothing is open says nothing");
        gone.missed(2, false);
        assert!(!is_gone(), "nor that an attempt took too long");
        gone.missed(2, true);
        assert!(is_gone());
        gone.retain(|_| false);
        assert!(!is_gone());
    }
}
