//! Connections that the server sets: what is in use, what is being handed over, what is to be tried.
//!
//! ```text
//!            begun                  all parts looked at           reported, goodbye said
//! offered ─────────► handed over ──────────────────────► announced ────────────────────► trying
//!    ▲    not too      │                                    │                            │   │
//!    │    often        │ nothing to try                     │ newer offer     first answer   anything else
//!    │                 ▼                                    ▼                            ▼   ▼
//!    └──────────── APPLIED or FAILED ◄──────────────────────┴────────────────────── APPLIED  FAILED
//! ```
//!
//! Each part stands for itself: one that fails is named in the text of FAILED, and the others are in use.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{ConfigHash, Mono, Part, pb};
use prost::Message as _;

use super::full_state::FullState;
use super::input::ConnectionPart;
use super::offers::{ATTEMPTS_MAX, Offer, OfferState, Offered};
use super::outbox::{ConnectionsChange, Outbox, Output};
use super::{Abilities, EndpointInfo, Session};
use crate::config::Rejected;
use crate::connection::{
    InUse, OpampSettings, OtherSettings, Signal, TelemetrySettings, TlsParameters, is_tls,
};
use crate::event::{Event, ServerFault, Transport};
use crate::saved::{OfferStatus, SavedConnections};

/// An offer, with the parts this agent takes.
#[derive(Clone, Debug)]
pub(super) struct ConnectionOffer {
    hash: ConfigHash,
    opamp: Option<pb::OpAmpConnectionSettings>,
    telemetry: Vec<(Signal, pb::TelemetryConnectionSettings)>,
    others: BTreeMap<String, pb::OtherConnectionSettings>,
}

impl Offer for ConnectionOffer {
    fn hash(&self) -> &ConfigHash {
        &self.hash
    }
}

/// The connections of an agent.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// The address the agent was configured with.
    configured: Option<String>,
    pub(super) offers: OfferState<ConnectionOffer>,
    pub(super) accepted: Option<Arc<OpampSettings>>,
    /// What was accepted earlier and cannot be used by this process. Kept, since there may be no other way to a server, until
    /// a server has answered without it.
    set_aside: Option<Arc<OpampSettings>>,
    pub(super) candidate: Option<Arc<OpampSettings>>,
    pub(super) stage: Stage,
    telemetry: BTreeMap<Signal, Arc<TelemetrySettings>>,
    others: BTreeMap<String, Arc<OtherSettings>>,
    /// What the application was given.
    change: Option<Box<ConnectionsChange>>,
    /// What of the offer that is being worked on has failed, and why.
    pub(super) failures: Vec<String>,
    /// The newest offer that is not begun, and when it may be.
    later: Option<(ConfigHash, Result<ConnectionOffer, String>)>,
    pace: FullState,
    /// What an earlier process accepted and this one does not, to be told.
    refused: Vec<String>,
}

/// Where the settings of the OpAMP connection are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// The candidate is saved and examined; it is to be reported, and the old connection to be left.
    Announced,
    #[default]
    Idle,
    /// The candidate is what the agent connects with.
    Trying {
        /// By when the server has to answer.
        until: Mono,
    },
}

