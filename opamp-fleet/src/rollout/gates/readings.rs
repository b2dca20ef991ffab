//! What telemetry and external gates go by: the latest values, and what providers were asked and answered.
//!
//! None of it is kept in records: what followed from it is. After a restart values come anew, and providers are asked anew.

use std::collections::BTreeMap;

use super::external::Asked;
use super::{GateConfig, GateKind, Scopes, numbered};
use crate::rollout::plan::Plan;
use crate::rollout::{Act, ExternalVerdict, GateIx, Reading, Sample, Time, WaveIx};

/// The readings of one rollout: at most one of a kind for each gate and wave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings {
    telemetry: BTreeMap<(GateIx, WaveIx), (Sample, Sample)>,
    external: BTreeMap<(GateIx, WaveIx), Asked>,
    /// The last question's number. It follows the time, so that no leader repeats that of another.
    last_ticket: u64,
}

impl Readings {
    /// Takes a value or an answer in. False if it is about nothing in the plan, or answers no open question.
    pub(crate) fn take(&mut self, plan: &Plan, reading: &Reading, now: Time) -> bool {
        match reading {
            Reading::Telemetry { gate, wave, treated, control } => {
                let compares = plan.gates.get(gate.index()).is_some_and(|config| config.kind.is_telemetry());
                let is_known = compares && wave.index() < plan.waves.len();
                if is_known {
                    self.telemetry.insert((*gate, *wave), (*treated, *control));
                }
                is_known
            }
            Reading::External { gate, wave, ticket, verdict, text } => {
                let asked = self.external.get_mut(&(*gate, wave.unwrap_or(WaveIx::TAIL)));
                asked.is_some_and(|asked| asked.answer(*ticket, *verdict, text, now))
            }
        }
    }

    /// Asks the providers of all external gates about a wave, or about all ([`WaveIx::TAIL`]): once for each evaluation. A
    /// question that is open stays.
    pub(crate) fn ask(&mut self, plan: &Plan, wave: WaveIx, now: Time, acts: &mut Vec<Act>) {
        let scope = if wave == WaveIx::TAIL { Scopes::CUMULATIVE } else { Scopes::WAVE };
        for (gate, config) in numbered(plan) {
            let is_open = self.external.get(&(gate, wave)).is_some_and(Asked::is_open);
            if config.kind == GateKind::External && config.scopes.contains(scope) && !is_open {
                let ticket = self.ticket(now);
                self.external.insert((gate, wave), Asked::now(ticket, now));
                acts.push(Act::AskExternal { gate, wave, ticket });
            }
        }
    }

    /// Asks again who has not answered in time, and gives up on who was asked often enough.
    pub(crate) fn expire(&mut self, now: Time, acts: &mut Vec<Act>) {
        let mut last_ticket = self.last_ticket;
        for ((gate, wave), asked) in &mut self.external {
            if asked.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            let ticket = next_ticket(last_ticket, now);
            if asked.ask_again(ticket, now) {
                last_ticket = ticket;
                acts.push(Act::AskExternal { gate: *gate, wave: *wave, ticket });
            }
        }
        self.last_ticket = last_ticket;
    }

    /// When somebody is to be asked again, or given up.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.external.values().filter_map(Asked::deadline).min()
    }

    /// Whether an answer about the wave is outstanding that something depends on: nobody waits for a gate that observes.
    pub(crate) fn waits(&self, plan: &Plan, wave: WaveIx) -> bool {
        let acts = |gate: &GateIx| plan.gates.get(gate.index()).is_some_and(GateConfig::acts);
        self.external.iter().any(|((gate, of), asked)| *of == wave && asked.is_open() && acts(gate))
    }

    /// The wave begins anew: what was known of it is not known any more.
    pub(crate) fn forget(&mut self, wave: WaveIx) {
        self.telemetry.retain(|(_, known), _| *known != wave);
        self.external.retain(|(_, asked), _| *asked != wave);
    }

    /// The latest values of treated agents and of the control group.
    pub(super) fn telemetry(&self, gate: GateIx, wave: WaveIx) -> Option<(Sample, Sample)> {
        self.telemetry.get(&(gate, wave)).copied()
    }

    /// The provider's answer, how often it was asked, and its words; none while it is open or was never asked for.
    pub(super) fn external(&self, gate: GateIx, wave: WaveIx) -> Option<(ExternalVerdict, u8, &str)> {
        self.external.get(&(gate, wave)).and_then(Asked::answered)
    }

    fn ticket(&mut self, now: Time) -> u64 {
        self.last_ticket = next_ticket(self.last_ticket, now);
        self.last_ticket
    }
}

fn next_ticket(last: u64, now: Time) -> u64 {
    last.saturating_add(1).max(now.0)
}
