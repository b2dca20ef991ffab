//! What is sent, and in which message.

use opamp_proto::{AgentCapabilities, InstanceUid, Now, Part, PartSet, pb};

use super::offer::Circumstances;
use super::resync::Asked;
use super::{Outbox, Session};
use crate::capability::ReportComponents;
use crate::custom::{CustomCapabilities, CustomMessage};
use crate::desired::{ConnectionSettingsOffer, PackagesOffer, RemoteConfigOffer, SettingsParts};
use crate::snapshot::{ChangedFacts, Liveness, Transport};

/// Room for `instance_uid`, header, flags, capabilities, identification, and the tags and lengths of what is sent beside.
pub(super) const ENVELOPE_BYTES: usize = 128;

/// What goes into one message beside identity and capabilities.
#[derive(Default)]
struct Plan {
    full_state: bool,
    components: bool,
    assigned: Option<InstanceUid>,
    remote_config: Option<RemoteConfigOffer>,
    settings: Option<(ConnectionSettingsOffer, SettingsParts)>,
    packages: Option<PackagesOffer>,
    custom_capabilities: Option<CustomCapabilities>,
    custom_message: Option<CustomMessage>,
}

/// The bytes one message may still take.
struct Room {
    left: usize,
    whole: usize,
}

/// Whether something can go into a message.
enum Fit {
    Never,
    NotHere,
    Now,
}

impl Plan {
    fn is_empty(&self) -> bool {
        let offers = self.remote_config.is_some() || self.settings.is_some() || self.packages.is_some();
        let custom = self.custom_capabilities.is_some() || self.custom_message.is_some();
        !(offers || custom || self.full_state || self.components || self.assigned.is_some())
    }
}

impl Room {
    fn new(send_bytes_max: usize) -> Self {
        let whole = send_bytes_max.saturating_sub(ENVELOPE_BYTES);
        Self { left: whole, whole }
    }

    fn take(&mut self, bytes: usize) -> Fit {
        if bytes > self.whole {
            return Fit::Never;
        }
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Fit::Now
            }
            None => Fit::NotHere,
        }
    }
}

impl Session {
    /// Answers a message that was processed: one message, on a WebSocket with more behind it if there is more.
    pub(super) fn answer(&mut self, uid: InstanceUid, accepted: PartSet, now: Now, out: &mut Outbox) {
        let acknowledges = accepted.iter().any(Part::is_status);
        if self.transport == Transport::Http
            && let Some(why) = self.refusal_instead_of_answer(acknowledges)
        {
            self.push_refusal(&why, out);
            return;
        }
        let asked = self.resync.ask(now.mono, out.settings.repeat_after, out.full_state_allowed);
        let mut plan = Plan {
            full_state: note_asked(asked, out),
            assigned: self.facts.assigned_uid.filter(|assigned| *assigned != uid),
            ..Plan::default()
        };
        let mut room = Room::new(out.settings.send_bytes());
        self.plan_rest(&mut plan, &mut room, accepted, now, out);
        if self.negotiated.permit::<ReportComponents>().is_some()
            && let Some(extra) = &mut self.extra
        {
            plan.components = extra.components.ask(now.mono, out.settings.repeat_after);
        }
        let restart = self.restart_due.then(|| self.negotiated.permit()).flatten();
        self.restart_due = restart.is_some(); // withdrawn capability: the order is void
        match restart {
            Some(permit) if plan.is_empty() => {
                let mut reply = out.begin(Some(&uid));
                reply.capabilities(self.negotiated.server());
                let message = reply.restart(&permit);
                out.push(message);
                out.effects.restarts += 1;
                self.restart_due = false;
            }
            _ => {
                plan.custom_message = self.next_custom(&mut room, out);
                self.write(&plan, uid, out);
            }
        }
        if self.transport == Transport::WebSocket {
            self.send_behind(now, out);
        }
    }

    /// Sends what is due without being asked; WebSocket only.
    pub(super) fn wake(&mut self, now: Now, out: &mut Outbox) {
        if self.transport == Transport::Http || self.liveness == Liveness::Disconnected {
            return;
        }
        self.written();
        self.send_behind(now, out);
    }