impl Connections {
    /// Goes on where an earlier process ended, unless the agent was configured anew or takes less by now. What the policy
    /// of today refuses is not used, and its hash forgotten: the server offers it again, and is told why it is refused.
    pub(super) fn restore(saved: SavedConnections, endpoint: &EndpointInfo, abilities: Abilities) -> Self {
        let configured = Some(endpoint.name.to_string());
        let mut restored = Self { configured, ..Self::default() };
        if saved.configured.is_some() && saved.configured != restored.configured {
            return restored;
        }
        let mut refused = Vec::new();
        let mut stands = |part: ConnectionPart, judged: Result<(), String>| {
            refused.extend(judged.err().map(|why| format!("{part}, as given earlier: {why}")));
        };
        let policy = abilities.policy;
        for (signal, settings) in saved.telemetry.into_iter().filter(|(signal, _)| abilities.takes(*signal)) {
            match policy.check_telemetry(&settings) {
                Ok(()) => drop(restored.telemetry.insert(signal, settings)),
                refused => stands(ConnectionPart::Own(signal), refused),
            }
        }
        for (name, settings) in saved.others.into_iter().filter(|_| abilities.other_connections) {
            match policy.check_tls(settings.tls.as_ref()) {
                Ok(()) => drop(restored.others.insert(name, settings)),
                refused => stands(ConnectionPart::Other(name), refused),
            }
        }
        let in_use = InUse { tls: is_tls(&endpoint.name), durable: abilities.durable };
        let before = saved.accepted.clone().filter(|_| abilities.opamp_settings);
        let [accepted, candidate] = [saved.accepted, saved.candidate].map(|settings| {
            let settings = settings.filter(|_| abilities.opamp_settings)?;
            match policy.check(&settings, in_use) {
                Ok(()) => Some(settings),
                refused => {
                    stands(ConnectionPart::Opamp, refused);
                    None
                }
            }
        });
        restored.set_aside = before.filter(|_| accepted.is_none());
        restored.accepted = accepted;
        restored.refused = refused;
        if !restored.refused.is_empty() {
            return restored;
        }
        let interrupted = |offer: &crate::saved::SavedOffer| {
            offer.status == OfferStatus::Applying && offer.attempts < ATTEMPTS_MAX
        };
        match (saved.offer, candidate) {
            (Some(offer), Some(candidate)) if interrupted(&offer) => {
                restored.offers = OfferState::resume(offer);
                restored.candidate = Some(candidate);
                restored.stage = Stage::Announced;
            }
            (offer, _) => restored.offers = OfferState::restore(offer, "these connection settings"),
        }
        restored
    }

    pub(super) fn saved(&self) -> SavedConnections {
        SavedConnections {
            configured: self.configured.clone(),
            offer: self.offers.saved(),
            accepted: self.accepted.clone().or_else(|| self.set_aside.clone()),
            candidate: self.candidate.clone(),
            telemetry: self.telemetry.clone(),
            others: self.others.clone(),
            request: None,
        }
    }

    /// The settings that the agent connects with, if a server has set them.
    pub(super) fn in_use(&self) -> Option<&Arc<OpampSettings>> {
        match self.stage {
            Stage::Trying { .. } => self.candidate.as_ref(),
            Stage::Announced | Stage::Idle => self.accepted.as_ref(),
        }
    }

    /// Whether the application is at work on an offer.
    pub(super) const fn is_handed_over(&self) -> bool {
        self.change.is_some()
    }

    /// The application did not come to an end with what it was given.
    pub(super) fn abandon(&mut self) {
        self.change = None;
        self.failures.clear();
        self.offers.abandon();
    }

    pub(super) const fn is_trying(&self) -> bool {
        matches!(self.stage, Stage::Trying { .. })
    }

    /// When an offer that had to wait may be begun.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.later.as_ref().and_then(|_| self.pace.deadline())
    }

    /// The encoded `ConnectionSettingsStatus`.
    pub(super) fn status(&self) -> Bytes {
        let status = match self.offers.last() {
            None => pb::ConnectionSettingsStatus::default(),
            Some(last) => pb::ConnectionSettingsStatus {
                last_connection_settings_hash: last.hash.to_bytes(),
                status: match last.status {
                    OfferStatus::Applied => pb::ConnectionSettingsStatuses::Applied,
                    OfferStatus::Applying => pb::ConnectionSettingsStatuses::Applying,
                    OfferStatus::Failed => pb::ConnectionSettingsStatuses::Failed,
                } as i32,
                error_message: last.error.clone(),
            },
        };
        status.encode_to_vec().into()
    }
}

/// Whether two URLs lead to the same host and port, both with TLS or both without, as far as that shows in how they are
/// written.
pub(super) fn is_same_origin(one: &str, other: &str) -> bool {
    let authority = |url: &str| {
        let (_, rest) = url.trim().split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let port = if is_tls(url) { ":443" } else { ":80" };
        Some(authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase())
    };
    is_tls(one) == is_tls(other) && authority(one).is_some() && authority(one) == authority(other)
}

