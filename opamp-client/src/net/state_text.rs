//! The agent's state as text that people can read, but for the settings of connections: there are secrets in those.
//!
//! ```text
//! opamp-agent-state 2
//! uid 0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071
//! uid-assigned no
//! sequence 1042
//! config-hash 01020304
//! config-status failed
//! config-attempts 0
//! config-error no such exporter
//! connections-configured wss://opamp.example.com/v1/opamp
//! connections-hash 0a0b
//! connections-status applied
//! connections-attempts 0
//! connections-error
//! connections-accepted <base64 of a ConnectionSettingsOffers message>
//! connections-candidate <base64 of an OpAMPConnectionSettings message>
//! certificate-request <base64>
//! certificate-key <base64>
//! end
//! ```
//!
//! Version 1 had nothing of connections; it is read as well.

use std::fmt::Write as _;
use std::sync::Arc;

use data_encoding::BASE64;
use opamp_proto::{ConfigHash, SequenceNum, pb};
use prost::Message as _;
use zeroize::Zeroizing;

use crate::connection::{
    CertificateSigningRequest, OpampSettings, OtherSettings, Secret, Signal, TelemetrySettings,
};
use crate::saved::{OfferStatus, SavedConnections, SavedOffer, SavedState};

const FIRST_WORD: &str = "opamp-agent-state";
/// What is written.
const VERSION: u32 = 2;
const LAST_LINE: &str = "end";

pub(super) fn print(state: &SavedState) -> Zeroizing<String> {
    let SavedState { uid, uid_assigned, sequence_num, remote_config, connections } = state;
    let assigned = if *uid_assigned { "yes" } else { "no" };
    let text =
        format!("{FIRST_WORD} {VERSION}\nuid {uid}\nuid-assigned {assigned}\nsequence {sequence_num}\n");
    let mut text = Zeroizing::new(text);
    print_offer("config", remote_config.as_ref(), &mut text);
    print_offer("connections", connections.offer.as_ref(), &mut text);
    if let Some(configured) = &connections.configured {
        line("connections-configured", &configured.escape_default(), &mut text);
    }
    let accepted = accepted_message(connections);
    if accepted != pb::ConnectionSettingsOffers::default() {
        secret_line("connections-accepted", &Zeroizing::new(accepted.encode_to_vec()), &mut text);
    }
    if let Some(candidate) = connections.candidate.as_deref() {
        let message = pb::OpAmpConnectionSettings::from(candidate);
        secret_line("connections-candidate", &Zeroizing::new(message.encode_to_vec()), &mut text);
    }
    if let Some(CertificateSigningRequest { csr, key }) = &connections.request {
        secret_line("certificate-request", csr, &mut text);
        secret_line("certificate-key", key.expose(), &mut text);
    }
    text.push_str(LAST_LINE);
    text.push('\n');
    text
}

fn print_offer(prefix: &str, offer: Option<&SavedOffer>, text: &mut String) {
    if let Some(SavedOffer { hash, status, error, attempts }) = offer {
        // Writing into a string does not fail.
        let _ = write!(
            text,
            "{prefix}-hash {hash}\n{prefix}-status {}\n{prefix}-attempts {attempts}\n{prefix}-error {}\n",
            status.as_str(),
            error.escape_default(),
        );
    }
}

fn line(name: &str, value: &dyn std::fmt::Display, text: &mut String) {
    let _ = writeln!(text, "{name} {value}");
}

fn secret_line(name: &str, bytes: &[u8], text: &mut String) {
    let encoded = Zeroizing::new(BASE64.encode(bytes));
    line(name, &*encoded, text);
}

fn accepted_message(connections: &SavedConnections) -> pb::ConnectionSettingsOffers {
    let own = |signal| connections.telemetry.get(&signal).map(|settings| (&**settings).into());
    let others = connections.others.iter();
    pb::ConnectionSettingsOffers {
        hash: bytes::Bytes::new(),
        opamp: connections.accepted.as_deref().map(Into::into),
        own_metrics: own(Signal::Metrics),
        own_traces: own(Signal::Traces),
        own_logs: own(Signal::Logs),
        other_connections: others.map(|(name, settings)| (name.clone(), (&**settings).into())).collect(),
    }
}

