//! Owns what the commands that talk to a node have in common: its address, and the connection.

use std::io;
use std::time::Duration;

use clap::Args;
use fanfold_client::Client;
use fanfold_protocol::{Field, Status};

use super::error::CliError;
use super::output::Output;

/// How long a command that is done waits for its sessions to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the node is, and how results are shown.
#[derive(Debug, Clone, Args)]
pub(super) struct Remote {
    /// Address of a node.
    #[arg(long, alias = "addr", value_name = "ADDR", default_value = "127.0.0.1:7117")]
    pub address: String,
    /// How results are shown.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// How long to wait for the node, such as `10s`.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
}

impl Remote {
    /// Connects to the node, runs a command with the client, and closes the client whatever came of the command.
    pub(super) async fn with_client(
        &self,
        command: impl AsyncFnOnce(&Client) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let connected = Client::builder(&self.address).deadline(self.deadline).connect().await;
        let client = connected.map_err(|error| self.failed(error))?;
        let done = command(&client).await;
        // What cannot be closed expires on its own, and takes nothing from what the command did.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
        done
    }

    /// The error of a call, as the caller's message.
    pub(super) fn failed(&self, source: fanfold_client::Error) -> CliError {
        if let Some(Status::Malformed { field: Field::Name | Field::Graph }) = source.status() {
            return CliError::Name;
        }
        match refused_connection(&source) {
            Some(source) => CliError::NoNode { address: self.address.clone(), source },
            None => CliError::Call { address: self.address.clone(), source },
        }
    }
}

/// The operating system's refusal to connect, if that is what is behind an error.
fn refused_connection(error: &fanfold_client::Error) -> Option<io::Error> {
    match error {
        fanfold_client::Error::Connect { source, .. } => {
            Some(io::Error::new(source.kind(), source.to_string()))
        }
        fanfold_client::Error::DeadlineExceeded { last: Some(last), .. } => refused_connection(last),
        _ => None,
    }
}

/// Runs a command on a runtime of one thread.
pub(super) fn block_on(
    command: impl std::future::Future<Output = Result<(), CliError>>,
) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Process { doing: "starting the runtime", source })?;
    runtime.block_on(command)
}
