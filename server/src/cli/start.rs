//! Owns the command `start`: a node from its settings to its clean stop.

use std::num::NonZero;
use std::path::PathBuf;

use clap::Args;
use fanfold_cluster::NodeFailure;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::error::CliError;
use super::output::line;
use crate::config::{Config, ConfigFlags};
use crate::server::Server;
use crate::{allocator, logging};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fanfold start\n  fanfold start --join 10.0.0.1:7117,10.0.0.2:7117 --peer-listen 127.0.0.1:7119\n  fanfold start --data-dir /var/lib/fanfold --listen 127.0.0.1:7117 --log-format json\n\nIt is ready when it prints `listening ADDR http ADDR`, and stops cleanly on SIGINT and SIGTERM."
)]
pub(super) struct StartArgs {
    /// File with settings; `fanfold config --print-default` shows one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Runs a node until a signal stops it.
pub(super) fn run(args: &StartArgs) -> Result<(), CliError> {
    let config = Config::load(args.config.as_deref(), &args.flags)?;
    config.check()?;
    logging::init(config.log_format, &config.log_level)?;
    raise_open_files(config.connections_max);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if config.memory_bytes > 0 {
        allocator::give_back_what_is_freed();
    }
    let engine = runtime("engine", config.engine_threads, cores.div_ceil(2))?;
    let network = runtime("network", config.network_threads, cores)?;
    network.block_on(serve(config, engine.handle().clone()))
}

fn runtime(name: &str, threads: u32, default: usize) -> Result<Runtime, CliError> {
    let threads = if threads == 0 { default } else { threads as usize };
    let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build();
    runtime.map_err(|source| CliError::Process { doing: "starting the threads", source })
}

/// Files besides connections and segments: the log, the HTTP port, and room to breathe.
const OTHER_FILES: u64 = 256;

/// Each open segment is a file, or two once all of it was read; so many are reckoned with if the system allows.
const SEGMENTS: u64 = 64 << 10;

/// Lets the process have as many open files as its connections need, as far as the system allows.
fn raise_open_files(connections_max: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(connections_max) + OTHER_FILES;
    let Some(current) = limit.current.filter(|current| *current < wanted + SEGMENTS) else { return };
    let raised = limit.maximum.map_or(wanted + SEGMENTS, |maximum| maximum.min(wanted + SEGMENTS));
    let set =
        setrlimit(Resource::Nofile, Rlimit { current: Some(raised.max(current)), maximum: limit.maximum });
    if set.is_err() || raised < wanted {
        tracing::warn!(
            open_files = raised,
            wanted,
            "the limit of open files is below what connections_max needs"
        );
    }
}

async fn serve(config: Config, engine: Handle) -> Result<(), CliError> {
    let setup = |source| CliError::Process { doing: "waiting for signals", source };
    // Taken before the node opens, so that a signal during a long recovery is not lost.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(setup)?;
    let server = tokio::select! {
        server = Server::start_on(config, engine) => server?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let http = server.http_address().map_or_else(|| "off".to_owned(), |address| address.to_string());
    line(&format!("listening {} http {http}", server.address()))?;
    tokio::select! {
        _ = interrupt.recv() => info!(signal = "SIGINT", "stopping"),
        _ = terminate.recv() => info!(signal = "SIGTERM", "stopping"),
        failure = server.failed() => return Err(match failure {
            removed @ NodeFailure::Removed { .. } => CliError::Removed(removed),
            failure => CliError::Failed(failure),
        }),
    }
    server.stop().await.map_err(CliError::Start)
}
