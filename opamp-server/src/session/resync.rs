//! Asking for full state: once per gap, repeated while it stays out, never a flood.

use std::time::Duration;

use opamp_proto::{AgentCapabilities, Mono, Part, PartSet};

/// Requests that follow each other message by message before they are spaced in time.
const PROMPT_REQUESTS: u8 = 3;

/// Whether stored status may be incomplete, and what was done about it (R-STATUS-16 to R-STATUS-21).
///
/// The fleet as a whole is asked at a pace of its own, which the driver keeps:
///
/// ```text
///            ask, allowed                                      report
/// wanted ───────────────────────────────────────────► asked ──────────► complete
///    │                                                  ▲
///    │ ask, not allowed                  permit         │ ask
///    └───────────────────► deferred ───────────────► permitted
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resync {
    pacer: Pacer,
    /// What the last answer to the request left out.
    lacking: PartSet,
    pending: bool,
    unsolicited: bool,
    /// A request was due and not allowed, and none was made since.
    deferred: bool,
    /// The driver was told, and has not permitted it yet: it is told once.
    in_line: bool,
    permitted: bool,
}

/// What became of a request that may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is due and may not be made: the driver is to know.
    Deferred,
    No,
    Now,
    /// Now, as the driver permitted it before.
    Permitted,
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
        let ask = self.is_due(now, spacing);
        if ask {
            self.asked = self.asked.saturating_add(1);
            self.last_asked = now;
        }
        ask
    }

    fn is_due(&self, now: Mono, spacing: Duration) -> bool {
        self.asked < PROMPT_REQUESTS || now - self.last_asked >= spacing
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
            // The driver goes on thinking that this agent waits, until its turn comes.
            *self = Self { in_line: self.in_line, ..Self::default() };
        } else if answers {
            self.lacking = lacking;
        } else if incomplete && !self.pending {
            self.request(false);
        }
    }

    /// The connection changed: a request may have been lost with it, and a permission was for the one before.
    pub(super) fn reconnected(&mut self) {
        self.pacer.asked = 0;
        self.permitted = false;
    }

    /// Makes full state wanted, from the application (`unsolicited`) or from a gap.
    pub(super) fn request(&mut self, unsolicited: bool) {
        self.pending = true;
        self.pacer.asked = 0;
        self.lacking = PartSet::NONE;
        self.unsolicited = unsolicited;
    }

    /// Whether to set ReportFullState in the answer being written, if the fleet's pace allows one more.
    pub(super) fn ask(&mut self, now: Mono, spacing: Duration, allowed: bool) -> Asked {
        if !self.pending || !self.pacer.is_due(now, spacing) {
            return Asked::No;
        }
        if !allowed && !self.permitted {
            self.deferred = true;
            let told = std::mem::replace(&mut self.in_line, true);
            return if told { Asked::No } else { Asked::Deferred };
        }
        self.pacer.ask(now, spacing);
        (self.unsolicited, self.deferred) = (false, false);
        if std::mem::take(&mut self.permitted) { Asked::Permitted } else { Asked::Now }
    }

    /// Whether to send a message for the flag alone.
    pub(super) fn ask_unsolicited(&mut self, now: Mono, allowed: bool) -> Asked {
        if self.unsolicited { self.ask(now, Duration::ZERO, allowed) } else { Asked::No }
    }

    /// The agent's turn has come. Whether it is going to be asked: not if that is not needed any more, or it is not `there`;
    /// then it is deferred anew when it comes back and still lacks something.
    pub(super) fn permit(&mut self, there: bool) -> bool {
        self.in_line = false;
        let wanted = std::mem::take(&mut self.deferred) && self.pending && there;
        if wanted {
            (self.permitted, self.unsolicited) = (true, true);
        }
        wanted
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

    fn asks(resync: &mut Resync, now: Mono) -> bool {
        resync.ask(now, SPACING, true) == Asked::Now
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
        assert!(asks(&mut resync, Mono(0)));
        resync.observe(false, bare(), AgentCapabilities::REPORTS_HEALTH, false);
        assert!(asks(&mut resync, Mono(1)));
        resync.observe(false, described(), AgentCapabilities::REPORTS_HEALTH, false);
        assert!(!asks(&mut resync, Mono(2)));
    }

    #[test]
    fn an_agent_that_ignores_the_request_is_neither_flooded_nor_given_up() {
        let mut resync = Resync::default();
        resync.observe(true, bare(), AgentCapabilities::NONE, false);
        let asked: Vec<u64> = (0..100_000)
            .step_by(100)
            .filter(|&at| {
                resync.observe(false, bare(), AgentCapabilities::NONE, false);
                asks(&mut resync, Mono(at))
            })
            .collect();
        assert_eq!(asked, [0, 100, 200, 30_200, 60_200, 90_200]);
    }

    #[test]
    fn a_complete_report_needs_no_request_even_across_a_gap() {
        let mut resync = Resync::default();
        resync.observe(true, described(), AgentCapabilities::NONE, false);
        assert!(!asks(&mut resync, Mono(0)));
        resync.observe(true, described(), AgentCapabilities::REPORTS_HEALTH, false);
        assert!(asks(&mut resync, Mono(0)), "health is promised and missing");
    }

    #[test]
    fn where_requests_may_be_lost_a_partial_report_is_believed_when_the_next_one_is_alike() {
        let agent = AgentCapabilities::REPORTS_HEALTH | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG;
        let mut resync = Resync::default();
        resync.observe(true, bare(), agent, true);
        assert!(asks(&mut resync, Mono(0)), "and this request is lost");
        resync.observe(false, described(), agent, true);
        assert!(asks(&mut resync, Mono(1)), "a description that was not acknowledged comes again by itself");
        resync.observe(false, described().with(Part::Health), agent, true);
        assert!(asks(&mut resync, Mono(2)), "it has more than was thought");
        resync.observe(false, described().with(Part::Health), agent, true);
        assert!(!asks(&mut resync, Mono(60_000)), "it has no configuration");
    }

    #[test]
    fn a_request_lost_with_its_connection_is_made_again() {
        let agent = AgentCapabilities::REPORTS_HEALTH;
        let mut resync = Resync::default();
        resync.observe(true, bare(), agent, false);
        assert!(asks(&mut resync, Mono(0)));
        resync.reconnected();
        resync.observe(false, described(), agent, false);
        assert!(asks(&mut resync, Mono(1)));
        resync.observe(false, described(), agent, false);
        assert!(!asks(&mut resync, Mono(2)));
    }

    #[test]
    fn a_request_that_is_not_allowed_is_deferred_once_and_made_when_its_turn_comes() {
        let mut resync = Resync::default();
        resync.observe(true, bare(), AgentCapabilities::NONE, false);
        assert_eq!(resync.ask(Mono(0), SPACING, false), Asked::Deferred);
        for at in 1..100 {
            resync.observe(false, bare(), AgentCapabilities::NONE, false);
            assert_eq!(resync.ask(Mono(at), SPACING, false), Asked::No, "the driver knows already");
        }
        assert_eq!(resync.ask_unsolicited(Mono(100), false), Asked::No, "its turn has not come");
        assert!(resync.permit(true));
        assert_eq!(resync.ask_unsolicited(Mono(100), false), Asked::Permitted);
        assert_eq!(resync.ask_unsolicited(Mono(100), false), Asked::No, "once");
        resync.observe(false, described(), AgentCapabilities::NONE, false);
        assert_eq!(resync.ask(Mono(101), SPACING, true), Asked::No);
    }

    #[test]
    fn an_agent_has_one_place_in_the_line_however_often_it_falls_behind() {
        let mut resync = Resync::default();
        let mut deferred = 0;
        for at in 0..50 {
            resync.observe(true, bare(), AgentCapabilities::NONE, false);
            deferred += u32::from(resync.ask(Mono(at), SPACING, false) == Asked::Deferred);
            resync.observe(false, described(), AgentCapabilities::NONE, false);
        }
        assert_eq!(deferred, 1);
        assert!(!resync.permit(true), "it needs nothing any more");
        resync.observe(true, bare(), AgentCapabilities::NONE, false);
        assert_eq!(resync.ask(Mono(50), SPACING, false), Asked::Deferred, "and has left the line");
    }

    #[test]
    fn a_turn_is_not_spent_on_an_agent_that_was_asked_meanwhile_or_is_gone() {
        let mut resync = Resync::default();
        resync.observe(true, bare(), AgentCapabilities::NONE, false);
        assert_eq!(resync.ask(Mono(0), SPACING, false), Asked::Deferred);
        assert_eq!(resync.ask(Mono(1), SPACING, true), Asked::Now);
        assert!(!resync.permit(true), "asked meanwhile");

        resync.reconnected();
        assert_eq!(resync.ask(Mono(2), SPACING, false), Asked::Deferred);
        assert!(!resync.permit(false), "gone");
        resync.reconnected();
        assert_eq!(
            resync.ask(Mono(3), SPACING, false),
            Asked::Deferred,
            "it is back and still lacks something"
        );
        assert!(resync.permit(true));
        resync.reconnected();
        assert_eq!(
            resync.ask(Mono(4), SPACING, false),
            Asked::Deferred,
            "a permission was for the connection before"
        );
    }
}
