//! What agents send, ready to be copied: each message is encoded and masked once, and per agent only identity, names and sequence
//! number are patched in. Sending costs one copy and no allocation.

use std::collections::HashMap;

use opamp_proto::encode;
use serde::{Deserialize, Serialize};

use crate::frame;

mod body;

/// Key of all masks. It is fixed: unpredictable keys protect proxies from scripts in browsers (RFC 6455, section 10.3), and the server's
/// work is the same with any.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Different times of status in the same message, so that no two messages of an agent in a row are equal.
const VARIANTS: u64 = 8;
/// Configurations that can be told apart in one run.
pub const CONFIGS_MAX: usize = 4_096;

/// What an agent reports as its full state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nothing: identity and capabilities, and its name when asked.
    #[default]
    None,
    /// About 2 KB: description and health of some components.
    Kib2,
    /// About 10 KB: description, health of 12 components, a configuration of 8 KB and its outcome.
    Kib10,
    /// The same size made of many small parts: health of 60 components, a configuration of 4 KB.
    Kib10Many,
    /// Nothing that is kept, in 10 KB: a custom message of a capability that nobody announces.
    Unkept10,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// That the configuration it was offered is in effect, with that configuration.
    Applied,
    /// The first message of a connection.
    First(State),
    /// The full state, as the server asked for it.
    Full(State),
    /// That it is there: some 30 bytes.
    Heartbeat,
    /// Health of 20 components: about 2 KB.
    Status,
}

/// Who sends, and what differs from agent to agent.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Its `instance_uid`.
    pub uid: [u8; 16],
    /// Its number in the fleet.
    pub index: u32,
    /// The next sequence number.
    pub sequence: u64,
    /// Which configuration it runs, as [`Messages::learn`] numbered it; 0 is its own.
    pub config: u16,
}

/// How messages travel.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// Request line and headers up to the value of `Content-Length`.
    Http(Vec<u8>),
    /// Masked frames.
    WebSocket,
}

/// All messages of a run.
#[derive(Debug)]
pub struct Messages {
    envelope: Envelope,
    heartbeat: Template,
    statuses: Vec<Template>,
    minimal: Template,
    unkept: Template,
    kib2: Vec<Template>,
    /// By configuration and variant.
    kib10: Vec<Vec<Template>>,
    kib10_many: Vec<Vec<Template>>,
    /// By configuration; the agents' own is never applied.
    applied: Vec<Option<Template>>,
    learnt: HashMap<Vec<u8>, u16>,
}

/// The identity of one agent of a run. Seeds keep the agents of several runs on one server apart.
#[must_use]
pub fn uid(seed: u32, index: u32) -> [u8; 16] {
    let mut uid = [0; 16];
    uid[..2].copy_from_slice(&[0x01, 0x9a]);
    uid[2..6].copy_from_slice(&seed.to_be_bytes());
    // Version 7 and the variant of RFC 9562.
    uid[6] = 0x70;
    uid[8] = 0x80;
    uid[12..].copy_from_slice(&index.to_be_bytes());
    uid
}

impl Messages {
    /// Encodes all of them.
    #[must_use]
    pub fn new(envelope: Envelope) -> Self {
        let ws = matches!(envelope, Envelope::WebSocket);
        let variants =
            |of: &dyn Fn(u64) -> Vec<u8>| (0..VARIANTS).map(|at| Template::new(of(at), ws)).collect();
        Self {
            heartbeat: Template::new(body::heartbeat(), ws),
            statuses: variants(&body::status),
            minimal: Template::new(body::minimal(), ws),
            unkept: Template::new(body::unkept(), ws),
            kib2: variants(&body::kib2),
            kib10: vec![variants(&|at| body::kib10(at, None))],
            kib10_many: vec![variants(&|at| body::kib10_many(at, None))],
            applied: vec![None],
            learnt: HashMap::new(),
            envelope,
        }
    }

    /// The number of an offered configuration, which agents report from then on. None when there are too many.
    pub fn learn(&mut self, hash: &[u8], config: &[u8]) -> Option<u16> {
        if let Some(number) = self.learnt.get(hash) {
            return Some(*number);
        }
        let number = self.applied.len();
        if number >= CONFIGS_MAX {
            return None;
        }
        let ws = matches!(self.envelope, Envelope::WebSocket);
        let known = (hash, config);
        self.applied.push(Some(Template::new(body::applied(known), ws)));
        let variants =
            |of: &dyn Fn(u64) -> Vec<u8>| (0..VARIANTS).map(|at| Template::new(of(at), ws)).collect();
        self.kib10.push(variants(&|at| body::kib10(at, Some(known))));
        self.kib10_many.push(variants(&|at| body::kib10_many(at, Some(known))));
        let number = number as u16;
        self.learnt.insert(hash.to_vec(), number);
        Some(number)
    }

