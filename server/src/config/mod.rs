//! Owns the settings of a node: their defaults, the flags, and the config file.
//!
//! - Every key of the file is a flag of the same name with `-` for `_`, and the other way round; a test holds them together.
//! - Flags win over the file, and the file over the defaults.
//! - An unknown key is refused by name, never ignored.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, ValueEnum};
use fanfold_cluster::catalog::{REPLICAS_DEFAULT, REPLICAS_MAX};
use fanfold_cluster::options::{DiskOptions, PARTITIONS_DEFAULT};
use fanfold_cluster::raft::FileSettings;
use fanfold_protocol::message::ADDRESS_BYTES_MAX;
use serde::{Deserialize, Serialize};

mod error;
#[cfg(test)]
mod tests;

pub use error::ConfigError;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    missing_docs,
    reason = "each key is documented once, at its flag, where help and config file take it from"
)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    pub http: String,
    pub peer_listen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_advertise: Option<String>,
    pub zone: String,
    pub join: Vec<String>,
    pub form: Vec<String>,
    pub replicas: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u16>,
    pub insecure_listen_without_tls: bool,
    pub log_format: LogFormat,
    pub log_level: String,
    pub connections_max: u32,
    pub http_connections_max: u32,
    pub handshake_timeout_ms: u64,
    pub frame_timeout_ms: u64,
    pub write_timeout_ms: u64,
    pub request_timeout_ms: u64,
    pub stop_timeout_ms: u64,
    pub slow_request_ms: u64,
    pub frame_bytes_max: u32,
    pub connection_requests_max: u32,
    pub connection_bytes_max: u32,
    pub node_bytes_max: u32,
    pub memory_bytes: u64,
    pub away_days: u16,
    pub log_segment_bytes: u64,
    pub table_bytes: u64,
    pub cache_bytes: u64,
    pub segment_bytes_max: u64,
    pub snapshot_log_bytes: u64,
    pub log_bytes_max: u64,
    pub background_bytes_per_second: u64,
    pub fill_bytes_per_second: u64,
    pub reserve_bytes: u64,
    pub network_threads: u32,
    pub engine_threads: u32,
}