    /// What was put into the outbox before has left.
    pub(super) fn written(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.written();
        }
    }

    /// What was put into the outbox before has not left.
    pub(super) fn unwritten(&mut self, out: &mut Outbox) {
        self.offer.answer_may_be_lost();
        self.custom_told = 0;
        let Some(extra) = &mut self.extra else { return };
        extra.packages.answer_may_be_lost();
        if extra.delivered.not_written() {
            extra.settings.not_made();
        }
        extra.certificate.not_written();
        let lost = extra.custom.lost();
        self.note_undelivered(lost, out);
    }

    /// Custom messages were dropped that the application was told are sent.
    pub(super) fn note_undelivered(&mut self, messages: u32, out: &mut Outbox) {
        if messages > 0 {
            out.effects.custom_undelivered += messages;
            let dropped = &mut self.facts.sticky.custom_undelivered;
            *dropped = dropped.saturating_add(messages);
            self.facts.mark(ChangedFacts::STICKY);
        }
    }

    /// Everything that is due, in as many messages as it takes: each ends with a custom message, and the command is alone in
    /// its own (R-CMD-01). Ends because every round takes something that is due, and nothing becomes due meanwhile.
    fn send_behind(&mut self, now: Now, out: &mut Outbox) {
        loop {
            let asked = self.resync.ask_unsolicited(now.mono, out.full_state_allowed);
            let mut plan = Plan { full_state: note_asked(asked, out), ..Plan::default() };
            let mut room = Room::new(out.settings.send_bytes());
            self.plan_rest(&mut plan, &mut room, PartSet::NONE, now, out);
            plan.custom_message = self.next_custom(&mut room, out);
            if plan.is_empty() {
                break;
            }
            self.write(&plan, self.uid, out);
        }
        self.send_restart(out);
        let refusal = self.extra.as_mut().and_then(|extra| extra.certificate.tell());
        if let Some(why) = refusal {
            self.push_refusal(&why, out);
        }
    }

    /// Fills a plan with what is due of offers, flags and the list of custom capabilities.
    fn plan_rest(&mut self, plan: &mut Plan, room: &mut Room, accepted: PartSet, now: Now, out: &mut Outbox) {
        let custom = &out.settings.custom_capabilities;
        if self.custom_told != custom.digest() {
            let fit = room.take(custom.encoded().len());
            if !matches!(fit, Fit::NotHere) {
                self.custom_told = custom.digest();
            }
            match fit {
                Fit::Now => plan.custom_capabilities = Some(custom.clone()),
                Fit::Never => out.effects.discarded_oversize += 1,
                Fit::NotHere => {}
            }
        }
        let circumstances = |reports: AgentCapabilities, part, once_unless_reported| Circumstances {
            reports: self.negotiated.agent().contains(reports),
            reported_now: accepted.contains(part),
            once_unless_reported,
            transport: self.transport,
            now: now.mono,
            spacing: out.settings.repeat_after,
        };
        let of_config =
            circumstances(AgentCapabilities::REPORTS_REMOTE_CONFIG, Part::RemoteConfigStatus, false);
        let of_settings = circumstances(
            AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS,
            Part::ConnectionSettingsStatus,
            true,
        );
        let of_packages =
            circumstances(AgentCapabilities::REPORTS_PACKAGE_STATUSES, Part::PackageStatuses, false);

        if self.negotiated.permit::<crate::capability::RemoteConfig>().is_some()
            && let Some(offer) = self.offer.due(&of_config)
        {
            match room.take(offer.encoded().len()) {
                Fit::Now => {
                    self.offer.sent(now);
                    plan.remote_config = Some(offer);
                }
                Fit::Never if self.offer.exceeds_limit() => self.note_oversize(out),
                Fit::Never | Fit::NotHere => {}
            }
        }
        let Some(extra) = self.extra.as_deref_mut() else { return };
        let mut oversize = 0;
        let permitted = self.negotiated.settings_permits().parts();
        if let Some(offer) = extra.settings.desired().filter(|offer| !(offer.parts() & permitted).is_empty())
            && !extra.delivered.to_send(offer, permitted).is_empty()
            && let Some(offer) = extra.settings.due(&of_settings)
        {
            let parts = extra.delivered.to_send(&offer, permitted);
            match room.take(offer.encoded_len_max(parts)) {
                Fit::Now => {
                    extra.settings.sent(now);
                    extra.delivered.sent(&offer, parts);
                    plan.settings = Some((offer, parts));
                }
                Fit::Never => oversize += u32::from(extra.settings.exceeds_limit()),
                Fit::NotHere => {}
            }
        }
        if self.negotiated.permit::<crate::capability::Packages>().is_some()
            && let Some(offer) = extra.packages.due(&of_packages)
        {
            match room.take(offer.encoded().len()) {
                Fit::Now => {
                    extra.packages.sent(now);
                    plan.packages = Some(offer);
                }
                Fit::Never => oversize += u32::from(extra.packages.exceeds_limit()),
                Fit::NotHere => {}
            }
        }
        for _ in 0..oversize {
            self.note_oversize(out);
        }
    }

    fn next_custom(&mut self, room: &mut Room, out: &mut Outbox) -> Option<CustomMessage> {
        let extra = self.extra.as_mut().filter(|extra| !extra.custom.is_empty())?;
        let message = extra.custom.pop(|bytes| matches!(room.take(bytes), Fit::Now))?;
        out.effects.custom_sent += 1;
        Some(message)
    }

    /// Writes one message.
    fn write(&mut self, plan: &Plan, uid: InstanceUid, out: &mut Outbox) {
        let mut effects = out.effects;
        let mut reply = out.begin(Some(&uid));
        if let (Some(offer), Some(permit)) = (&plan.remote_config, self.negotiated.permit()) {
            reply.remote_config(&permit, offer);
            effects.offers += 1;
        }
        if let Some((offer, parts)) = &plan.settings {
            reply.connection_settings(&self.negotiated.settings_permits(), offer, *parts);
            effects.settings_offers += 1;
        }
        if let (Some(offer), Some(permit)) = (&plan.packages, self.negotiated.permit()) {
            reply.packages_available(&permit, offer);
            effects.package_offers += 1;
        }
        if plan.full_state {
            reply.report_full_state();
            effects.full_state_requests += 1;
        }
        if let (true, Some(permit)) = (plan.components, self.negotiated.permit()) {
            reply.report_available_components(&permit);
            effects.component_requests += 1;
        }
        reply.capabilities(self.negotiated.server());
        if let Some(assigned) = &plan.assigned {
            reply.agent_identification(assigned);
        }
        if let Some(custom) = &plan.custom_capabilities {
            reply.custom_capabilities(custom);
        }
        if let Some(message) = &plan.custom_message {
            reply.custom_message(message);
        }
        let message = reply.finish();
        out.push(message);
        out.effects = effects;
        if plan.remote_config.is_some() || plan.settings.is_some() || plan.packages.is_some() {
            self.facts.mark(ChangedFacts::OFFER);
        }
        if plan.full_state {
            self.facts.count_quietly(|sticky| &mut sticky.full_state_requests);
        }
    }

    /// The restart command in a message of its own (R-CMD-01); dropped if the agent withdrew the capability.
    fn send_restart(&mut self, out: &mut Outbox) {
        if !std::mem::take(&mut self.restart_due) {
            return;
        }
        let Some(permit) = self.negotiated.permit() else {
            return;
        };
        let mut message = out.begin(Some(&self.uid));
        message.capabilities(self.negotiated.server());
        let message = message.restart(&permit);
        out.push(message);
        out.effects.restarts += 1;
    }

    /// A certificate request was refused: an error that no other field may accompany (R-CSR-14, R-MSG-09).
    fn push_refusal(&self, why: &str, out: &mut Outbox) {
        let message = out.begin(Some(&self.uid)).error(pb::ServerErrorResponseType::BadRequest, why, None);
        out.push(message);
    }

    fn refusal_instead_of_answer(&mut self, acknowledges: bool) -> Option<String> {
        self.extra.as_mut()?.certificate.instead_of_answer(acknowledges)
    }

    fn note_oversize(&mut self, out: &mut Outbox) {
        out.effects.discarded_oversize += 1;
        self.facts.mark(ChangedFacts::OFFER);
    }
}

/// Whether full state is asked for in the message being planned.
fn note_asked(asked: Asked, out: &mut Outbox) -> bool {
    out.effects.full_state_deferred += u32::from(asked == Asked::Deferred);
    out.effects.full_state_permitted += u32::from(asked == Asked::Permitted);
    matches!(asked, Asked::Now | Asked::Permitted)
}
