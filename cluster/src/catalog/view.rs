//! Owns the view of the catalog that every node has, whether or not a replica of the catalog is on it.

use std::sync::Arc;

use tokio::sync::watch;

use super::state::CatalogState;

/// The newest state of the catalog that this node knows. It only becomes newer.
#[derive(Debug, Default)]
pub(crate) struct CatalogView(watch::Sender<Arc<CatalogState>>);

impl CatalogView {
    /// The state.
    pub fn current(&self) -> Arc<CatalogState> {
        self.0.borrow().clone()
    }

    /// Follows the state.
    pub fn subscribe(&self) -> watch::Receiver<Arc<CatalogState>> {
        self.0.subscribe()
    }

    /// Takes a state that was learnt, if it is newer.
    pub fn offer(&self, epoch: u64, state: impl FnOnce() -> Arc<CatalogState>) {
        self.0.send_if_modified(|known| {
            let is_newer = known.epoch < epoch;
            if is_newer {
                *known = state();
            }
            is_newer
        });
    }
}
