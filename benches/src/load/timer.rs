//! Owns the alarm that wakes a load generator when its next request is due.
//!
//! - It is a timerfd among the sockets: the poll's own timeout counts whole milliseconds, so that an open loop would send what is due
//!   within one in a burst, late.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// What a poll calls an alarm; sockets have lower numbers.
pub const ALARM: Token = Token(usize::MAX);

/// An alarm of a poll.
#[derive(Debug)]
pub struct Timer {
    descriptor: OwnedFd,
    set_to: Option<Instant>,
}

impl Timer {
    /// An alarm that wakes a poll with [`ALARM`].
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    pub fn new(registry: &Registry) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&descriptor.as_raw_fd()), ALARM, Interest::READABLE)?;
        Ok(Self { descriptor, set_to: None })
    }

    /// Sets the alarm to `at`, in place of what it was set to.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn set(&mut self, at: Instant) -> io::Result<()> {
        if self.set_to == Some(at) {
            return Ok(());
        }
        self.set_to = Some(at);
        let left = at.saturating_duration_since(Instant::now());
        // No time at all would take the alarm back.
        let tv_nsec = i64::from(left.subsec_nanos()).max(i64::from(left.is_zero()));
        let it_value = Timespec { tv_sec: left.as_secs().min(i64::MAX as u64) as i64, tv_nsec };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    /// How long it takes to be woken by an alarm this far away.
    fn woken_after(poll: &mut Poll, timer: &mut Timer, pause: Duration) -> Duration {
        let begun = Instant::now();
        timer.set(begun + pause).unwrap();
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
        assert!(events.iter().any(|event| event.token() == ALARM), "nothing else is polled");
        begun.elapsed()
    }

    #[test]
    fn an_alarm_comes_within_a_millisecond_again_and_again() {
        let mut poll = Poll::new().unwrap();
        let mut timer = Timer::new(poll.registry()).unwrap();
        let pause = Duration::from_micros(200);
        let times: Vec<_> = (0..200).map(|_| woken_after(&mut poll, &mut timer, pause)).collect();
        assert!(times.iter().all(|time| *time >= pause), "never early");
        // A busy machine may be late now and then, but not each time.
        assert!(times.iter().min() < Some(&Duration::from_millis(1)), "{:?}", times.iter().min());
        assert!(woken_after(&mut poll, &mut timer, Duration::ZERO) < Duration::from_secs(60));
    }
}
