//! Owns the node as a program: settings, listener, dispatch, HTTP, and the commands of the binary `fanfold`.
//!
//! - [`TestNode`] runs a whole node inside an application's own tests, with a clock they can turn.
//! - [`workload`] drives a node with a known workload and compares every feed with the oracle.

mod allocator;
pub mod cli;
pub mod config;
mod connection;
pub mod demo;
mod dispatch;
mod export;
#[cfg(test)]
mod golden;
mod hot;
mod http;
mod import;
mod listener;
mod lobby;
mod logging;
mod metrics;
mod names;
pub mod server;
mod test_node;
mod translate;
mod unread_page;
pub mod workload;
mod zones;

pub use test_node::{TestNode, TestNodeError};
