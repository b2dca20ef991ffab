//! A bound on audit entries that others can cause.

use opamp_proto::Mono;

use super::settings::AuditRate;

/// A token bucket that counts what it turns away.
#[derive(Debug)]
pub(super) struct AuditThrottle {
    rate: AuditRate,
    /// Entries allowed now, in thousandths of a minute's worth: whole numbers only.
    credit_ms: u64,
    refilled: Mono,
    folded: u64,
}

impl AuditThrottle {
    pub(super) fn new(rate: AuditRate, now: Mono) -> Self {
        let mut throttle = Self { rate, credit_ms: 0, refilled: now, folded: 0 };
        throttle.credit_ms = throttle.capacity();
        throttle
    }

    /// Whether an entry may be written now; if so, how many were left out before it. `already_folded` were left
    /// out before this one by somebody else.
    pub(super) fn admit(&mut self, already_folded: u64, now: Mono) -> Option<u64> {
        self.folded = self.folded.saturating_add(already_folded);
        if !self.take(now) {
            self.folded = self.folded.saturating_add(1);
            return None;
        }
        Some(std::mem::take(&mut self.folded))
    }

    /// How many were left out and are not told of yet, if an entry that tells it may be written now.
    pub(super) fn drain(&mut self, now: Mono) -> Option<u64> {
        (self.folded > 0 && self.take(now)).then(|| std::mem::take(&mut self.folded))
    }

    fn take(&mut self, now: Mono) -> bool {
        let passed_ms = (now - self.refilled).as_millis().try_into().unwrap_or(u64::MAX);
        self.refilled = self.refilled.max(now);
        let refill = u64::from(self.rate.per_minute).saturating_mul(passed_ms);
        self.credit_ms = self.credit_ms.saturating_add(refill).min(self.capacity());
        let Some(left) = self.credit_ms.checked_sub(MINUTE_MS) else { return false };
        self.credit_ms = left;
        true
    }

    fn capacity(&self) -> u64 {
        u64::from(self.rate.burst.max(1)) * MINUTE_MS
    }
}

const MINUTE_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_a_bounded_number_of_entries_and_none_is_uncounted() {
        let rate = AuditRate { burst: 5, per_minute: 60 };
        let mut throttle = AuditThrottle::new(rate, Mono(0));
        let (mut written, mut counted) = (0, 0);
        for ms in 0..10_000 {
            if let Some(folded) = throttle.admit(u64::from(ms == 77) * 1000, Mono(ms)) {
                written += 1;
                counted += 1 + folded;
            }
        }
        assert_eq!(written, 5 + 9, "the burst, then one a second");
        assert_eq!(throttle.drain(Mono(10_000)), Some(11_000 - counted));
        assert_eq!(throttle.drain(Mono(20_000)), None, "nothing is left to tell");
    }

    #[test]
    fn single_refusals_are_all_written() {
        let mut throttle = AuditThrottle::new(AuditRate::default(), Mono(0));
        for second in 0..100 {
            assert_eq!(throttle.admit(0, Mono(second * 1000)), Some(0));
        }
    }
}
