//! Writing `ServerToAgent` messages without intermediate values.

use std::fmt;
use std::ops::Range;

use opamp_proto::{InstanceUid, ServerCapabilities, ServerToAgentFlags, encode, frame, pb};

use crate::capability::{Packages, Permit, RemoteConfig, ReportComponents, Restart, SettingsPermits};
use crate::custom::{CustomCapabilities, CustomMessage};
use crate::desired::{ConnectionSettingsOffer, PackagesOffer, RemoteConfigOffer, SettingsParts};

/// Error texts are for people, and must fit whatever limit is set.
const ERROR_BYTES_MAX: usize = 256;

/// One `ServerToAgent` being written into a buffer, WebSocket header first.
///
/// Fields that a capability gates are written with a [`Permit`] only; see [`crate::capability`].
pub struct Reply<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    flags: ServerToAgentFlags,
}

impl<'o> Reply<'o> {
    /// Begins a message to `uid`, or to nobody if the identity could not be read.
    pub fn new(out: &'o mut Vec<u8>, uid: Option<&InstanceUid>) -> Self {
        let start = out.len();
        out.push(frame::HEADER);
        if let Some(uid) = uid {
            encode::bytes_field(1, uid.as_bytes(), out);
        }
        Self { out, start, flags: ServerToAgentFlags::NONE }
    }

    /// An `error_response`, which excludes every other field (R-MSG-09). Consumes the message for that reason. A text
    /// beyond 256 bytes is cut.
    ///
    /// `retry_after_ns` belongs to type Unavailable and is left out otherwise (R-ERR-08).
    pub fn error(
        self,
        kind: pb::ServerErrorResponseType,
        message: &str,
        retry_after_ns: Option<u64>,
    ) -> Range<usize> {
        use prost::Message as _;
        let details = retry_after_ns.filter(|_| kind == pb::ServerErrorResponseType::Unavailable).map(
            |retry_after_nanoseconds| {
                pb::server_error_response::Details::RetryInfo(pb::RetryInfo { retry_after_nanoseconds })
            },
        );
        let error =
            pb::ServerErrorResponse { r#type: kind as i32, error_message: cut(message).to_owned(), details };
        encode::bytes_field(2, &error.encode_to_vec(), self.out);
        self.finish()
    }

    /// `remote_config`: splices the encoded offer.
    pub fn remote_config(&mut self, _permit: &Permit<'_, RemoteConfig>, offer: &RemoteConfigOffer) {
        encode::bytes_field(3, offer.encoded(), self.out);
    }

    /// `connection_settings`: of `parts` those that are permitted and offered, under the hash over all (R-CONN-16).
    pub fn connection_settings(
        &mut self,
        permits: &SettingsPermits<'_>,
        offer: &ConnectionSettingsOffer,
        parts: SettingsParts,
    ) {
        let mut encoded = Vec::new();
        offer.encode(parts & permits.parts() & offer.parts(), &mut encoded);
        encode::bytes_field(4, &encoded, self.out);
    }

    /// `packages_available`: splices the encoded offer.
    pub fn packages_available(&mut self, _permit: &Permit<'_, Packages>, offer: &PackagesOffer) {
        encode::bytes_field(5, offer.encoded(), self.out);
    }

    /// `flags` with ReportFullState, the one flag that no capability gates.
    pub fn report_full_state(&mut self) {
        self.flags.insert(ServerToAgentFlags::REPORT_FULL_STATE);
    }

    /// `flags` with ReportAvailableComponents.
    pub fn report_available_components(&mut self, _permit: &Permit<'_, ReportComponents>) {
        self.flags.insert(ServerToAgentFlags::REPORT_AVAILABLE_COMPONENTS);
    }

    /// `capabilities`, undefined bits cleared (R-CAP-07).
    pub fn capabilities(&mut self, capabilities: ServerCapabilities) {
        encode::varint_field(7, capabilities.known().bits(), self.out);
    }

    /// `agent_identification`: the identity the agent takes over (R-ID-07).
    pub fn agent_identification(&mut self, new_uid: &InstanceUid) {
        let mut identification = [0; 18];
        identification[0] = 0x0a; // field 1, length-delimited
        identification[1] = 16;
        identification[2..].copy_from_slice(new_uid.as_bytes());
        encode::bytes_field(8, &identification, self.out);
    }

    /// `command` with type Restart, which no other field may accompany beside identity and capabilities
    /// (R-CMD-01). Consumes the message for that reason.
    pub fn restart(self, _permit: &Permit<'_, Restart>) -> Range<usize> {
        encode::bytes_field(9, &[], self.out);
        self.finish()
    }

    /// `custom_capabilities`: the whole list, an empty one included (R-CUST-03).
    pub fn custom_capabilities(&mut self, capabilities: &CustomCapabilities) {
        encode::bytes_field(10, capabilities.encoded(), self.out);
    }

    /// `custom_message`. No bit gates it but the lists of both sides, which [`Session`](crate::session::Session) looks at.
    pub fn custom_message(&mut self, message: &CustomMessage) {
        encode::message_field(11, &message.to_wire(), self.out);
    }

    /// Ends the message; the range it occupies in the buffer, header included.
    pub fn finish(self) -> Range<usize> {
        encode::varint_field(6, self.flags.bits(), self.out);
        self.start..self.out.len()
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_BYTES_MAX)]
}