/// The endpoint of settings as the session knows it.
pub(super) fn endpoint_of(settings: &OpampSettings) -> EndpointInfo {
    let scheme = settings.endpoint.trim().split_once("://").map_or("", |(scheme, _)| scheme);
    let http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    EndpointInfo::new(settings.shown().trim(), if http { Transport::Http } else { Transport::WebSocket })
}

impl Session {
    /// Tells what of an earlier process is not accepted any more.
    pub(super) fn tell_refused(&mut self, out: &mut Outbox) {
        for why in std::mem::take(&mut self.connections.refused) {
            out.event(Event::ConnectionSettingsRejected { why });
        }
    }

    /// What was accepted makes no connection any more, because something on this machine has changed: back to what was
    /// configured. The hash is forgotten, so that the server offers it again and is told why not. It stays saved until a server
    /// has answered: the next start may find it usable again.
    pub(super) fn accepted_unusable(&mut self, why: &Rejected, out: &mut Outbox) {
        let Some(accepted) = self.connections.accepted.take() else { return };
        self.connections.set_aside = Some(accepted);
        self.endpoints.accept(self.endpoints.configured().clone());
        if self.connections.stage == Stage::Idle {
            self.connections.offers = OfferState::default();
        }
        let why = format!("opamp, as given earlier: {why}");
        out.event(Event::ConnectionSettingsRejected { why });
        self.tell_connections(out);
    }

    /// A server has answered: what it has set earlier and could not be used is not needed to reach it.
    pub(super) fn do_without(&mut self, out: &mut Outbox) {
        if self.connections.set_aside.take().is_some() {
            out.push(Output::Persist);
        }
    }

    /// The server offers connections: `content` is `None` if it is larger than what is taken.
    pub(super) fn offered_connections(
        &mut self,
        hash: &[u8],
        content: Option<pb::ConnectionSettingsOffers>,
        now: Mono,
        out: &mut Outbox,
    ) {
        if hash.is_empty() {
            return self.fault(ServerFault::ConnectionsWithoutHash, out);
        }
        let (length, max) = (hash.len(), self.settings.config_hash_bytes_max);
        if length > max {
            return self.fault(ServerFault::ConnectionsHashLength { length, max }, out);
        }
        let hash = ConfigHash::new(hash.to_vec());
        let connections = &mut self.connections;
        if connections.offers.is_last(&hash) {
            // Also if the server has changed its mind twice.
            connections.later = None;
            return;
        }
        if connections.later.as_ref().is_some_and(|(known, _)| *known == hash) {
            return;
        }
        let bytes_max = self.settings.settings_bytes_max;
        let content =
            content.ok_or_else(|| format!("the offer is larger than the {bytes_max} bytes this agent takes"));
        let content = content.map(|offer| self.abilities.chosen(hash.clone(), offer));
        self.connections.later = Some((hash, content));
        self.connections.pace.demanded(now, self.settings.settings_spacing);
    }

    /// Begins with the newest offer, unless too many were begun lately, or the agent is between two connections.
    pub(super) fn begin_connections(&mut self, now: Mono, out: &mut Outbox) {
        if self.connections.later.is_none() || self.connections.is_trying() || self.is_stopping() {
            return;
        }
        if !self.connections.pace.take(now) {
            return;
        }
        let Some((hash, content)) = self.connections.later.take() else { return };
        if self.connections.stage == Stage::Announced {
            // Nobody has been left for it yet.
            self.connections.stage = Stage::Idle;
            self.connections.candidate = None;
            self.connections.offers.supersede();
        }
        let why = content.as_ref().err().cloned();
        match self.connections.offers.offer(hash, content) {
            Offered::Known => return,
            Offered::Apply(offer) => self.work_on(offer, out),
            Offered::Noted => {}
        }
        if let Some(why) = why {
            out.event(Event::ConnectionSettingsRejected { why });
        }
        self.tell_connections(out);
    }

