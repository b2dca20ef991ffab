//! What messages of the server lead to.

use opamp_proto::pb::ServerErrorResponseType as ErrorType;
use opamp_proto::{
    ConfigHash, InstanceUid, Mono, Now, ServerCapabilities, ServerToAgentFlags, UidError, frame, pb,
};

use super::Session;
use super::incoming::{self, Malformed, ServerMessage};
use super::link::Link;
use super::offers::Offered;
use super::outbox::{CloseCode, Outbox, Output};
use super::remote_config;
use super::report::Refusal;
use crate::event::{Event, ServerErrorKind, ServerFault, Transport};
use crate::failure::{Failure, FailureKind, peer_text};
use crate::retry;

impl Session {
    /// A message over WebSocket, or the answer of an exchange.
    pub(super) fn received(&mut self, bytes: &[u8], at: Now, out: &mut Outbox) {
        let now = at.mono;
        let Link::Open(open) = &mut self.link else { return };
        open.heard = now;
        self.stats.messages_received += 1;
        let websocket = self.endpoints.transport() == Transport::WebSocket;
        let payload = match (websocket, self.settings.headerless) {
            (true, false) => frame::decode(bytes).map_err(Malformed::from),
            (true, true) => frame::decode_either(bytes).map(|(payload, _)| payload).map_err(Malformed::from),
            (false, _) => Ok(bytes),
        };
        let before = open.faults;
        match payload.and_then(|payload| self.message(payload, at, out)) {
            Ok(()) => self.end_of_faults(before, now, out),
            Err(malformed) => self.malformed(&malformed, now, out),
        }
    }