/// Shows how long the message is so far: offers may hold secrets.
impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("bytes", &(self.out.len() - self.start)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Negotiated;
    use opamp_proto::{AgentCapabilities, ConfigHash};
    use prost::Message as _;

    const UID: InstanceUid = InstanceUid::from_bytes([9; 16]);

    fn decode(out: &[u8], range: Range<usize>) -> pb::ServerToAgent {
        assert_eq!(out[range.start], 0, "the header comes first");
        pb::ServerToAgent::decode(&out[range.start + 1..range.end]).unwrap()
    }

    #[test]
    fn hand_written_fields_are_what_prost_reads() {
        let all =
            Negotiated::new(AgentCapabilities::from_bits(u64::MAX), ServerCapabilities::from_bits(u64::MAX));
        let config = pb::AgentConfigMap::default();
        let offer = RemoteConfigOffer::new(ConfigHash::new(vec![1, 2, 3]), &config);
        let mut out = vec![0xee];
        let mut reply = Reply::new(&mut out, Some(&UID));
        reply.remote_config(&all.permit().unwrap(), &offer);
        reply.report_full_state();
        reply.capabilities(all.server());
        reply.agent_identification(&InstanceUid::from_bytes([4; 16]));
        let range = reply.finish();
        let message = decode(&out, range);
        assert_eq!(&message.instance_uid[..], UID.as_bytes());
        assert_eq!(&message.remote_config.unwrap().config_hash[..], [1, 2, 3]);
        assert_eq!(message.flags, 1);
        assert_eq!(message.capabilities, 0x7f, "undefined bits are never sent");
        assert_eq!(&message.agent_identification.unwrap().new_instance_uid[..], [4; 16]);
        assert!(message.command.is_none() && message.error_response.is_none());
    }

    #[test]
    fn a_command_is_an_empty_message_that_is_present() {
        let all =
            Negotiated::new(AgentCapabilities::from_bits(u64::MAX), ServerCapabilities::from_bits(u64::MAX));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Some(&UID));
        reply.capabilities(all.server());
        let range = reply.restart(&all.permit().unwrap());
        assert_eq!(decode(&out, range).command.unwrap().r#type, 0);
    }

    #[test]
    fn retry_info_belongs_to_unavailable_only() {
        for (kind, expected) in [
            (pb::ServerErrorResponseType::BadRequest, false),
            (pb::ServerErrorResponseType::Unavailable, true),
        ] {
            let mut out = Vec::new();
            let range = Reply::new(&mut out, None).error(kind, "why", Some(5));
            let message = decode(&out, range);
            assert!(message.instance_uid.is_empty());
            let error = message.error_response.unwrap();
            assert_eq!(error.error_message, "why");
            assert_eq!(error.details.is_some(), expected);
        }
    }
}