    /// Looks at all parts of an offer and hands over what is to be handed over.
    fn work_on(&mut self, offer: ConnectionOffer, out: &mut Outbox) {
        let ConnectionOffer { hash, opamp, telemetry, others } = offer;
        let mut change =
            ConnectionsChange { hash, opamp: None, telemetry: BTreeMap::new(), others: BTreeMap::new() };
        self.connections.failures.clear();
        let mut failed = Vec::new();
        for (signal, offered) in telemetry {
            let known = self.connections.telemetry.get(&signal).map(Arc::as_ref);
            let settings = TelemetrySettings::from(offered).over(known);
            match self.abilities.policy.check_telemetry(&settings) {
                Err(why) => failed.push((ConnectionPart::Own(signal), Rejected::new(why))),
                Ok(()) if known == Some(&settings) => {}
                Ok(()) => drop(change.telemetry.insert(signal, Arc::new(settings))),
            }
        }
        let mut count = self.connections.others.len();
        for (name, offered) in others {
            let known = self.connections.others.get(&name);
            count += usize::from(known.is_none());
            let max = self.settings.other_connections_max;
            let settings =
                known.map(|known| OtherSettings::clone(known)).unwrap_or_default().updated(offered);
            let checked = match self.abilities.policy.check_tls(settings.tls.as_ref()) {
                Ok(()) if known.is_none() && count > max => Err(format!("this agent keeps {max} at most")),
                checked => checked,
            };
            match checked {
                Err(why) => failed.push((ConnectionPart::Other(name), Rejected::new(why))),
                Ok(()) if known.is_some_and(|known| **known == settings) => {}
                Ok(()) => drop(change.others.insert(name, Arc::new(settings))),
            }
        }
        if let Some(offered) = opamp {
            match self.judge(offered) {
                Err(why) => failed.push((ConnectionPart::Opamp, Rejected::new(why))),
                Ok(candidate) => change.opamp = candidate,
            }
        }
        self.note_failures(failed, out);
        if change.opamp.is_none() && change.telemetry.is_empty() && change.others.is_empty() {
            return self.settle_connections(&change.hash, out);
        }
        let change = Box::new(change);
        self.connections.change = Some(change.clone());
        out.push(Output::Connections(change));
    }

    /// What is to be tried of OpAMP settings; `None` if they are in use already.
    fn judge(&mut self, offered: pb::OpAmpConnectionSettings) -> Result<Option<Arc<OpampSettings>>, String> {
        let accepted = self.connections.accepted.as_deref();
        let mut settings = OpampSettings::from(offered).over(accepted);
        let configured = self.endpoints.configured();
        let known = accepted.map_or(&*configured.name, |accepted| &accepted.endpoint);
        let in_use =
            InUse { tls: is_tls(known) || is_tls(&configured.name), durable: self.abilities.durable };
        self.abilities.policy.check(&settings, in_use)?;
        if !settings.complete_key(accepted, self.certificates.key()) {
            return Err("certificate has no private_key, and this agent has not asked for one".to_owned());
        }
        if !self.may_lead_credentials(&settings) {
            settings.headers = Some(Vec::new());
        }
        let accepted = self.connections.accepted.as_deref();
        // The interval alone is no reason to leave.
        let same = match accepted {
            Some(accepted) => {
                let heartbeat_seconds = settings.heartbeat_seconds;
                OpampSettings { heartbeat_seconds, ..accepted.clone() } == settings
            }
            None => {
                let bare = OpampSettings {
                    endpoint: configured.address().to_owned(),
                    heartbeat_seconds: settings.heartbeat_seconds,
                    ..OpampSettings::default()
                };
                !self.abilities.shows_certificate && bare == settings
            }
        };
        let settings = Arc::new(settings);
        if same {
            self.connections.accepted = Some(settings);
            return Ok(None);
        }
        Ok(Some(settings))
    }

    /// Whether settings without headers may be used with the configured ones, as far as that depends on who has made them. The
    /// configured host may be shown what was configured for it, but another server that the agent was moved to must not say by
    /// which authority or through which proxy that host is reached.
    fn may_lead_credentials(&self, settings: &OpampSettings) -> bool {
        let trusted = match self.connections.accepted.as_deref() {
            None => true,
            Some(before) => {
                before.headers.is_none()
                    && is_same_origin(&before.endpoint, self.endpoints.configured().address())
            }
        };
        let verified =
            |tls: &TlsParameters| tls.ca_pem.is_empty() && !tls.system_ca && !tls.insecure_skip_verify;
        settings.headers.is_some()
            || trusted
            || self.abilities.policy.allows_credentials_elsewhere()
            || (settings.tls.as_ref().is_none_or(verified) && settings.proxy.is_none())
    }

