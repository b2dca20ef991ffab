//! A timer with nanoseconds: epoll's own timeout has milliseconds, which is more than an answer takes.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Makes its file readable at a time.
pub(crate) struct Timer {
    fd: OwnedFd,
    armed_for: u64,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd, armed_for: 0 })
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Fires once after `rest`; nothing to do if it is armed for that moment already.
    pub(crate) fn arm(&mut self, wake_ns: u64, rest: Duration) -> io::Result<()> {
        if self.armed_for == wake_ns {
            return Ok(());
        }
        self.armed_for = wake_ns;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: rest.as_secs() as _, tv_nsec: rest.subsec_nanos().max(1).into() };
        timerfd_settime(
            &self.fd,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: value },
        )?;
        Ok(())
    }

    /// It has fired. Setting it again makes its file unreadable again, so it need not be read.
    pub(crate) const fn taken(&mut self) {
        self.armed_for = 0;
    }
}
