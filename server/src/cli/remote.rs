//! Owns what the commands that talk to a node have in common: its address, and the connection.

use std::io;
use std::time::Duration;

use clap::Args;
use fanfold_client::{ByNode, Client, NodeId};
use fanfold_protocol::{Field, Status};

use super::error::CliError;
use super::output::Output;

/// How long a command that is done waits for its sessions to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the node is, and how results are shown.
#[derive(Debug, Clone, Args)]
pub(super) struct Remote {
    /// Address of a node.
    #[arg(long, alias = "addr", value_name = "ADDR", default_value = "127.0.0.1:7117", value_parser = address)]
    pub address: String,
    /// How results are shown.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// How long to wait for the node, such as `10s`.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = deadline)]
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
        match refused_connection(&source, &self.address) {
            Some(source) if source.kind() == io::ErrorKind::TimedOut => {
                CliError::Silent { address: self.address.clone() }
            }
            Some(source) => CliError::NoNode { address: self.address.clone(), source },
            None if is_of_others(&source) => CliError::Others { address: self.address.clone(), source },
            None => CliError::Call { address: self.address.clone(), source },
        }
    }
}

/// A host and a port; whether there is such a host shows when it is called.
fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parts.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err("an address is a host and a port, such as 10.0.0.1:7117".to_owned()),
    }
}

/// How long a command waits for nodes: not 0, with which nothing would ever be done.
fn deadline(text: &str) -> Result<Duration, String> {
    let deadline = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if deadline.is_zero() {
        Err("in no time nothing can be done; say 1s, for instance".to_owned())
    } else {
        Ok(deadline)
    }
}

/// The operating system's refusal to connect to the address that was named, if that is what is behind an error; the node
/// there may also have named others that are not there. What may have been done is no matter of an address.
fn refused_connection(error: &fanfold_client::Error, named: &str) -> Option<io::Error> {
    match error {
        fanfold_client::Error::Connect { address, source } if address == named => {
            Some(io::Error::new(source.kind(), source.to_string()))
        }
        fanfold_client::Error::DeadlineExceeded { last: Some(last), may_have_applied: false, .. } => {
            refused_connection(last, named)
        }
        _ => None,
    }
}

/// Whether a call failed because another node is not there than the one that was named, or because that one waited for others.
fn is_of_others(error: &fanfold_client::Error) -> bool {
    let fanfold_client::Error::DeadlineExceeded { last: Some(last), .. } = error else { return false };
    matches!(&**last, fanfold_client::Error::Connect { .. })
        || matches!(last.status(), Some(Status::DeadlineExceeded))
}

/// What nodes answered, and which did not.
pub(super) type Answered<T> = (Vec<(NodeId, T)>, Vec<NodeId>);

/// What nodes answered and which did not, which is said on stderr; an error if none did.
pub(super) fn answered<T>(
    remote: &Remote,
    all: Result<ByNode<T>, fanfold_client::Error>,
) -> Result<Answered<T>, CliError> {
    let all = all.map_err(|error| remote.failed(error))?;
    let nobody = all.iter().all(|(_, answer)| answer.is_err());
    let (mut answered, mut left_out) = (Vec::new(), Vec::new());
    for (node, answer) in all {
        match answer {
            Ok(answer) => answered.push((node, answer)),
            Err(error) if nobody => return Err(remote.failed(error)),
            Err(error) => {
                eprintln!("fanfold: node {node} is left out: {error}");
                left_out.push(node);
            }
        }
    }
    Ok((answered, left_out))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn addresses_and_deadlines_are_usable() {
        for text in ["10.0.0.1:7117", "node-1.example:1", "[::1]:65535"] {
            assert_eq!(address(text), Ok(text.to_owned()));
        }
        for text in ["", "nonsense", "10.0.0.1", ":7117", "a:0", "a:65536", "a:b"] {
            assert!(address(text).unwrap_err().contains("10.0.0.1:7117"), "{text}");
        }
        assert_eq!(deadline("1500ms"), Ok(Duration::from_millis(1_500)));
        assert!(deadline("0s").is_err() && deadline("soon").is_err());
    }

    #[test]
    fn nobody_listens_is_said_only_of_the_address_that_was_named() {
        let remote = Remote {
            address: "10.0.0.1:7117".to_owned(),
            output: Output::Table,
            deadline: Duration::from_secs(1),
        };
        let failed = |address: &str, may_have_applied| {
            let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
            let connect = fanfold_client::Error::Connect { address: address.to_owned(), source };
            let (deadline, last) = (remote.deadline, Some(Arc::new(connect)));
            remote.failed(fanfold_client::Error::DeadlineExceeded { deadline, may_have_applied, last })
        };
        assert!(matches!(failed("10.0.0.1:7117", false), CliError::NoNode { .. }));
        let other = failed("10.0.0.2:7117", false).to_string();
        assert!(
            other.contains("cannot connect to 10.0.0.2:7117") && other.contains("cluster health"),
            "{other}"
        );
        assert!(!other.contains("no node listens"), "{other}");
        let done = failed("10.0.0.1:7117", true).to_string();
        assert!(done.contains("it may have been done"), "{done}");
    }
}
