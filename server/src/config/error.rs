//! Owns why there are no usable settings, and what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

use fanfold_cluster::catalog::REPLICAS_MAX;

/// Why there are no usable settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The config file cannot be read.
    #[error("the config file {} cannot be read: {source}; check --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The config file is not valid.
    #[error(
        "the config file {} is not valid: {source}\n`fanfold config --print-default` shows every key", path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and key.
        source: Box<toml::de::Error>,
    },
    /// An address is not `ip:port`.
    #[error("{key} is {value:?}, which is not an address such as 127.0.0.1:7117")]
    Address {
        /// The key.
        key: &'static str,
        /// What it holds.
        value: String,
    },
    /// An address is reachable from elsewhere and nothing protects it.
    #[error(
        "{key} is {address}, which others can reach, and there is neither TLS nor a token yet; \
         use a loopback address such as 127.0.0.1, or say --insecure-listen-without-tls"
    )]
    OffLoopback {
        /// The key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A number is outside its range.
    #[error("{key} is {got} and must lie between {min} and {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
        /// What it holds.
        got: u64,
    },
    /// A node that is to be in a cluster has no address for the others.
    #[error(
        "{key} needs an address where other nodes reach this one; name one with --peer-listen, for example \
         127.0.0.1:7119"
    )]
    NoPeerAddress {
        /// The key.
        key: &'static str,
    },
    /// The list of first nodes does not name this one.
    #[error(
        "form is {form:?} and does not name {own}, which is where clients reach this node; correct it, or set advertise"
    )]
    NotInForm {
        /// The list.
        form: Vec<String>,
        /// This node.
        own: String,
    },
    /// An address that others are told is not `host:port`.
    #[error("{key} is {value:?}, which is not `host:port` of at most 256 bytes")]
    Advertised {
        /// The key.
        key: &'static str,
        /// What it holds.
        value: String,
    },
    /// A zone has no usable name.
    #[error("zone is {zone:?}; a zone has at most 64 characters")]
    Zone {
        /// What it holds.
        zone: String,
    },
    /// An even number of replicas bears no more losses than the odd one below it.
    #[error("replicas is {got} and must be an odd number from 1 to {REPLICAS_MAX}")]
    Replicas {
        /// What it holds.
        got: u8,
    },
    /// The number of partitions is not a power of two.
    #[error("partitions is {got} and must be a power of two from 1 to 4096")]
    Partitions {
        /// What it holds.
        got: u16,
    },
}
