//! Owns killing nodes again and again while a workload runs against them.
//!
//! - The pause between two kills begins when the node is ready again, so that the workload always gets on.
//! - A killer that is stopped has killed at least once: the last kill comes at the stop, if there was none before.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::WorkloadError;
use super::fleet::Fleet;
use super::node_process::NodeProcessError;

/// Kills nodes again and again.
#[derive(Debug)]
pub struct Killer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Killed, NodeProcessError>>,
}

/// Nodes of which some were killed and restarted.
#[derive(Debug)]
pub struct Killed {
    /// The nodes, ready.
    pub fleet: Fleet,
    /// How long each restart took, from the new process to its readiness.
    pub recoveries: Vec<Duration>,
}

impl Killer {
    /// Begins; the first kill comes after one pause, and there are at most so many.
    pub fn start(fleet: Fleet, pause: Duration, kills_max: usize) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(kill_until(fleet, pause, kills_max, stopped)) }
    }

    /// Waits for ever, unless a node cannot be killed or restarted: then why.
    pub async fn watch(&mut self) -> WorkloadError {
        match (&mut self.task).await {
            Ok(Ok(_)) => unreachable!("it ends only when it is stopped"),
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        }
    }

    /// Ends, with the nodes ready.
    pub async fn stop(self) -> Result<Killed, WorkloadError> {
        // If the task has ended already, it has failed, and says so below.
        let _ = self.stop.send(());
        Ok(self.task.await??)
    }
}

async fn kill_until(
    mut fleet: Fleet,
    pause: Duration,
    kills_max: usize,
    mut stopped: oneshot::Receiver<()>,
) -> Result<Killed, NodeProcessError> {
    let mut recoveries = Vec::new();
    loop {
        // Only the pause is cut short; a restart is always carried through.
        tokio::select! {
            _ = &mut stopped => break,
            error = fleet.watch() => return Err(error),
            () = tokio::time::sleep(pause), if recoveries.len() < kills_max => {
                recoveries.push(fleet.kill_and_restart().await?);
            }
        }
    }
    if recoveries.is_empty() {
        recoveries.push(fleet.kill_and_restart().await?);
    }
    Ok(Killed { fleet, recoveries })
}
