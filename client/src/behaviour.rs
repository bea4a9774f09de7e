//! Owns the tests of the client against a scripted server: what crosses the wire, and what the caller is told.

mod appends;
mod connection;
mod deadlines;
mod failover;
mod reads;
mod replicas;
mod writes;
