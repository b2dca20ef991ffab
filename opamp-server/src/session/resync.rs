//! Asking for full state: once per gap, repeated while it stays out, never a flood.

use std::time::Duration;

use opamp_proto::{AgentCapabilities, Mono, Part, PartSet};

/// Requests that follow each other message by message before they are spaced in time.
const PROMPT_REQUESTS: u8 = 3;

/// Whether stored status may be incomplete, and what was done about it (R-STATUS-16 to R-STATUS-21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resync {
    pacer: Pacer,
    /// What the last answer to the request left out.
    lacking: PartSet,
    pending: bool,
    unsolicited: bool,
}

/// How often something is asked for while the answer stays out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pacer {
    last_asked: Mono,
    asked: u8,
}

impl Pacer {
    /// Whether to ask now: promptly at first, then in time.
    pub(super) fn ask(&mut self, now: Mono, spacing: Duration) -> bool {
        let ask = self.asked < PROMPT_REQUESTS || now - self.last_asked >= spacing;
        if ask {
            self.asked = self.asked.saturating_add(1);
            self.last_asked = now;
        }
        ask
    }
}

impl Resync {
    /// Takes note of a message that revealed missing data (`incomplete`) or may have brought it.
    ///
    /// A report is complete if it has every part the capabilities promise. The answer to a request counts as
    /// complete if it has the description: what else it leaves out, the agent does not have. Where requests may be lost
    /// unnoticed (`silent_losses`) it may be an answer to nothing, and counts if the next one leaves out the same.
    pub(super) fn observe(
        &mut self,
        incomplete: bool,
        parts: PartSet,
        agent: AgentCapabilities,
        silent_losses: bool,
    ) {
        let lacking = promised(agent).difference(parts);
        let answers =
            self.pending && self.pacer.asked > 0 && !incomplete && parts.contains(Part::AgentDescription);
        if lacking.is_empty() || (answers && (!silent_losses || lacking == self.lacking)) {
            *self = Self::default();
        } else if answers {
            self.lacking = lacking;
        } else if incomplete && !self.pending {
            self.request(false);
        }
    }

    /// The connection changed: a request may have been lost with it.
    pub(super) fn reconnected(&mut self) {
        self.pacer.asked = 0;
    }

    /// Makes full state wanted, from the application (`unsolicited`) or from a gap.
    pub(super) fn request(&mut self, unsolicited: bool) {
        self.pending = true;
        self.pacer.asked = 0;
        self.lacking = PartSet::NONE;
        self.unsolicited = unsolicited;
    }

    /// Whether to set ReportFullState in the answer being written.
    pub(super) fn ask(&mut self, now: Mono, spacing: Duration) -> bool {
        let ask = self.pending && self.pacer.ask(now, spacing);
        self.unsolicited &= !ask;
        ask
    }

    /// Whether to send a message for the flag alone.
    pub(super) fn ask_unsolicited(&mut self, now: Mono) -> bool {
        self.unsolicited && self.ask(now, Duration::ZERO)
    }
}

/// What a full report of an agent with these capabilities holds (R-STATUS-18, A-11).
fn promised(agent: AgentCapabilities) -> PartSet {
    [
        (AgentCapabilities::REPORTS_HEALTH, Part::Health),
        (AgentCapabilities::REPORTS_EFFECTIVE_CONFIG, Part::EffectiveConfig),
        (AgentCapabilities::REPORTS_REMOTE_CONFIG, Part::RemoteConfigStatus),
        (AgentCapabilities::REPORTS_PACKAGE_STATUSES, Part::PackageStatuses),
        (AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS, Part::AvailableComponents),
        (AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS, Part::ConnectionSettingsStatus),
    ]
    .into_iter()
    .filter(|(capability, _)| agent.contains(*capability))
    .fold(PartSet::from(Part::AgentDescription), |parts, (_, part)| parts.with(part))
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
        resync.observe(true, bare(), AgentCapabilities::REPORTS_HEALTH, false);
        assert!(resync.ask(Mono(0), SPACING));
        resync.observe(false, bare(), AgentCapabilities::REPORTS_HEALTH, false);
        assert!(resync.ask(Mono(1), SPACING));
        resync.observe(false, described(), AgentCapabilities::REPORTS_HEALTH, false);
        assert!(!resync.ask(Mono(2), SPACING));
    }

    #[test]
    fn an_agent_that_ignores_the_request_is_neither_flooded_nor_given_up() {
        let mut resync = Resync::default();
        resync.observe(true, bare(), AgentCapabilities::NONE, false);
        let asked: Vec<u64> = (0..100_000)
            .step_by(100)
            .filter(|&at| {
                resync.observe(false, bare(), AgentCapabilities::NONE, false);
                resync.ask(Mono(at), SPACING)
            })
            .collect();
        assert_eq!(asked, [0, 100, 200, 30_200, 60_200, 90_200]);
    }

    #[test]
    fn a_complete_report_needs_no_request_even_across_a_gap() {
        let mut resync = Resync::default();
        resync.observe(true, described(), AgentCapabilities::NONE, false);
        assert!(!resync.ask(Mono(0), SPACING));
        resync.observe(true, described(), AgentCapabilities::REPORTS_HEALTH, false);
        assert!(resync.ask(Mono(0), SPACING), "health is promised and missing");
    }

    #[test]
    fn where_requests_may_be_lost_a_partial_report_is_believed_when_the_next_one_is_alike() {
        let agent = AgentCapabilities::REPORTS_HEALTH | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG;
        let mut resync = Resync::default();
        resync.observe(true, bare(), agent, true);
        assert!(resync.ask(Mono(0), SPACING), "and this request is lost");
        resync.observe(false, described(), agent, true);
        assert!(
            resync.ask(Mono(1), SPACING),
            "a description that was not acknowledged comes again by itself"
        );
        resync.observe(false, described().with(Part::Health), agent, true);
        assert!(resync.ask(Mono(2), SPACING), "it has more than was thought");
        resync.observe(false, described().with(Part::Health), agent, true);
        assert!(!resync.ask(Mono(60_000), SPACING), "it has no configuration");
    }

    #[test]
    fn a_request_lost_with_its_connection_is_made_again() {
        let agent = AgentCapabilities::REPORTS_HEALTH;
        let mut resync = Resync::default();
        resync.observe(true, bare(), agent, false);
        assert!(resync.ask(Mono(0), SPACING));
        resync.reconnected();
        resync.observe(false, described(), agent, false);
        assert!(resync.ask(Mono(1), SPACING));
        resync.observe(false, described(), agent, false);
        assert!(!resync.ask(Mono(2), SPACING));
    }
}
