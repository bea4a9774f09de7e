//! Owns the turns in which the replicas of a node are filled by their peers.
//!
//! - One at a time: each takes the processor and the disk of nodes that serve meanwhile, and all at once take no less time.
//! - A turn that nobody uses any more is lost: its sender is gone, or has no snapshot any more.

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::log::GroupId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a sender may say nothing before another one gets the turn; a message is waited for that long.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Whose turn it is to be filled, of all groups of a node, and when its sender was last heard.
#[derive(Debug, Clone, Default)]
pub struct Fills(Arc<Mutex<Option<(GroupId, Instant)>>>);

impl Fills {
    /// Whether it is a group's turn from now on.
    pub(super) fn begin(&self, group: GroupId) -> bool {
        let mut turn = self.0.lock();
        let is_free = turn.is_none_or(|(of, heard)| of == group || heard.elapsed() > LOST_AFTER);
        if is_free {
            *turn = Some((group, Instant::now()));
        }
        is_free
    }

    /// The sender of a group was heard.
    pub(super) fn go_on(&self, group: GroupId) {
        if let Some((_, heard)) = self.0.lock().as_mut().filter(|(of, _)| *of == group) {
            *heard = Instant::now();
        }
    }

    /// A group needs its turn no more.
    pub(super) fn end(&self, group: GroupId) {
        self.0.lock().take_if(|(of, _)| *of == group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_group_is_filled_at_a_time_and_one_that_is_not_any_more_holds_nobody_up() {
        let fills = Fills::default();
        let [a, b] = [GroupId(1), GroupId(2)];
        assert!(fills.begin(a) && fills.begin(a) && !fills.begin(b));
        tokio::time::advance(LOST_AFTER).await;
        fills.go_on(a);
        tokio::time::advance(LOST_AFTER).await;
        assert!(!fills.begin(b));
        fills.end(b);
        assert!(!fills.begin(b), "it was not its turn that ended");
        fills.end(a);
        assert!(fills.begin(b) && !fills.begin(a));
        tokio::time::advance(2 * LOST_AFTER).await;
        assert!(fills.begin(a), "its sender is gone");
    }
}
