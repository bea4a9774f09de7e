//! Tests of the wire protocol from outside: golden files, round trips, hostile bytes.

mod golden;
mod hostile;
mod ids;
mod limits;
mod round_trip;
mod samples;
mod spec;
mod statuses;
mod strategies;
