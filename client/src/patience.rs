//! Owns for how long pages that lack something are read again.
//!
//! - A page lacks something when a partition was unreachable: it says so itself, or a payload or reference was left out.
//!   While a partition changes its leader that passes, so the page is read again within the call's deadline.
//! - A partition that stays unreachable costs its patience once, not with every page: it counts from when it was first missed,
//!   by any call of this client.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fanfold_protocol::message::{EntryView, Page, ReferenceState, ShortReason};
use fanfold_protocol::{PartitionId, Request, Response};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::core::{Core, Effect};
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::lock::lock;
use crate::router::Target;

/// The partitions that were missed lately.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// When each was missed first, and last.
    missed: Mutex<BTreeMap<PartitionId, (Instant, Instant)>>,
}

impl Patience {
    /// These partitions were missed; whether any of them is worth another look.
    pub fn note(&self, partitions: &[PartitionId]) -> bool {
        let now = Instant::now();
        let mut missed = lock(&self.missed);
        missed.retain(|_, (_, last)| now - *last < defaults::SHORT_PAGE_MEMORY);
        let first_misses = partitions.iter().map(|partition| {
            let (first, last) = missed.entry(*partition).or_insert((now, now));
            *last = now;
            *first
        });
        let is_new = |first: Instant| now - first < defaults::SHORT_PAGE_PATIENCE;
        first_misses.fold(false, |any, first| any | is_new(first))
    }
}

/// Reads a page, again as long as it lacks something that may come back soon. What a later attempt fails with is no reason to
/// withhold the page before.
pub(crate) async fn read_page(
    core: &Core,
    target: Target,
    request: &Request,
    is_hydrated: bool,
    deadline: Deadline,
) -> Result<Page, Error> {
    let mut backoff = Backoff::up_to(defaults::SHORT_PAGE_DELAY_MAX);
    let mut page = page_once(core, target, request, deadline).await?;
    loop {
        let missed = missed(core, &page, is_hydrated, deadline).await?;
        let wait = backoff.next();
        if missed.is_empty() || !core.looks_again(&missed) || wait >= deadline.remaining() {
            return Ok(page);
        }
        tokio::time::sleep(wait).await;
        match page_once(core, target, request, deadline).await {
            Ok(next) => page = next,
            Err(_) => return Ok(page),
        }
    }
}

async fn page_once(
    core: &Core,
    target: Target,
    request: &Request,
    deadline: Deadline,
) -> Result<Page, Error> {
    match core.ask(target, request, Effect::None, deadline).await? {
        Response::Page(page) => Ok(page),
        _ => Err(Error::unexpected_read()),
    }
}

/// The partitions that a page lacked.
async fn missed(
    core: &Core,
    page: &Page,
    is_hydrated: bool,
    deadline: Deadline,
) -> Result<Vec<PartitionId>, Error> {
    let mut missed: Vec<_> = page
        .short_of
        .iter()
        .filter_map(|reason| match reason {
            ShortReason::Unreachable(partition) => Some(*partition),
            ShortReason::Spent(_) => None,
        })
        .collect();
    if is_hydrated && page.entries.iter().any(is_open) {
        let routes = core.map(deadline).await?;
        let open = page.entries.iter().filter(|view| is_open(view));
        missed.extend(open.map(|view| match &view.reference {
            Some(reference) if view.payload.is_some() => routes.partition_of(reference.owner),
            _ => routes.partition_of_slot(view.id.slot()),
        }));
    }
    Ok(missed)
}

/// Whether a page lacks something of an unreachable partition.
pub(crate) fn lacks(page: &Page, is_hydrated: bool) -> bool {
    let is_short = page.short_of.iter().any(|reason| matches!(reason, ShortReason::Unreachable(_)));
    is_short || (is_hydrated && page.entries.iter().any(is_open))
}

/// Whether a hydrated page shows an entry without its payload, or without what it refers to.
fn is_open(view: &EntryView) -> bool {
    view.payload.is_none()
        || view.reference.as_ref().is_some_and(|reference| reference.state == ReferenceState::NotHydrated)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_stays_away_costs_its_patience_once() {
        let (patience, partition) = (Patience::default(), PartitionId(3));
        assert!(!patience.note(&[]));
        assert!(patience.note(&[partition]));
        tokio::time::advance(defaults::SHORT_PAGE_PATIENCE).await;
        assert!(!patience.note(&[partition]));
        assert!(patience.note(&[partition, PartitionId(4)]), "the other one may come back soon");
        // Pages go on to be read meanwhile.
        tokio::time::advance(defaults::SHORT_PAGE_MEMORY.saturating_sub(Duration::from_millis(1))).await;
        assert!(!patience.note(&[partition]));
        tokio::time::advance(defaults::SHORT_PAGE_MEMORY).await;
        assert!(patience.note(&[partition]), "it was there in between");
    }
}
