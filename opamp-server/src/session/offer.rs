//! When a remote configuration is offered, and when not.

use std::time::Duration;

use opamp_proto::{AgentCapabilities, ConfigHash, Fingerprint, Mono, Now, Wall, pb};

use crate::capability::{Negotiated, Permit, RemoteConfig};
use crate::desired::{Desired, RemoteConfigOffer};
use crate::session::outbox::{Effects, SessionSettings};
use crate::snapshot::{RemoteConfigReport, Transport};

/// Offers of one hash that may follow each other message by message before they are spaced in time.
const PROMPT_OFFERS: u8 = 3;
/// Room for `instance_uid`, header, flags, capabilities and identification beside an offer.
const ENVELOPE_BYTES: usize = 96;

/// The desired configuration against the reported one.
#[derive(Debug, Default)]
pub(super) struct OfferState {
    desired: Option<Box<Desired>>,
    last_offered: Option<(Mono, Wall)>,
    generation: u64,
    offers: u8,
    /// The agent reports the desired hash.
    current: bool,
    /// The agent reported FAILED for the desired hash since it was desired.
    failed: bool,
    /// The agent had reported FAILED for the desired hash when it was desired anew.
    retry: bool,
    /// The last offer may not have reached the agent: no reason to wait with the next.
    lost: bool,
    too_large: bool,
}

impl OfferState {
    /// Takes a new desired state over. The same hash in a new generation is a new try; in the same generation it is
    /// no news, and an older generation is none either.
    pub(super) fn desire(&mut self, desired: Desired, reported: Option<&RemoteConfigReport>) {
        let hash = |desired: &Desired| desired.remote_config.as_ref().map(RemoteConfigOffer::fingerprint);
        if desired.generation < self.generation
            || (desired.generation == self.generation && self.fingerprint() == hash(&desired))
        {
            return;
        }
        *self = Self { generation: desired.generation, lost: true, ..Self::default() };
        if desired.remote_config.is_none() {
            return;
        }
        self.desired = Some(Box::new(desired));
        if let Some(report) = reported
            && self.fingerprint() == Some(report.hash.fingerprint())
        {
            // FAILED is not current: assigning the same configuration again means trying it again.
            self.retry = report.status == pb::RemoteConfigStatuses::Failed as i32;
            self.current = !self.retry;
        }
    }

    /// An earlier process saw the desired configuration fail.
    pub(super) fn restore_failure(&mut self) {
        self.failed = true;
    }

    /// Takes a remote config status over (R-CONF-23).
    pub(super) fn reported(&mut self, report: &RemoteConfigReport) {
        self.current = self.fingerprint() == Some(report.hash.fingerprint());
        if self.current {
            self.failed = report.status == pb::RemoteConfigStatuses::Failed as i32;
            self.offers = 0;
        }
    }

    /// A message was lost, and with it perhaps the last offer.
    pub(super) fn answer_may_be_lost(&mut self) {
        self.lost = true;
    }

    /// The connection changed: whatever was offered on the one before may be gone.
    pub(super) fn reconnected(&mut self) {
        self.lost = true;
        self.offers = 0;
    }

    /// The offer to send now, with leave to send it (R-CONF-24, R-CONF-25, R-CONF-04).
    pub(super) fn due<'caps>(
        &mut self,
        negotiated: &'caps Negotiated,
        reports_config: bool,
        transport: Transport,
        now: Now,
        settings: &SessionSettings,
        effects: &mut Effects,
    ) -> Option<(Permit<'caps, RemoteConfig>, RemoteConfigOffer)> {
        if self.current || self.failed {
            return None;
        }
        if self.retry && self.offers >= PROMPT_OFFERS {
            // It received the retry, knows the hash and stands by its report, as agents may that apply no hash twice.
            self.failed = true;
            return None;
        }
        let offer = self.desired.as_deref()?.remote_config.clone()?;
        let permit = negotiated.permit()?;
        if !self.is_time(negotiated.agent(), reports_config, transport, now.mono, settings.repeat_after) {
            return None;
        }
        if offer.encoded().len() + ENVELOPE_BYTES > settings.send_bytes_max {
            if !self.too_large {
                self.too_large = true;
                effects.discarded_oversize += 1;
            }
            return None;
        }
        self.last_offered = Some((now.mono, now.wall));
        self.offers = self.offers.saturating_add(1);
        self.lost = false;
        Some((permit, offer))
    }

    pub(super) fn offered(&self) -> Option<(ConfigHash, Wall)> {
        let (_, at) = self.last_offered?;
        let offer = self.desired.as_deref()?.remote_config.as_ref()?;
        Some((offer.hash().clone(), at))
    }

    pub(super) fn offered_at(&self) -> Option<Wall> {
        self.last_offered.map(|(_, at)| at)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    fn is_time(
        &self,
        agent: AgentCapabilities,
        reports_config: bool,
        transport: Transport,
        now: Mono,
        spacing: Duration,
    ) -> bool {
        let Some((last, _)) = self.last_offered else {
            return true;
        };
        let waited = now - last;
        if self.lost || reports_config {
            return self.offers < PROMPT_OFFERS || waited >= spacing;
        }
        // A written WebSocket message arrives or the connection breaks; an HTTP answer can vanish unnoticed.
        transport == Transport::Http
            && agent.contains(AgentCapabilities::REPORTS_REMOTE_CONFIG)
            && waited >= spacing * (1u32 << self.offers.min(6))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.desired.as_deref()?.remote_config.as_ref()?.fingerprint())
    }
}
