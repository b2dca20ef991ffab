//! Asking for full state: once per gap, repeated while it stays out, never a flood.

use std::time::Duration;

use opamp_proto::{AgentCapabilities, Mono, Part, PartSet};

/// Requests that follow each other message by message before they are spaced in time.
const PROMPT_REQUESTS: u8 = 3;

/// Whether stored status may be incomplete, and what was done about it (R-STATUS-16 to R-STATUS-21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resync {
    last_asked: Mono,
    asked: u8,
    pending: bool,
    unsolicited: bool,
}

impl Resync {
    /// Takes note of a message that revealed missing data (`incomplete`) or may have brought it.
    ///
    /// A report is complete if it has every part the capabilities promise. The answer to a request counts as
    /// complete if it has the description: what else it leaves out, the agent does not have.
    pub(super) fn observe(&mut self, incomplete: bool, parts: PartSet, agent: AgentCapabilities) {
        let answered =
            self.pending && self.asked > 0 && !incomplete && parts.contains(Part::AgentDescription);
        if answered || is_complete(parts, agent) {
            *self = Self::default();
        } else if incomplete && !self.pending {
            self.request(false);
        }
    }

    /// Makes full state wanted, from the application (`unsolicited`) or from a gap.
    pub(super) fn request(&mut self, unsolicited: bool) {
        self.pending = true;
        self.asked = 0;
        self.unsolicited = unsolicited;
    }

    /// Whether to set ReportFullState in the answer being written.
    pub(super) fn ask(&mut self, now: Mono, spacing: Duration) -> bool {
        let ask = self.pending && (self.asked < PROMPT_REQUESTS || now - self.last_asked >= spacing);
        if ask {
            self.asked = self.asked.saturating_add(1);
            self.last_asked = now;
            self.unsolicited = false;
        }
        ask
    }

    /// Whether to send a message for the flag alone.
    pub(super) fn ask_unsolicited(&mut self, now: Mono) -> bool {
        self.unsolicited && self.ask(now, Duration::ZERO)
    }
}

/// Whether `parts` hold all that an agent with these capabilities promises (R-STATUS-18, A-11).
fn is_complete(parts: PartSet, agent: AgentCapabilities) -> bool {
    let promised = [
        (AgentCapabilities::REPORTS_HEALTH, Part::Health),
        (AgentCapabilities::REPORTS_EFFECTIVE_CONFIG, Part::EffectiveConfig),
        (AgentCapabilities::REPORTS_REMOTE_CONFIG, Part::RemoteConfigStatus),
    ];
    parts.contains(Part::AgentDescription)
        && promised.iter().all(|(capability, part)| !agent.contains(*capability) || parts.contains(*part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACING: Duration = Duration::from_secs(30);

    fn bare() -> PartSet {
        PartSet::NONE
    }

    fn described() -> PartSet {
        let mut parts = PartSet::NONE;
        parts.insert(Part::AgentDescription);
        parts
    }

    #[test]
    fn a_gap_is_asked_about_in_the_very_answer_and_until_it_is_answered() {
        let mut resync = Resync::default();
        resync.observe(true, bare(), AgentCapabilities::REPORTS_HEALTH);
        assert!(resync.ask(Mono(0), SPACING));
        resync.observe(false, bare(), AgentCapabilities::REPORTS_HEALTH);
        assert!(resync.ask(Mono(1), SPACING));
        resync.observe(false, described(), AgentCapabilities::REPORTS_HEALTH);
        assert!(!resync.ask(Mono(2), SPACING));
    }

    #[test]
    fn an_agent_that_ignores_the_request_is_neither_flooded_nor_given_up() {
        let mut resync = Resync::default();
        resync.observe(true, bare(), AgentCapabilities::NONE);
        let asked: Vec<u64> = (0..100_000)
            .step_by(100)
            .filter(|&at| {
                resync.observe(false, bare(), AgentCapabilities::NONE);
                resync.ask(Mono(at), SPACING)
            })
            .collect();
        assert_eq!(asked, [0, 100, 200, 30_200, 60_200, 90_200]);
    }

    #[test]
    fn a_complete_report_needs_no_request_even_across_a_gap() {
        let mut resync = Resync::default();
        resync.observe(true, described(), AgentCapabilities::NONE);
        assert!(!resync.ask(Mono(0), SPACING));
        resync.observe(true, described(), AgentCapabilities::REPORTS_HEALTH);
        assert!(resync.ask(Mono(0), SPACING), "health is promised and missing");
    }
}
