//! Owns the conversion of durations to the wire's milliseconds.

use std::time::Duration;

use fanfold_protocol::Field;

use crate::error::Error;

/// A time to live in whole milliseconds. What is shorter than one becomes 0, which the server refuses.
pub(crate) fn ttl_ms(field: Field, given: Duration) -> Result<i64, Error> {
    i64::try_from(given.as_millis()).map_err(|_| Error::BadDuration { field, given })
}