    /// A message that decodes is processed as a whole; one that does not has no effect at all.
    fn message(&mut self, bytes: &[u8], at: Now, out: &mut Outbox) -> Result<(), Malformed> {
        let now = at.mono;
        let bytes = incoming::merged(bytes)?;
        let message = ServerMessage::decode(&bytes)?;
        let error = message.error()?;
        let command = message.command()?;
        let identification = message.identification()?;
        let offer = match self.abilities.remote_config {
            true => message.remote_config(self.settings.config_files_max)?,
            false => None,
        };
        let connections = match self.abilities.connections() {
            true => message.connections(self.settings.settings_bytes_max)?,
            false => None,
        };
        let packages = match self.abilities.packages {
            true => message.packages(self.settings.packages_bytes_max)?,
            false => None,
        };
        let custom_capabilities = message.custom_capabilities(self.settings.custom_capabilities_max);
        let custom = if self.has_custom() { message.custom_message()? } else { None };
        let mine = self.is_mine(message.instance_uid);
        let leaving = matches!(&self.link, Link::Open(open) if open.leaving.is_some());
        let ignored = !mine || leaving;
        self.stats.foreign += u64::from(!mine);
        if self.endpoints.transport() == Transport::Http {
            if !mine {
                // Of what was sent nothing is known: something on the path mixes up answers.
                let detail = "the answer is for another agent";
                self.failed(Failure::new(FailureKind::Protocol, detail), now, out);
                return Ok(());
            }
            // Unavailable is no answer: what was sent is sent again.
            let unavailable = error.as_ref().is_some_and(|error| error.r#type() == ErrorType::Unavailable);
            if ignored || !unavailable {
                self.sent();
                self.reached(now, out);
            }
            if ignored {
                self.answered();
            }
        }
        if ignored {
            return Ok(());
        }
        if let Some(error) = error {
            self.learn(message.capabilities);
            if self.connections.is_trying() && error.r#type() != ErrorType::Unavailable {
                // The server is there, and cannot do with this agent.
                let detail = format!("the first answer is an error: {}", peer_text(&error.error_message));
                let failure = Failure::new(FailureKind::Protocol, detail);
                self.failed(failure, now, out);
                return Ok(());
            }
            self.server_error(&error, now, out);
            return Ok(());
        }
        self.answered();
        self.trial_passed(at, out);
        self.do_without(out);
        if let Some(command) = command {
            // A command is alone, whatever stands beside it (R-CMD-02).
            if self.abilities.restart && command.r#type == pb::CommandType::Restart as i32 {
                out.push(Output::Restart);
            }
            return Ok(());
        }
        self.learn(message.capabilities);
        if let Some(identification) = identification {
            self.adopt(&identification.new_instance_uid, now, out);
        }
        if self.settings.heartbeat.is_some()
            && !self.abilities.opamp_settings
            && let Some(seconds) = message.heartbeat_seconds()
        {
            self.offered_interval = Some(seconds);
        }
        if let Some(offer) = offer {
            self.offered(offer, out);
        }
        if let Some((hash, content)) = connections {
            self.offered_connections(hash, content, now, out);
        }
        if let Some((hash, content)) = packages {
            self.offered_packages(hash, content, out);
        }
        if let Some(theirs) = custom_capabilities {
            self.learn_custom(theirs);
        }
        if let Some(custom) = custom {
            self.received_custom(custom, out);
        }
        let flags = ServerToAgentFlags::from_bits(message.flags);
        if flags.contains(ServerToAgentFlags::REPORT_FULL_STATE) {
            self.full_state.demanded(now, self.settings.full_state_spacing);
        }
        if flags.contains(ServerToAgentFlags::REPORT_AVAILABLE_COMPONENTS) {
            self.demand_components(now);
        }
        Ok(())
    }

    fn answered(&mut self) {
        self.report.answered();
        if let Link::Open(open) = &mut self.link {
            open.awaiting = None;
            open.unanswered = 0;
        }
    }

    /// An empty uid is nobody else's: it stands in answers to what could not be read.
    fn is_mine(&self, uid: &[u8]) -> bool {
        let is = |known: &InstanceUid| known.as_bytes() == uid;
        uid.is_empty() || is(&self.uid) || self.previous_uid.as_ref().is_some_and(is)
    }

    /// What the server can do. 0 means that it is not repeated (R-CAP-11).
    fn learn(&mut self, capabilities: u64) {
        if capabilities != 0 {
            self.server = Some(ServerCapabilities::from_bits(capabilities));
        }
    }

    /// The server gives the agent another identity (R-ID-08, R-ID-12).
    fn adopt(&mut self, bytes: &[u8], now: Mono, out: &mut Outbox) {
        let to = match InstanceUid::try_from(bytes) {
            Ok(to) => to,
            Err(UidError::Length { found: length }) => {
                return self.fault(ServerFault::IdentityLength { length }, out);
            }
            Err(UidError::Text) => return,
        };
        let (from, confirmed) = (self.uid, self.uid_assigned);
        self.uid_assigned = true;
        if from == to {
            if !confirmed {
                out.push(Output::Persist);
            }
            return;
        }
        if let Link::Open(open) = &mut self.link
            && open.is_adopting_without_end(now, self.settings.full_state_spacing)
        {
            let detail = "the server changes the identity of this agent over and over";
            return self.break_off(
                Failure::new(FailureKind::Protocol, detail),
                CloseCode::Protocol,
                now,
                out,
            );
        }
        self.previous_uid = Some(from);
        self.uid = to;
        self.describe();
        self.renew_identity();
        out.push(Output::Persist);
        out.event(Event::IdentityAssigned { from, to });
    }

    fn offered(&mut self, offer: pb::AgentRemoteConfig, out: &mut Outbox) {
        if offer.config_hash.is_empty() {
            return self.fault(ServerFault::ConfigWithoutHash, out);
        }
        let (length, max) = (offer.config_hash.len(), self.settings.config_hash_bytes_max);
        if length > max {
            return self.fault(ServerFault::ConfigHashLength { length, max }, out);
        }
        // A copy of its own: a slice would keep the whole message alive.
        let hash = ConfigHash::new(offer.config_hash.to_vec());
        let content = remote_config::content(&hash, offer.config);
        let offered = self.config.offer(hash, content);
        if offered == Offered::Known {
            return;
        }
        self.report.set(opamp_proto::Part::RemoteConfigStatus, remote_config::status(&self.config));
        out.push(Output::Persist);
        if let Offered::Apply(config) = offered {
            out.push(Output::Apply(config));
        }
    }

    /// What was on its way is refused, or comes again later; offers beside an error are not taken (R-MSG-12).
    fn server_error(&mut self, error: &pb::ServerErrorResponse, now: Mono, out: &mut Outbox) {
        let message = peer_text(&error.error_message);
        let kind = match error.r#type() {
            ErrorType::Unavailable => {
                let after = match &error.details {
                    Some(pb::server_error_response::Details::RetryInfo(info)) => {
                        retry::retry_info(info.retry_after_nanoseconds)
                    }
                    None => None,
                };
                let detail = format!("the server is unavailable: {message}");
                let failure = Failure::new(FailureKind::Throttled, detail).with_retry_after(after);
                return self.throttled(failure, now, out);
            }
            ErrorType::BadRequest => ServerErrorKind::BadRequest,
            ErrorType::Unknown => ServerErrorKind::Unknown,
        };
        if kind == ServerErrorKind::BadRequest && self.is_request_refused(&message, now, out) {
            return self.answered();
        }
        let unanswered = if let Link::Open(open) = &self.link { open.unanswered } else { 0 };
        self.report.refuse(Refusal::Error);
        self.answered();
        out.event(Event::ServerError { kind, message });
        if let Link::Open(open) = &mut self.link {
            open.unanswered = unanswered.saturating_sub(1);
            // An answer to nothing.
            open.faults += u32::from(unanswered == 0 && self.endpoints.transport() == Transport::WebSocket);
        }
    }

    /// Something in a message that is otherwise good makes no sense.
    pub(super) fn fault(&mut self, fault: ServerFault, out: &mut Outbox) {
        if let Link::Open(open) = &mut self.link {
            open.faults += 1;
        }
        out.event(Event::ServerFault(fault));
    }

    /// A message without fault ends the row. After too many the connection is no good: each is an event and a line of
    /// log, at whatever pace the server likes.
    fn end_of_faults(&mut self, before: u32, now: Mono, out: &mut Outbox) {
        let Link::Open(open) = &mut self.link else { return };
        if open.faults == before {
            open.faults = 0;
        } else if open.faults >= self.settings.faults_max {
            let detail = format!("{} messages in a row made no sense", open.faults);
            self.break_off(Failure::new(FailureKind::Protocol, detail), CloseCode::Protocol, now, out);
        }
    }

    /// Over HTTP an answer that makes no sense is no answer; over WebSocket it is ignored, unless there is no end to it.
    fn malformed(&mut self, malformed: &Malformed, now: Mono, out: &mut Outbox) {
        self.stats.malformed += 1;
        let Link::Open(open) = &mut self.link else { return };
        let what = peer_text(&malformed.to_string());
        if self.endpoints.transport() == Transport::Http {
            let detail = format!("the answer is not OpAMP: {what}");
            return self.failed(Failure::new(FailureKind::Protocol, detail), now, out);
        }
        open.faults += 1;
        if open.faults >= self.settings.faults_max {
            let detail = format!("{} malformed messages in a row: {what}", open.faults);
            let failure = Failure::new(FailureKind::Protocol, detail);
            return self.break_off(failure, CloseCode::Protocol, now, out);
        }
        out.event(Event::ServerFault(ServerFault::Malformed { what }));
    }
}
