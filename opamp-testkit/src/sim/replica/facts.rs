//! From what a session knows of an agent to what an engine is told.
//!
//! A session keeps the newest of everything; engines are told what changed, with the number of the offer that had been
//! sent before. Which offer that is follows from the generation of the desired configuration: the store remembers, beside
//! each generation, the offer it was made for.

use opamp_fleet::rollout::{AgentFact, ConfigStatus, Effective, RolloutId, Withheld};
use opamp_proto::{AgentCapabilities, Fingerprint, Part, hash, material, pb};
use opamp_server::{AgentSnapshot, DisconnectReason, Liveness, Transport};

/// What is known of an agent, as it is written to the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The connection these are of: later ones have larger numbers.
    pub connection: u64,
    /// Whether it is there.
    pub connected: bool,
    /// Whether it said good-bye.
    pub announced: bool,
    /// Whether it polls.
    pub polls: bool,
    /// What it can do.
    pub capabilities: AgentCapabilities,
    /// The latest generation of its desired configuration that was sent to it.
    pub sent: u64,
    /// Its remote config status.
    pub report: Option<Report>,
    /// Its effective configuration, and the generation sent before.
    pub effective: Option<(Fingerprint, u64)>,
    /// Whether it is well, and the generation sent before.
    pub healthy: Option<(bool, u64)>,
    /// The generation that is too large to be sent.
    pub too_large: Option<u64>,
}

/// What an agent said of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which configuration.
    pub hash: Fingerprint,
    /// How it went.
    pub status: ConfigStatus,
    /// Its words.
    pub text: Box<str>,
    /// The generation that had been sent before.
    pub sent: u64,
}

/// One fact for engines.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// For this rollout; none: for all.
    pub rollout: Option<RolloutId>,
    /// The fact.
    pub fact: AgentFact<'a>,
}

impl Facts {
    /// What is known after a session took something in. `self` is what was known before: what has not changed keeps the
    /// generation it was said under.
    #[must_use]
    pub fn after(&self, snapshot: &AgentSnapshot, connection: u64) -> Self {
        let config = &snapshot.remote_config;
        let connected = snapshot.liveness == Liveness::Connected;
        let desired = config.offered.as_ref().map(|(hash, _)| hash.fingerprint());
        let report = config.report.as_ref().map(|report| {
            let hash = report.hash.fingerprint();
            let status = status(report.status);
            let old = self
                .report
                .as_ref()
                .filter(|old| (old.hash, old.status) == (hash, status) && *old.text == *report.error);
            // It stands by a failure although it was offered it again: that is an answer to the new offer.
            let insists = config.failed && desired == Some(hash);
            let sent = match old {
                Some(old) if !insists => old.sent,
                _ if insists => config.generation,
                _ => self.sent,
            };
            Report { hash, status, text: report.error.as_str().into(), sent }
        });
        let effective = snapshot
            .state
            .part(Part::EffectiveConfig)
            .and_then(|bytes| hash::effective_config_hash(bytes).ok())
            .map(|hash| keep(self.effective, hash.fingerprint(), self.sent));
        let healthy = snapshot
            .state
            .part(Part::Health)
            .map(|bytes| keep(self.healthy, material::health_summary(bytes).healthy, self.sent));
        let graceful = matches!(snapshot.disconnect, Some((DisconnectReason::Graceful, _)));
        Self {
            connection,
            connected,
            announced: !connected && graceful,
            polls: snapshot.connection.as_ref().is_some_and(|info| info.transport == Transport::Http),
            capabilities: snapshot.capabilities,
            sent: if config.offered.is_some() { self.sent.max(config.generation) } else { self.sent },
            report: report.or_else(|| self.report.clone()),
            effective: effective.or(self.effective),
            healthy: healthy.or(self.healthy),
            too_large: config.too_large.then_some(config.generation),
        }
    }

    /// The same after it became known that it runs what is desired under this generation without having been sent it by
    /// this replica: another one sent it, and ended before it could say so.
    pub fn runs_desired(&mut self, desired: Fingerprint, generation: u64) {
        let report = self.report.as_mut().filter(|report| {
            report.hash == desired && report.status == ConfigStatus::Applied && report.sent < generation
        });
        if let Some(report) = report {
            report.sent = generation;
            self.sent = self.sent.max(generation);
        }
    }
}

fn keep<T: Copy + PartialEq>(old: Option<(T, u64)>, new: T, sent: u64) -> (T, u64) {
    old.filter(|(old, _)| *old == new).unwrap_or((new, sent))
}

/// A status by its number on the wire.
pub(super) fn status(number: i32) -> ConfigStatus {
    match pb::RemoteConfigStatuses::try_from(number) {
        Ok(pb::RemoteConfigStatuses::Applied) => ConfigStatus::Applied,
        Ok(pb::RemoteConfigStatuses::Applying) => ConfigStatus::Applying,
        Ok(pb::RemoteConfigStatuses::Failed) => ConfigStatus::Failed,
        Ok(pb::RemoteConfigStatuses::Unset) | Err(_) => ConfigStatus::Unset,
    }
}

