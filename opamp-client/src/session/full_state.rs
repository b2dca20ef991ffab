//! Complete reports on demand: at once, but not for ever at once.

use std::time::Duration;

use opamp_proto::Mono;

/// Demands that are met at once before they are spaced in time.
const PROMPT: u32 = 3;

/// When the next complete report is due. A server that asks with every answer would otherwise make two machines talk
/// as fast as they can (R-SEC-01).
#[derive(Debug, Default)]
pub(super) struct FullState {
    due: Option<Mono>,
    last: Option<Mono>,
    met: u32,
}

impl FullState {
    /// The server asks for a complete report.
    pub(super) fn demanded(&mut self, now: Mono, spacing: Duration) {
        if self.due.is_some() {
            return;
        }
        let quiet = self.last.is_none_or(|last| now - last >= spacing);
        if quiet {
            self.met = 0;
        }
        self.due = Some(match self.last {
            Some(last) if self.met >= PROMPT => last + spacing,
            _ => now,
        });
    }

    /// Whether a complete report is to be made now; it counts as made.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        let due = self.due.take_if(|due| *due <= now).is_some();
        if due {
            self.last = Some(now);
            self.met = self.met.saturating_add(1);
        }
        due
    }

    /// When a complete report is due.
    pub(super) const fn deadline(&self) -> Option<Mono> {
        self.due
    }

    /// A complete report is made for another reason.
    pub(super) fn made(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACING: Duration = Duration::from_secs(30);

    #[test]
    fn a_server_that_asks_with_every_answer_is_not_answered_without_pause() {
        let mut full = FullState::default();
        let made: Vec<u64> = (0..100_000)
            .step_by(100)
            .filter(|&at| {
                full.demanded(Mono(at), SPACING);
                full.take(Mono(at))
            })
            .collect();
        assert_eq!(made, [0, 100, 200, 30_200, 60_200, 90_200]);
    }

    #[test]
    fn a_demand_is_remembered_until_it_is_met() {
        let mut full = FullState::default();
        for at in 0..4 {
            full.demanded(Mono(at), SPACING);
            assert_eq!(full.take(Mono(at)), at < 3);
        }
        assert_eq!(full.deadline(), Some(Mono(30_002)));
        assert!(full.take(Mono(30_002)));
        assert!(!full.take(Mono(90_000)), "once");
    }
}