/// The lines of a file.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    fn need(&self, name: &str) -> Result<&'a str, String> {
        self.get(name).ok_or_else(|| format!("{name} is missing"))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        self.need(name)?.parse().map_err(|_| wrong(name))
    }

    fn secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let decode = |text: &str| BASE64.decode(text.as_bytes()).map(Zeroizing::new);
        self.get(name).map(decode).transpose().map_err(|_| wrong(name))
    }

    fn message<M: prost::Message + Default>(&self, name: &str) -> Result<Option<M>, String> {
        let bytes = self.secret(name)?;
        bytes.map(|bytes| M::decode(&bytes[..])).transpose().map_err(|_| wrong(name))
    }

    fn offer(&self, prefix: &str) -> Result<Option<SavedOffer>, String> {
        let name = |field: &str| format!("{prefix}-{field}");
        let Some(hash) = self.get(&name("hash")) else { return Ok(None) };
        let of = |field: &str| wrong(&name(field));
        Ok(Some(SavedOffer {
            hash: ConfigHash::from_hex(hash).map_err(|_| of("hash"))?,
            status: match self.need(&name("status"))? {
                "applied" => OfferStatus::Applied,
                "applying" => OfferStatus::Applying,
                "failed" => OfferStatus::Failed,
                _ => return Err(of("status")),
            },
            error: unescape(self.need(&name("error"))?).ok_or_else(|| of("error"))?,
            attempts: u32::try_from(self.number(&name("attempts"))?).map_err(|_| of("attempts"))?,
        }))
    }

    fn connections(&self) -> Result<SavedConnections, String> {
        let accepted: pb::ConnectionSettingsOffers =
            self.message("connections-accepted")?.unwrap_or_default();
        let candidate: Option<pb::OpAmpConnectionSettings> = self.message("connections-candidate")?;
        let own = [
            (Signal::Logs, accepted.own_logs),
            (Signal::Metrics, accepted.own_metrics),
            (Signal::Traces, accepted.own_traces),
        ];
        let own = own.into_iter().filter_map(|(signal, settings)| Some((signal, settings?)));
        let others = accepted.other_connections.into_iter();
        let request = self.secret("certificate-request")?.zip(self.secret("certificate-key")?);
        let configured = self.get("connections-configured");
        Ok(SavedConnections {
            configured: configured
                .map(|text| unescape(text).ok_or_else(|| wrong("connections-configured")))
                .transpose()?,
            offer: self.offer("connections")?,
            accepted: accepted.opamp.map(|settings| Arc::new(OpampSettings::from(settings))),
            candidate: candidate.map(|settings| Arc::new(OpampSettings::from(settings))),
            telemetry: own
                .map(|(signal, settings)| (signal, Arc::new(TelemetrySettings::from(settings))))
                .collect(),
            others: others
                .map(|(name, settings)| (name, Arc::new(OtherSettings::default().updated(settings))))
                .collect(),
            request: request.map(|(csr, key)| CertificateSigningRequest {
                csr: csr.to_vec(),
                key: Secret::new(key.to_vec()),
            }),
        })
    }
}

fn wrong(name: &str) -> String {
    format!("{name} is not what it should be")
}

pub(super) fn parse(text: &str) -> Result<SavedState, String> {
    let mut lines = text.lines();
    let version =
        lines.next().and_then(|line| line.strip_prefix(FIRST_WORD)?.strip_prefix(' ')?.parse::<u32>().ok());
    match version {
        Some(1..=VERSION) => {}
        Some(newer) => {
            return Err(format!(
                "it is of version {newer}, written by a newer version of this agent; this one reads up to version {VERSION}"
            ));
        }
        None => return Err(format!("the first line is not \"{FIRST_WORD} {VERSION}\"")),
    }
    if lines.next_back() != Some(LAST_LINE) {
        return Err(format!("the last line is not {LAST_LINE:?}: the file is cut off"));
    }
    let fields = Fields(text);
    Ok(SavedState {
        uid: fields.need("uid")?.parse().map_err(|_| wrong("uid"))?,
        uid_assigned: fields.need("uid-assigned")? == "yes",
        sequence_num: SequenceNum(fields.number("sequence")?),
        remote_config: fields.offer("config")?,
        connections: fields.connections()?,
    })
}

/// The inverse of [`str::escape_default`].
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match rest.next()? {
            'n' => plain.push('\n'),
            'r' => plain.push('\r'),
            't' => plain.push('\t'),
            'u' => {
                let digits: String = rest.by_ref().skip(1).take_while(|digit| *digit != '}').collect();
                plain.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
            }
            quoted => plain.push(quoted),
        }
    }
    Some(plain)
}

#[cfg(test)]
pub(super) mod tests {
    use crate::connection::{ClientCertificate, Header};
    use opamp_proto::InstanceUid;
    use proptest::prelude::*;

    use super::*;

