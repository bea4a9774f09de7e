//! Owns the choice of who may answer a read, as the builders of reads gather it.

use std::time::Duration;

use fanfold_protocol::message::Consistency;

/// What a read was told so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choice {
    stale_ms: Option<u32>,
    is_leader: bool,
}

impl Choice {
    /// Any replica whose state is at most so old; at least a millisecond.
    pub fn stale_ok(&mut self, max: Duration) {
        self.stale_ms = Some(u32::try_from(max.as_millis()).unwrap_or(u32::MAX).max(1));
    }

    /// The leader, whatever else is asked for.
    pub fn leader(&mut self) {
        self.is_leader = true;
    }

    /// What is asked for, by a read that names a token or does not.
    pub fn consistency(self, has_token: bool) -> Consistency {
        match self.stale_ms {
            _ if self.is_leader => Consistency::Leader,
            Some(max_ms) => Consistency::StaleOk { max_ms },
            None if has_token => Consistency::AtLeast,
            None => Consistency::Leader,
        }
    }

    /// Whether any replica may answer.
    pub fn is_any_replica(self, has_token: bool) -> bool {
        self.consistency(has_token) != Consistency::Leader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_answers_unless_a_token_or_an_age_is_named() {
        let mut choice = Choice::default();
        assert_eq!(choice.consistency(false), Consistency::Leader);
        assert_eq!(choice.consistency(true), Consistency::AtLeast);
        choice.stale_ok(Duration::from_micros(3));
        assert_eq!(choice.consistency(true), Consistency::StaleOk { max_ms: 1 });
        choice.stale_ok(Duration::MAX);
        assert_eq!(choice.consistency(false), Consistency::StaleOk { max_ms: u32::MAX });
        assert!(choice.is_any_replica(false));
        choice.leader();
        assert!(!choice.is_any_replica(true));
    }
}
