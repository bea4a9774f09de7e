//! Owns what the negative controls break: commands, messages, answers and records on their way, never the code that
//! handles them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::simulation::Replica;
use fanfold_storage::codec::{Encoded, Reader};
use fanfold_storage::command::Command;
use fanfold_storage::entry::Entry;
use fanfold_storage::event::{Event, StreamMessage};
use fanfold_storage::ids::{JournalPosition, PartitionId, Sequence};
use fanfold_storage::log::{GroupId, Log, LogError, Record};

use crate::plan::{Control, PARTITIONS};
use crate::world::{BROKEN, NodeClock, World, lock};

/// [`Control::VotesNotSaved`]: puts back the votes that the node had when it started before.
pub fn forget_votes(world: &World, node: usize, log: &Log) -> Result<(), LogError> {
    if node != BROKEN || !world.breaks(Control::VotesNotSaved) {
        return Ok(());
    }
    let mut votes = lock(&world.machines[node].votes);
    for group in (1..=u32::from(PARTITIONS)).map(GroupId) {
        let found = log.group_state(group)?.vote;
        if let Some(before) = votes.get(&group.0) {
            log.submit(vec![Record::Vote { group, data: before.clone() }], None)?;
        }
        votes.extend(found.map(|vote| (group.0, vote)));
    }
    Ok(())
}

/// [`Control::SessionsOff`]: gives every request a number that nobody has used.
pub fn without_sessions(world: &World, stamp_ms: u64, commands: &[Bytes]) -> Vec<Bytes> {
    if !world.breaks(Control::SessionsOff) {
        return commands.to_vec();
    }
    let renumbered =
        commands.iter().enumerate().map(|(n, bytes)| match Command::decode(&mut Reader::new(bytes)) {
            Ok(Command::Write { mut tag, write }) => {
                tag.sequence = Sequence(stamp_ms * 1_024 + n as u64);
                tag.lowest_unanswered = tag.sequence;
                Command::Write { tag, write }.to_bytes()
            }
            _ => bytes.clone(),
        });
    renumbered.collect()
}

/// [`Control::StreamGaps`] and [`Control::GenerationsIgnored`].
pub fn stream_message(
    world: &World,
    replica: &Replica,
    destination: PartitionId,
    mut message: StreamMessage,
) -> StreamMessage {
    if world.breaks(Control::StreamGaps)
        && let Ok(answer) = replica.read(|state| state.stream_answer(message.source))
        && answer.epoch == message.epoch
        && message.previous > answer.watermark
        && message.previous > JournalPosition(0)
    {
        message.previous = answer.watermark;
    }
    if world.breaks(Control::GenerationsIgnored) {
        let generations = lock(&world.generations);
        for (_, event) in &mut message.events {
            if let Event::Backfill { owner, generation, .. } = event
                && let Some(last) = generations.get(&(destination, *owner))
            {
                *generation = *last;
            }
        }
    }
    message
}

/// Takes note of the subscriptions in a message that leaves, for [`Control::GenerationsIgnored`].
pub fn note_generations(world: &World, message: &StreamMessage) {
    let mut generations = lock(&world.generations);
    for (_, event) in &message.events {
        if let Event::Subscribe { owner, generation, .. } = event {
            let last = generations.entry((message.source, *owner)).or_insert(*generation);
            *last = (*last).max(*generation);
        }
    }
}

/// [`Control::ReadsByLocalClock`]: leaves out what has expired by the clock of the node that answers.
pub fn hide_by_clock(world: &Arc<World>, node: usize, mut entries: Vec<Entry>) -> Vec<Entry> {
    if world.breaks(Control::ReadsByLocalClock) {
        let now_ms = NodeClock::new(world, node).log_ms();
        entries.retain(|entry| entry.expiry.is_none_or(|expiry| expiry.0 > now_ms));
    }
    entries
}

/// [`Control::EarlyTrim`]: trims the journal whatever has been delivered.
pub async fn trim_early(world: Arc<World>, replica: Arc<Replica>) {
    if !world.breaks(Control::EarlyTrim) {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Ok(next) = replica.read(fanfold_storage::partition::Partition::journal_next) else { return };
        if replica.metrics().is_leader {
            let through = JournalPosition(next.0.saturating_sub(1));
            // Somebody else may lead by now.
            let _ = replica.propose(&Command::Trim { through }).await;
        }
    }
}