    pub(in crate::net) fn state(number: u64) -> SavedState {
        let config = SavedOffer {
            hash: ConfigHash::new(vec![1, 2, 3]),
            status: OfferStatus::Failed,
            error: "line 1\nend\nuid x \\ \u{1F600}".to_owned(),
            attempts: 1,
        };
        SavedState {
            uid: InstanceUid::from_bytes([7; 16]),
            uid_assigned: true,
            sequence_num: SequenceNum(number),
            remote_config: Some(config),
            connections: connections(),
        }
    }

    /// With something of everything.
    fn connections() -> SavedConnections {
        let certificate = ClientCertificate { cert: vec![1], key: Secret::new(vec![0, 255]), ca: vec![3] };
        let opamp = OpampSettings {
            endpoint: "wss://h/v1/opamp?token=x".into(),
            headers: Some(vec![Header::new("authorization", "Bearer x\u{e9}")]),
            certificate: Some(certificate.clone()),
            heartbeat_seconds: 7,
            ..Default::default()
        };
        let telemetry = TelemetrySettings { endpoint: "https://h/v1/logs".into(), ..Default::default() };
        let other = OtherSettings {
            endpoint: "host:1".into(),
            certificate: Some(certificate),
            other: [("k".to_owned(), "v".into())].into(),
            ..Default::default()
        };
        SavedConnections {
            configured: Some("ws://h\nend".to_owned()),
            offer: Some(SavedOffer {
                hash: ConfigHash::new(vec![9]),
                status: OfferStatus::Applying,
                error: String::new(),
                attempts: 2,
            }),
            candidate: Some(Arc::new(OpampSettings { headers: Some(Vec::new()), ..opamp.clone() })),
            accepted: Some(Arc::new(opamp)),
            telemetry: [(Signal::Logs, Arc::new(telemetry))].into(),
            others: [("\nend".to_owned(), Arc::new(other))].into(),
            request: Some(CertificateSigningRequest { csr: b"csr".to_vec(), key: "key".into() }),
        }
    }

    #[test]
    fn a_state_of_version_1_is_read_and_one_of_a_later_version_refused_by_its_number() {
        let old = "opamp-agent-state 1\nuid 07070707-0707-0707-0707-070707070707\nuid-assigned no\nsequence 3\nend\n";
        let state = parse(old).unwrap();
        assert_eq!((state.sequence_num, state.connections), (SequenceNum(3), SavedConnections::default()));
        let error = parse(&old.replace("state 1", "state 3")).unwrap_err();
        assert!(error.contains("version 3") && error.contains("newer"), "{error}");
    }

    #[test]
    fn no_secret_stands_there_in_plain_words() {
        assert!(!print(&state(1)).contains("Bearer"));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_not_taken_for_a_state() {
        let text = print(&state(1));
        for end in 0..text.trim_end().len() {
            if text.is_char_boundary(end) {
                assert!(parse(&text[..end]).is_err(), "{}", &text[..end]);
            }
        }
        assert_eq!(parse(&text), Ok(state(1)));
    }

    #[test]
    fn other_files_are_refused_with_what_is_wrong() {
        let good = print(&state(1));
        for (bad, what) in [
            ("{}".to_owned(), "first line"),
            (good.replace("uid 07", "uid x"), "uid is not"),
            (
                good.replace("connections-status applying", "connections-status odd"),
                "connections-status is not",
            ),
            (good.replace("connections-accepted ", "connections-accepted !"), "connections-accepted is not"),
            (good.replace("certificate-key ", "certificate-key !"), "certificate-key is not"),
            (good.replace("sequence 1", "sequence -1"), "sequence is not"),
            (good.replace("config-status failed", "config-status odd"), "config-status is not"),
            (good.replace("config-hash 010203", "config-hash 1"), "config-hash is not"),
        ] {
            let error = parse(&bad).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_state_round_trips(
            uid: [u8; 16],
            uid_assigned: bool,
            sequence: u64,
            config in proptest::option::of((proptest::collection::vec(any::<u8>(), 0..70), 0..3_u8, any::<String>(), any::<u32>())),
        ) {
            let remote_config = config.map(|(hash, status, error, attempts)| SavedOffer {
                hash: ConfigHash::new(hash),
                status: [OfferStatus::Applied, OfferStatus::Applying, OfferStatus::Failed][usize::from(status)],
                error,
                attempts,
            });
            let uid = InstanceUid::from_bytes(uid);
            let connections = if uid_assigned { connections() } else { SavedConnections::default() };
            let state = SavedState { uid, uid_assigned, sequence_num: SequenceNum(sequence), remote_config, connections };
            prop_assert_eq!(parse(&print(&state)), Ok(state));
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("{FIRST_WORD} {VERSION}\n{text}\n{LAST_LINE}"));
        }
    }
}