    /// The application has taken connections, or not.
    pub(super) fn connections_outcome(
        &mut self,
        hash: &ConfigHash,
        failed: Vec<(ConnectionPart, Rejected)>,
        out: &mut Outbox,
    ) {
        let Some(change) = self.connections.change.take_if(|change| change.hash == *hash) else { return };
        let ConnectionsChange { opamp, telemetry, others, .. } = *change;
        let good = |part: ConnectionPart| !failed.iter().any(|(known, _)| *known == part);
        let telemetry = telemetry.into_iter().filter(|(signal, _)| good(ConnectionPart::Own(*signal)));
        let others = others.into_iter().filter(|(name, _)| good(ConnectionPart::Other(name.clone())));
        let opamp = opamp.filter(|_| good(ConnectionPart::Opamp));
        self.connections.telemetry.extend(telemetry);
        self.connections.others.extend(others);
        self.note_failures(failed, out);
        match opamp {
            // What is not wanted any more is not tried.
            Some(candidate) if self.connections.offers.is_last(hash) => {
                self.connections.candidate = Some(candidate);
                self.connections.stage = Stage::Announced;
                out.push(Output::Persist);
            }
            _ => {
                self.settle_connections(hash, out);
                self.tell_connections(out);
            }
        }
    }

    /// The offer has come to an end; the next one may have waited.
    pub(super) fn settle_connections(&mut self, hash: &ConfigHash, out: &mut Outbox) {
        let failures = std::mem::take(&mut self.connections.failures);
        let result = if failures.is_empty() { Ok(()) } else { Err(Rejected::new(failures.join("; "))) };
        let result = result.map_err(|why| why.reason().to_owned());
        match self.connections.offers.outcome(hash, result) {
            // Who is about to end begins nothing.
            Some(_) if self.is_stopping() => self.connections.offers.abandon(),
            Some(next) => self.work_on(next, out),
            None => {}
        }
    }

    /// What became of connections is saved and reported.
    pub(super) fn tell_connections(&mut self, out: &mut Outbox) {
        self.report.set(Part::ConnectionSettingsStatus, self.connections.status());
        out.push(Output::Persist);
    }

    fn note_failures(&mut self, failed: Vec<(ConnectionPart, Rejected)>, out: &mut Outbox) {
        for (part, why) in failed {
            let why = format!("{part}: {why}");
            out.event(Event::ConnectionSettingsRejected { why: why.clone() });
            self.connections.failures.push(why);
        }
    }

    /// The state could not be saved. A certificate that would be gone after a restart is not taken (R-CONN-15).
    pub(super) fn not_saved(&mut self, out: &mut Outbox) {
        let connections = &mut self.connections;
        let has_certificate = connections.candidate.as_ref().is_some_and(|tried| tried.certificate.is_some());
        if connections.stage != Stage::Announced || !has_certificate {
            return;
        }
        let Some(hash) = connections.offers.last().map(|last| last.hash.clone()) else { return };
        connections.stage = Stage::Idle;
        connections.candidate = None;
        let why = Rejected::new("the state of this agent cannot be saved, so it takes no certificate");
        self.note_failures(vec![(ConnectionPart::Opamp, why)], out);
        self.settle_connections(&hash, out);
        self.tell_connections(out);
    }
}

impl Abilities {
    /// What this agent takes of an offer.
    fn chosen(self, hash: ConfigHash, offer: pb::ConnectionSettingsOffers) -> ConnectionOffer {
        let pb::ConnectionSettingsOffers {
            opamp, own_metrics, own_traces, own_logs, other_connections, ..
        } = offer;
        let signals =
            [(Signal::Logs, own_logs), (Signal::Metrics, own_metrics), (Signal::Traces, own_traces)];
        let taken = signals.into_iter().filter(|(signal, _)| self.takes(*signal));
        ConnectionOffer {
            hash,
            opamp: opamp.filter(|_| self.opamp_settings),
            telemetry: taken.filter_map(|(signal, settings)| Some((signal, settings?))).collect(),
            others: if self.other_connections { other_connections } else { BTreeMap::new() },
        }
    }
}