/// What engines are told of an agent of which `before` was told last. `desired` is what it should run, `offer` the offer
/// of a generation: the latest one not after it. What names an offer is told twice: to the rollout of the offer under its
/// number, and to all under 0, which is right for those that have not offered anything yet.
pub fn told<'a>(
    before: Option<&Facts>,
    after: &'a Facts,
    desired: Option<Fingerprint>,
    offer: impl Fn(u64) -> Option<(RolloutId, u32)>,
) -> Vec<Told<'a>> {
    let mut list = Vec::new();
    let mut all = |fact| list.push(Told { rollout: None, fact });
    let was_connected = before.is_some_and(|before| before.connected);
    let is_another = before.is_some_and(|before| before.connection != after.connection);
    if was_connected && (!after.connected || is_another) {
        all(AgentFact::Disconnected { announced: after.announced });
    }
    if after.connected && (!was_connected || is_another) {
        all(AgentFact::Connected);
    }
    if before.is_none() && !after.connected {
        all(AgentFact::Disconnected { announced: after.announced });
    }
    if before.is_none_or(|before| before.capabilities != after.capabilities) {
        all(AgentFact::Capabilities(after.capabilities));
    }
    if before.is_none_or(|before| before.sent != after.sent)
        && let Some((rollout, offer)) = offer(after.sent)
    {
        list.push(Told { rollout: Some(rollout), fact: AgentFact::Delivered { offer } });
    }
    let mut of = |sent: u64, fact: &dyn Fn(u32) -> AgentFact<'a>| {
        list.push(Told { rollout: None, fact: fact(0) });
        if let Some((rollout, number)) = offer(sent) {
            list.push(Told { rollout: Some(rollout), fact: fact(number) });
        }
    };
    if let Some(report) =
        after.report.as_ref().filter(|_| before.is_none_or(|old| old.report != after.report))
    {
        of(report.sent, &|offer| AgentFact::Reported {
            offer,
            hash: report.hash,
            status: report.status,
            text: Some(&*report.text).filter(|text| !text.is_empty()),
        });
    }
    let effective = after.effective.filter(|_| before.is_none_or(|old| old.effective != after.effective));
    if let Some((config, sent)) = effective {
        let relation = match desired {
            None => Effective::Unknown,
            Some(desired) if desired == config => Effective::Equal,
            Some(_) => Effective::Differs,
        };
        of(sent, &|offer| AgentFact::Effective { offer, relation });
    }
    let healthy = after.healthy.filter(|_| before.is_none_or(|old| old.healthy != after.healthy));
    if let Some((healthy, sent)) = healthy {
        of(sent, &|offer| AgentFact::Health { offer, healthy });
    }
    if let Some(generation) =
        after.too_large.filter(|_| before.is_none_or(|old| old.too_large != after.too_large))
        && let Some((rollout, offer)) = offer(generation)
    {
        let fact = AgentFact::Withheld { offer, why: Withheld::TooLarge };
        list.push(Told { rollout: Some(rollout), fact });
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLOUT: RolloutId = RolloutId::from_bytes([1; 16]);
    const NEW: Fingerprint = Fingerprint::from_bytes([2; 16]);

    fn offer(generation: u64) -> Option<(RolloutId, u32)> {
        (generation >= 2).then_some((ROLLOUT, 1))
    }

    fn well() -> Facts {
        Facts { connection: 1, connected: true, sent: 1, healthy: Some((true, 1)), ..Facts::default() }
    }

    fn kinds(before: Option<&Facts>, after: &Facts) -> Vec<String> {
        let told = told(before, after, Some(NEW), offer);
        told.iter()
            .map(|told| format!("{}{:?}", if told.rollout.is_some() { "+" } else { "" }, told.fact))
            .collect()
    }

    #[test]
    fn what_did_not_change_is_not_told() {
        assert!(kinds(Some(&well()), &well()).is_empty());
    }

    #[test]
    fn a_connection_that_was_replaced_unseen_is_a_fall_and_a_return() {
        let after = Facts { connection: 2, ..well() };
        assert_eq!(kinds(Some(&well()), &after), ["Disconnected { announced: false }", "Connected"]);
    }

    #[test]
    fn a_report_from_before_an_offer_names_no_offer() {
        let report = |sent| Some(Report { hash: NEW, status: ConfigStatus::Applied, text: "".into(), sent });
        let old = kinds(Some(&well()), &Facts { report: report(1), ..well() });
        assert_eq!(old.len(), 1, "{old:?}");
        let new = kinds(Some(&well()), &Facts { report: report(2), ..well() });
        assert_eq!(new.len(), 2, "{new:?}");
        assert!(new[1].starts_with("+Reported { offer: 1,"), "{new:?}");
    }

    #[test]
    fn an_offer_that_left_is_told_to_its_rollout_alone() {
        assert_eq!(kinds(Some(&well()), &Facts { sent: 2, ..well() }), ["+Delivered { offer: 1 }"]);
    }

    #[test]
    fn who_runs_what_is_desired_was_sent_it_by_somebody() {
        let report = Report { hash: NEW, status: ConfigStatus::Applied, text: "".into(), sent: 1 };
        let mut facts = Facts { report: Some(report), ..well() };
        facts.runs_desired(NEW, 2);
        assert_eq!((facts.sent, facts.report.map(|report| report.sent)), (2, Some(2)));
        let mut other = well();
        other.runs_desired(NEW, 2);
        assert_eq!(other.sent, 1);
    }
}