/// The flags that set what the config file sets; each is optional and wins over the file.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct ConfigFlags {
    /// Directory with everything the node keeps; made at first start, used by one process at a time.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Address for clients, `ip:port`; port 0 chooses a free one.
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Address that clients and other nodes are told to reach this one at, `host:port`; that of `listen` if there is none.
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Address for /metrics, /livez and /readyz, `ip:port`; port 0 chooses a free one, `off` turns it off.
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Address for the other nodes of the cluster, `ip:port`; port 0 chooses a free one, `off`: the node stays alone.
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<String>,
    /// Address that other nodes are told for that, `host:port`; that of `peer_listen` if there is none.
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_advertise: Option<String>,
    /// Name of what can fail together, such as a rack; replicas are spread over zones. A node without one is a zone of its own.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Addresses of nodes, as clients know them, whose cluster this one joins; it waits for the first that answers. A node
    /// that is in a cluster already ignores it.
    #[arg(long, value_name = "ADDR,…", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Vec<String>>,
    /// The first nodes of a cluster, as clients know them, the same list on each: the first one founds it when all others
    /// answer that they know of none, and the others join.
    #[arg(long, value_name = "ADDR,…", value_delimiter = ',', conflicts_with = "join")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<Vec<String>>,
    /// Replicas of each partition (1, 3, 5 or 7) once there are as many nodes. It counts when a cluster is founded;
    /// later it is changed by `fanfold cluster settings`.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u8>,
    /// Number of partitions, a power of two up to 4096. It counts when the data directory is made and never changes: a
    /// directory of another number is refused, and without one a directory keeps the number it has.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u16>,
    /// Accept addresses off loopback although there is neither TLS nor a token: whoever reaches them owns the data.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_listen_without_tls: Option<bool>,
    /// How log lines on stderr look: `text` or `json`.
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,fanfold_cluster=debug`.
    #[arg(long, value_name = "LEVEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Client connections at a time; more are refused with a typed error.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u32>,
    /// HTTP connections at a time; more wait.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_connections_max: Option<u32>,
    /// A new connection must have sent its hello after this many milliseconds.
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_timeout_ms: Option<u64>,
    /// A frame must be complete this many milliseconds after its first byte; idle connections are not closed.
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_timeout_ms: Option<u64>,
    /// A client must have taken the answers written to it after this many milliseconds.
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_timeout_ms: Option<u64>,
    /// The longest deadline of a request in milliseconds; also the deadline of requests that carry none.
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout_ms: Option<u64>,
    /// How long a clean stop waits for requests in flight, in milliseconds.
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_ms: Option<u64>,
    /// Requests that take longer than this many milliseconds are logged with their id.
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_request_ms: Option<u64>,
    /// Bytes of one frame, 4 KiB to 64 MiB.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_bytes_max: Option<u32>,
    /// Requests in flight on one connection; beyond that, the connection is not read.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_requests_max: Option<u32>,
    /// Bytes of requests and expected answers in flight on one connection; beyond that, the connection is not read.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_bytes_max: Option<u32>,
    /// Bytes of requests and expected answers in flight on all connections; beyond that, requests are answered `Busy`.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_bytes_max: Option<u32>,
    /// Bytes of memory that the process keeps to: payloads leave memory first, then the feeds of readers who stay away. Tables,
    /// merged segments and the log behind snapshots become smaller within it. A tenth above it, writes that need more memory are
    /// refused. 0 is no budget.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Days without a read after which a reader's feeds leave memory when it is short; they are rebuilt on return. 0 is never.
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away_days: Option<u16>,
    /// Size of one segment file of the write-ahead log, 8 MiB to 1 GiB; a batch of records must fit into one.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_segment_bytes: Option<u64>,
    /// Bytes of new entries that a partition keeps in memory before they are written to a segment.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_bytes: Option<u64>,
    /// Bytes of entries that are on disk already and that a partition keeps in memory for reads. Tables are kept whole: with less than
    /// a full one takes, a little more than `table_bytes`, none is kept.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// Segments are merged with others up to this many bytes.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_bytes_max: Option<u64>,
    /// Bytes of the log behind the newest snapshots of all partitions together; one takes the next when its share has grown past.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_log_bytes: Option<u64>,
    /// Above this many bytes of log, the partition that keeps its oldest segment takes a snapshot.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes_max: Option<u64>,
    /// Bytes a second that segments and snapshots of all partitions are written with.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background_bytes_per_second: Option<u64>,
    /// Bytes a second that new replicas on this node are filled with from the logs of others, all together.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill_bytes_per_second: Option<u64>,
    /// Bytes of the disk that are kept for the time when it is full, so that the node can then make room itself; 0 is none.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve_bytes: Option<u64>,
    /// Threads that serve connections and answer reads; 0 is one for each core.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_threads: Option<u32>,
    /// Threads that propose, apply and deliver; a partition is on one of them at a time. 0 is half of the cores.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_threads: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./fanfold-data"),
            listen: "127.0.0.1:7117".to_owned(),
            advertise: None,
            http: "127.0.0.1:7118".to_owned(),
            peer_listen: "off".to_owned(),
            peer_advertise: None,
            zone: String::new(),
            join: Vec::new(),
            form: Vec::new(),
            replicas: REPLICAS_DEFAULT,
            partitions: None,
            insecure_listen_without_tls: false,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            connections_max: 4_096,
            http_connections_max: 64,
            handshake_timeout_ms: 5_000,
            frame_timeout_ms: 10_000,
            write_timeout_ms: 10_000,
            request_timeout_ms: 300_000,
            stop_timeout_ms: 5_000,
            slow_request_ms: 1_000,
            frame_bytes_max: 4 * 1024 * 1024,
            connection_requests_max: 1_024,
            connection_bytes_max: 16 * 1024 * 1024,
            node_bytes_max: 256 * 1024 * 1024,
            memory_bytes: 0,
            away_days: 30,
            log_segment_bytes: 64 * 1024 * 1024,
            table_bytes: 32 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            segment_bytes_max: 512 * 1024 * 1024,
            snapshot_log_bytes: 256 * 1024 * 1024,
            log_bytes_max: 2 * 1024 * 1024 * 1024,
            background_bytes_per_second: 256 * 1024 * 1024,
            fill_bytes_per_second: 8 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
            network_threads: 0,
            engine_threads: 0,
        }
    }
}

impl Config {
    /// The settings of the defaults, then `file` if there is one, then `flags`; not yet checked.
    pub fn load(file: Option<&Path>, flags: &ConfigFlags) -> Result<Self, ConfigError> {
        let parse =
            |path: &Path, source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) };
        let base = match file {
            None => Self::default(),
            Some(path) => {
                let read = |source| ConfigError::Read { path: path.to_owned(), source };
                let text = std::fs::read_to_string(path).map_err(read)?;
                toml::from_str(&text).map_err(|source| parse(path, source))?
            }
        };
        let mut merged = table(&base);
        merged.extend(table(flags));
        toml::Value::Table(merged).try_into().map_err(|source| parse(Path::new("(flags)"), source))
    }

    /// Checks what the types cannot say.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(got) = self.partitions.filter(|n| !n.is_power_of_two() || *n > 4_096) {
            return Err(ConfigError::Partitions { got });
        }
        if self.replicas.is_multiple_of(2) {
            return Err(ConfigError::Replicas { got: self.replicas });
        }
        self.listen_address()?;
        self.http_address()?;
        self.check_cluster()?;
        let ranges = [
            ("replicas", u64::from(self.replicas), 1, u64::from(REPLICAS_MAX)),
            ("connections_max", u64::from(self.connections_max), 1, 1 << 20),
            ("http_connections_max", u64::from(self.http_connections_max), 1, 1 << 16),
            ("frame_bytes_max", u64::from(self.frame_bytes_max), 4 << 10, 64 << 20),
            ("connection_requests_max", u64::from(self.connection_requests_max), 1, 1 << 20),
            ("connection_bytes_max", u64::from(self.connection_bytes_max), 4 << 10, 1 << 30),
            ("node_bytes_max", u64::from(self.node_bytes_max), 1 << 20, u64::from(u32::MAX)),
            ("log_segment_bytes", self.log_segment_bytes, LOG_SEGMENT_BYTES_MIN, 1 << 30),
            ("memory_bytes", self.memory_bytes, 0, 1 << 50),
            ("table_bytes", self.table_bytes, 64 << 10, 1 << 40),
            ("cache_bytes", self.cache_bytes, 0, 1 << 40),
            ("segment_bytes_max", self.segment_bytes_max, 1 << 20, 1 << 40),
            ("snapshot_log_bytes", self.snapshot_log_bytes, 64 << 10, 1 << 40),
            ("log_bytes_max", self.log_bytes_max, 64 << 20, 1 << 50),
            ("background_bytes_per_second", self.background_bytes_per_second, 1 << 20, 1 << 50),
            ("fill_bytes_per_second", self.fill_bytes_per_second, 1 << 20, 1 << 50),
            ("reserve_bytes", self.reserve_bytes, 0, 1 << 40),
            ("network_threads", u64::from(self.network_threads), 0, 1_024),
            ("engine_threads", u64::from(self.engine_threads), 0, 1_024),
            ("handshake_timeout_ms", self.handshake_timeout_ms, 1, TIMEOUT_MS_MAX),
            ("frame_timeout_ms", self.frame_timeout_ms, 1, TIMEOUT_MS_MAX),
            ("write_timeout_ms", self.write_timeout_ms, 1, TIMEOUT_MS_MAX),
            ("request_timeout_ms", self.request_timeout_ms, 1, TIMEOUT_MS_MAX),
            ("stop_timeout_ms", self.stop_timeout_ms, 1, TIMEOUT_MS_MAX),
        ];
        for (key, got, min, max) in ranges {
            if got < min || got > max {
                return Err(ConfigError::Range { key, min, max, got });
            }
        }
        Ok(())
    }

    fn check_cluster(&self) -> Result<(), ConfigError> {
        let has_peers = self.peer_address()?.is_some();
        for (key, list) in [("join", &self.join), ("form", &self.form)] {
            if !list.is_empty() && !has_peers {
                return Err(ConfigError::NoPeerAddress { key });
            }
            for value in list {
                check_advertised(key, value)?;
            }
        }
        for (key, value) in [("advertise", &self.advertise), ("peer_advertise", &self.peer_advertise)] {
            if let Some(value) = value {
                check_advertised(key, value)?;
            }
        }
        if self.zone.chars().count() > ZONE_CHARS_MAX {
            return Err(ConfigError::Zone { zone: self.zone.clone() });
        }
        Ok(())
    }

    /// What is written in the background.
    pub fn disk_options(&self) -> DiskOptions {
        DiskOptions {
            files: FileSettings {
                table_bytes: self.table_bytes,
                unflushed_bytes_max: UNFLUSHED_TABLES_MAX.saturating_mul(self.table_bytes),
                cache_bytes: self.cache_bytes,
                segment_bytes_max: self.segment_bytes_max,
                ..DiskOptions::default().files
            },
            snapshot_log_bytes: self.snapshot_log_bytes,
            log_bytes_max: self.log_bytes_max,
            background_bytes_per_second: self.background_bytes_per_second,
            fill_bytes_per_second: self.fill_bytes_per_second,
            reserve_bytes: self.reserve_bytes,
        }
    }

    /// The address for clients; off loopback only with the insecure flag.
    pub fn listen_address(&self) -> Result<SocketAddr, ConfigError> {
        self.address("listen", &self.listen)
    }

    /// The HTTP address; none if it is off.
    pub fn http_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.http == "off" {
            return Ok(None);
        }
        self.address("http", &self.http).map(Some)
    }

    /// The address for other nodes; none if it is off. Off loopback only with the insecure flag.
    pub fn peer_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.peer_listen == "off" {
            return Ok(None);
        }
        self.address("peer_listen", &self.peer_listen).map(Some)
    }

    fn address(&self, key: &'static str, value: &str) -> Result<SocketAddr, ConfigError> {
        let address: SocketAddr =
            value.parse().map_err(|_| ConfigError::Address { key, value: value.to_owned() })?;
        if !address.ip().is_loopback() && !self.insecure_listen_without_tls {
            return Err(ConfigError::OffLoopback { key, address });
        }
        Ok(address)
    }

    /// These settings as a config file, without comments.
    pub fn to_toml(&self) -> String {
        table(self).to_string()
    }

    /// The defaults, with a value also where none is set.
    fn every_key() -> Self {
        Self {
            partitions: Some(PARTITIONS_DEFAULT),
            advertise: Some("host:7117".to_owned()),
            peer_advertise: Some("host:7119".to_owned()),
            ..Self::default()
        }
    }

    /// The default config file, each key with its comment. A key that is not set by default is commented out, with what
    /// a new data directory gets.
    pub fn default_file() -> String {
        let defaults = table(&Self::every_key());
        let set = table(&Self::default());
        let mut out =
            String::from("# Settings of a Fanfold node. Every key is also a flag of `fanfold start`.\n");
        for arg in FlagsOnly::command().get_arguments() {
            let key = arg.get_id().as_str();
            let Some(value) = defaults.get(key) else { continue };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let mark = if set.contains_key(key) { "" } else { "# " };
            for part in ["\n# ", &help, ".\n", mark, key, " = ", &value.to_string(), "\n"] {
                out.push_str(part);
            }
        }
        out
    }
}

/// Whether others can be told this address.
fn check_advertised(key: &'static str, value: &str) -> Result<(), ConfigError> {
    let port =
        value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if value.len() <= ADDRESS_BYTES_MAX && matches!(port, Some(Ok(1..))) {
        return Ok(());
    }
    Err(ConfigError::Advertised { key, value: value.to_owned() })
}

/// So many tables of a partition may wait in memory, the one that is written to included.
const UNFLUSHED_TABLES_MAX: u64 = 4;

/// The longest name of a zone.
const ZONE_CHARS_MAX: usize = 64;

/// The smallest segment of the log: a batch of a partition, up to 4 MiB, must fit into one with room to spare.
const LOG_SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// The longest timeout: a day, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 24 * 3_600 * 1_000;

/// A duration of a setting in milliseconds.
pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn table(of: &impl Serialize) -> toml::Table {
    toml::Table::try_from(of).expect("settings are a flat table of strings, numbers and booleans")
}

#[derive(Parser)]
struct FlagsOnly {
    #[command(flatten)]
    flags: ConfigFlags,
}