    /// How many configurations have been offered until now; the number of the next new one.
    #[must_use]
    pub fn configs(&self) -> u16 {
        // No more than `CONFIGS_MAX`.
        self.applied.len() as u16
    }

    /// Request line and headers of a poll up to the value of `Content-Length`; nothing for a WebSocket.
    #[must_use]
    pub fn poll_head(&self) -> Vec<u8> {
        match &self.envelope {
            Envelope::Http(head) => head.clone(),
            Envelope::WebSocket => Vec::new(),
        }
    }

    /// Appends a message with all that is around it on the wire.
    pub fn write(&self, kind: Kind, sender: &Sender, out: &mut Vec<u8>) {
        let variant = (sender.sequence % VARIANTS) as usize;
        let config = usize::from(sender.config);
        let template = match kind {
            Kind::Applied => self.applied.get(config).and_then(Option::as_ref).unwrap_or(&self.heartbeat),
            Kind::First(State::None) | Kind::Heartbeat => &self.heartbeat,
            Kind::Full(State::None | State::Unkept10) => &self.minimal,
            Kind::First(State::Unkept10) => &self.unkept,
            Kind::First(State::Kib2) | Kind::Full(State::Kib2) => &self.kib2[variant],
            Kind::First(State::Kib10) | Kind::Full(State::Kib10) => {
                &self.kib10.get(config).unwrap_or(&self.kib10[0])[variant]
            }
            Kind::First(State::Kib10Many) | Kind::Full(State::Kib10Many) => {
                &self.kib10_many.get(config).unwrap_or(&self.kib10_many[0])[variant]
            }
            Kind::Status => &self.statuses[variant],
        };
        template.write(&self.envelope, sender, out);
    }
}

/// An encoded message, masked if it travels so, with the places that differ from agent to agent.
#[derive(Debug)]
struct Template {
    payload: Vec<u8>,
    patches: Vec<(usize, Patch)>,
}

#[derive(Clone, Copy, Debug)]
enum Patch {
    /// The number in the fleet as 8 digits.
    Index,
    /// The identity as 16 bytes.
    Uid,
    /// The identity as text.
    UidText,
}

impl Template {
    fn new(message: Vec<u8>, ws: bool) -> Self {
        let mut payload = message;
        if ws {
            payload.insert(0, opamp_proto::frame::HEADER);
        }
        let mut patches = Vec::new();
        for (marker, patch) in [
            (body::INDEX.as_bytes(), Patch::Index),
            (&body::UID[..], Patch::Uid),
            (body::UID_TEXT.as_bytes(), Patch::UidText),
        ] {
            let places = payload.windows(marker.len()).enumerate().filter(|(_, window)| *window == marker);
            patches.extend(places.map(|(at, _)| (at, patch)));
        }
        if ws {
            frame::mask(&mut payload, MASK, 0);
        }
        Self { payload, patches }
    }

    fn write(&self, envelope: &Envelope, sender: &Sender, out: &mut Vec<u8>) {
        // The sequence number goes last, because its length varies; the order of fields has no meaning.
        const SEQUENCE_KEY: u8 = 2 << 3;
        let length = self.payload.len() + 1 + encode::varint_len(sender.sequence);
        let key = match envelope {
            Envelope::Http(head) => {
                use std::io::Write as _;
                out.extend_from_slice(head);
                // Writing to a vector does not fail.
                let _ = write!(out, "{length}\r\n\r\n");
                [0; 4]
            }
            Envelope::WebSocket => {
                frame::write_head(frame::BINARY, length, Some(MASK), out);
                MASK
            }
        };
        let start = out.len();
        out.extend_from_slice(&self.payload);
        let mut put = |at: usize, bytes: &[u8]| {
            for (place, byte) in bytes.iter().enumerate() {
                out[start + at + place] = byte ^ key[(at + place) % 4];
            }
        };
        for (at, patch) in &self.patches {
            match patch {
                Patch::Index => put(*at, &index_text(sender.index)),
                Patch::Uid => put(*at, &sender.uid),
                Patch::UidText => put(*at, &uid_text(&sender.uid)),
            }
        }
        let tail = out.len();
        out.push(SEQUENCE_KEY);
        encode::varint(sender.sequence, out);
        frame::mask(&mut out[tail..], key, tail - start);
    }
}

fn index_text(index: u32) -> [u8; 8] {
    let mut text = [b'0'; 8];
    let mut rest = index;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    text
}

