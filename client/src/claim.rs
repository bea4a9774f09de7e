//! Owns the question whether a request was sent: settled once, between the connection's writer and the caller.
//!
//! Invariant: a request that its caller withdrew is never sent afterwards, and one that may have been sent cannot be
//! withdrawn; so `false` from `was_sent` after a withdrawal is certain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The state of one attempt to send a request, shared by the caller and the connection.
#[derive(Debug, Clone)]
pub(crate) struct Claim(Arc<AtomicU8>);

impl Claim {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU8::new(QUEUED)))
    }

    /// The writer is about to send it; `false` if the caller has withdrawn it.
    pub fn send(&self) -> bool {
        self.settle(SENT) == SENT
    }

    /// The caller gives up on it; `false` if it may have been sent.
    pub fn withdraw(&self) -> bool {
        self.settle(WITHDRAWN) == WITHDRAWN
    }

    fn settle(&self, state: u8) -> u8 {
        match self.0.compare_exchange(QUEUED, state, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => state,
            Err(settled) => settled,
        }
    }
}

/// Withdraws its claim when dropped: with the caller's future, or when the answer has come.
#[derive(Debug)]
pub(crate) struct WithdrawOnDrop(pub Claim);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn withdrawn_request_is_not_sent() {
        let claim = Claim::new();
        drop(WithdrawOnDrop(claim.clone()));
        assert!(!claim.send());
        assert!(claim.withdraw(), "the caller's answer does not change");
    }

    #[test]
    fn sent_request_cannot_be_withdrawn() {
        let claim = Claim::new();
        assert!(claim.send());
        assert!(!claim.withdraw());
        assert!(claim.send(), "the writer's answer does not change");
    }
}