fn uid_text(uid: &[u8; 16]) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (place, byte) in uid.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use opamp_proto::{AgentMessage, InstanceUid, Limits, Part, pb};
    use prost::Message as _;

    use super::*;

    fn sender(index: u32, sequence: u64) -> Sender {
        Sender { uid: uid(7, index), index, sequence, config: 0 }
    }

    /// What the server finds in a frame.
    fn unframed(out: &[u8]) -> Vec<u8> {
        let head = frame::head(out).unwrap();
        let mut payload = out[head.head_bytes..].to_vec();
        assert_eq!(payload.len() as u64, head.payload_bytes);
        frame::mask(&mut payload, head.mask.unwrap(), 0);
        opamp_proto::frame::decode(&payload).unwrap().to_vec()
    }

    fn written(messages: &Messages, kind: Kind, sender: &Sender) -> pb::AgentToServer {
        let mut out = Vec::new();
        messages.write(kind, sender, &mut out);
        let bytes = unframed(&out);
        AgentMessage::decode(&bytes, &Limits::default()).unwrap();
        pb::AgentToServer::decode(&*bytes).unwrap()
    }

    #[test]
    fn every_message_is_valid_and_has_the_size_that_the_budgets_speak_of() {
        let messages = Messages::new(Envelope::WebSocket);
        for (kind, sizes) in [
            (Kind::Heartbeat, 20..40),
            (Kind::First(State::None), 20..40),
            (Kind::Full(State::None), 20..100),
            (Kind::Status, 1_900..2_400),
            (Kind::First(State::Kib2), 1_900..2_400),
            (Kind::First(State::Kib10), 9_000..11_000),
            (Kind::Full(State::Kib10), 9_000..11_000),
            (Kind::First(State::Kib10Many), 9_000..11_000),
            (Kind::First(State::Unkept10), 9_000..11_000),
        ] {
            for sequence in [1, 127, 128, 20_000, 1 << 40] {
                let message = written(&messages, kind, &sender(4_711, sequence));
                assert!(sizes.contains(&message.encoded_len()), "{kind:?} {}", message.encoded_len());
                assert_eq!(message.sequence_num, sequence);
                assert_eq!(message.instance_uid, uid(7, 4_711).to_vec());
            }
        }
    }

    #[test]
    fn agents_differ_in_their_description_and_configuration() {
        let messages = Messages::new(Envelope::WebSocket);
        let message = written(&messages, Kind::First(State::Kib10), &sender(4_711, 1));
        let text = format!("{:?}", message.agent_description);
        let uid = InstanceUid::from_bytes(uid(7, 4_711)).to_string();
        assert!(text.contains(&uid), "{text}");
        assert!(text.contains("collector-00004711"), "{text}");
        assert!(!text.contains("@@"), "{text}");
        let config = message.effective_config.unwrap().config_map.unwrap();
        assert!(config.config_map[""].body.starts_with(b"# agent 00004711\n"));
    }

    #[test]
    fn statuses_in_a_row_are_material_to_nobody_but_never_equal() {
        let messages = Messages::new(Envelope::WebSocket);
        let health = |sequence| written(&messages, Kind::Status, &sender(1, sequence)).health;
        assert_ne!(health(1), health(2));
    }

    #[test]
    fn an_offer_is_echoed_with_its_hash_and_stays_in_the_full_state() {
        let mut messages = Messages::new(Envelope::WebSocket);
        let config = body::config(4_096, "shared").encode_to_vec();
        let number = messages.learn(b"hash", &config).unwrap();
        assert_eq!(messages.learn(b"hash", &config), Some(number));
        assert_ne!(messages.learn(b"other", &config), Some(number));
        let sender = Sender { config: number, ..sender(3, 9) };
        for kind in [Kind::Applied, Kind::Full(State::Kib10)] {
            let message = written(&messages, kind, &sender);
            let status = message.remote_config_status.unwrap();
            assert_eq!(status.last_remote_config_hash, Bytes::from_static(b"hash"));
            assert_eq!(status.status(), pb::RemoteConfigStatuses::Applied);
            let effective = message.effective_config.unwrap().config_map.unwrap();
            assert_eq!(effective.encode_to_vec(), config);
        }
    }

    #[test]
    fn a_poll_carries_the_same_message_without_frame_and_header() {
        let messages = Messages::new(Envelope::Http(b"POST / HTTP/1.1\r\nContent-Length: ".to_vec()));
        let mut out = Vec::new();
        messages.write(Kind::First(State::Kib10), &sender(5, 300), &mut out);
        let text = String::from_utf8_lossy(&out);
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let length: usize = head.rsplit_once(' ').unwrap().1.parse().unwrap();
        let body = &out[out.len() - length..];
        let message = AgentMessage::decode(body, &Limits::default()).unwrap();
        assert_eq!(message.instance_uid().unwrap(), InstanceUid::from_bytes(uid(7, 5)));
        assert!(message.part(Part::EffectiveConfig).is_some());
    }
}
