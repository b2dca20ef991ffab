//! What arrives on a connection: the answer to the upgrade, frames, answers to polls, and the messages in them.

use std::time::Duration;

use super::{
    engine::{Engine, Happened},
    link::Stage,
};
use crate::{
    frame,
    message::Kind,
    reply::{self, Reply},
};

/// The key that agents send with the upgrade, the example of RFC 6455, section 1.3: what is tested is not its randomness.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Largest message that an agent takes, fragments together.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// Largest head of an HTTP answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;
/// Buffers above this are given back when they are empty.
const BUFFER_KEPT: usize = 64 * 1024;
const SWITCHING_PROTOCOLS: u16 = 101;

/// How much of the received bytes was used up.
enum Used {
    Bytes(usize),
    /// The rest is not there yet.
    Incomplete,
    /// The connection is gone.
    Over,
}

impl Engine {
    /// Takes bytes of a connection; what is incomplete waits for more.
    pub(super) fn receive(&mut self, agent: usize, bytes: &[u8]) {
        let Some(link) = &mut self.agents[agent].link else { return };
        if link.inbox.is_empty() {
            let used = self.parse(agent, bytes);
            if let Some(link) = &mut self.agents[agent].link {
                link.inbox.extend_from_slice(&bytes[used..]);
            }
            return;
        }
        let mut inbox = std::mem::take(&mut link.inbox);
        inbox.extend_from_slice(bytes);
        let used = self.parse(agent, &inbox);
        if let Some(link) = &mut self.agents[agent].link {
            inbox.drain(..used);
            if !inbox.is_empty() || inbox.capacity() <= BUFFER_KEPT {
                link.inbox = inbox;
            }
        }
    }

    fn parse(&mut self, agent: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let Some(link) = &self.agents[agent].link else { return bytes.len() };
            let rest = &bytes[used..];
            let step = match link.stage {
                Stage::Upgrading => self.upgrade_answer(agent, rest),
                _ if self.way.target.transport.websocket() => self.frame(agent, rest),
                _ => self.poll_answer(agent, rest),
            };
            match step {
                Used::Bytes(step) => used += step,
                Used::Incomplete => break,
                Used::Over => return bytes.len(),
            }
        }
        used
    }

    fn upgrade_answer(&mut self, agent: usize, bytes: &[u8]) -> Used {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let head = match answer.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Used::Incomplete,
            _ => return self.over(agent, "upgrade_malformed"),
        };
        let header = |name: &str| value(answer.headers, name);
        let status = answer.code.unwrap_or(0);
        if status != SWITCHING_PROTOCOLS {
            self.refused(agent, status, header("retry-after"));
            return Used::Over;
        }
        if header("sec-websocket-accept") != Some(self.way.accept.as_bytes()) {
            return self.over(agent, "upgrade_wrong_accept");
        }
        if let Some(link) = &mut self.agents[agent].link {
            link.stage = Stage::Open;
        }
        self.happened.push_back(Happened::Opened { agent });
        Used::Bytes(head)
    }

    fn poll_answer(&mut self, agent: usize, bytes: &[u8]) -> Used {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let head = match answer.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Used::Incomplete,
            _ => return self.over(agent, "http_malformed"),
        };
        let header = |name: &str| value(answer.headers, name);
        let status = answer.code.unwrap_or(0);
        if status != 200 {
            self.refused(agent, status, header("retry-after"));
            return Used::Over;
        }
        let length = header("content-length").and_then(number).filter(|length| *length <= MESSAGE_BYTES_MAX);
        let Some(length) = length else { return self.over(agent, "http_without_length") };
        let Some(body) = bytes[head..].get(..length as usize) else { return Used::Incomplete };
        self.message(agent, body);
        Used::Bytes(head + body.len())
    }

    /// The server does not want this agent, or not now. With a time to come back that is admission at work, not a failure.
    fn refused(&mut self, agent: usize, status: u16, retry_after: Option<&[u8]>) {
        let retry_after = retry_after.and_then(number).map(Duration::from_secs);
        if matches!(status, 429 | 503) && retry_after.is_some() {
            self.counts.add(&format!("refused_{status}"));
            self.gone(agent, retry_after);
        } else {
            self.down(agent, &format!("status_{status}"), None);
        }
    }

    fn frame(&mut self, agent: usize, bytes: &[u8]) -> Used {
        let Some(head) = frame::head(bytes) else { return Used::Incomplete };
        if head.mask.is_some() {
            return self.over(agent, "frame_masked");
        }
        if head.payload_bytes > MESSAGE_BYTES_MAX {
            return self.over(agent, "frame_too_large");
        }
        let end = head.head_bytes + head.payload_bytes as usize;
        let Some(payload) = bytes.get(head.head_bytes..end) else { return Used::Incomplete };
        match head.opcode {
            0 | 2 => self.data(agent, head.opcode, head.last, payload),
            8 => {
                let code = payload.first_chunk().map_or(1_005, |code| u16::from_be_bytes(*code));
                self.send_control(agent, frame::CLOSE, &payload[..payload.len().min(2)]);
                if self.agents[agent].link.is_some() {
                    self.over(agent, &format!("closed_{code}"));
                }
                return Used::Over;
            }
            9 => self.send_control(agent, frame::PONG, payload),
            10 => {}
            _ => return self.over(agent, "frame_opcode"),
        }
        Used::Bytes(end)
    }

    fn data(&mut self, agent: usize, opcode: u8, last: bool, payload: &[u8]) {
        let Some(link) = &mut self.agents[agent].link else { return };
        match (&mut link.fragments, opcode, last) {
            (None, 2, true) => self.websocket_message(agent, payload),
            (None, 2, false) => link.fragments = Some(payload.to_vec()),
            (Some(fragments), 0, _) => {
                fragments.extend_from_slice(payload);
                if fragments.len() as u64 > MESSAGE_BYTES_MAX {
                    self.over(agent, "message_too_large");
                } else if last && let Some(whole) = link.fragments.take() {
                    self.websocket_message(agent, &whole);
                }
            }
            _ => {
                self.over(agent, "frame_out_of_order");
            }
        }
    }

    fn send_control(&mut self, agent: usize, first: u8, payload: &[u8]) {
        const KEY: [u8; 4] = [1, 2, 3, 4];
        let mut out = Vec::with_capacity(6 + payload.len());
        frame::write_head(first, payload.len(), Some(KEY), &mut out);
        let start = out.len();
        out.extend_from_slice(payload);
        frame::mask(&mut out[start..], KEY, 0);
        self.send_raw(agent, &out);
    }

    fn over(&mut self, agent: usize, reason: &str) -> Used {
        self.down(agent, reason, None);
        Used::Over
    }

    fn websocket_message(&mut self, agent: usize, payload: &[u8]) {
        match opamp_proto::frame::decode(payload) {
            Ok(message) => self.message(agent, message),
            Err(_) => self.failures.add("malformed"),
        }
    }

    fn message(&mut self, agent: usize, bytes: &[u8]) {
        let now = self.now();
        let Ok(reply) = reply::read(bytes) else {
            self.failures.add("malformed");
            return;
        };
        let state = &mut self.agents[agent];
        // A server that refuses what it has not read to its end cannot know whose it is.
        let nobody = reply.uid.is_empty() && reply.error.is_some();
        if reply.uid != state.uid && !nobody {
            self.failures.add("wrong_uid");
            return;
        }
        if let Some(refusal) = reply.error {
            if refusal.kind == 2 && !state.settled {
                // As good as a refused upgrade: the agent leaves, and comes back when it was told to.
                self.counts.add("unavailable");
                self.gone(agent, refusal.retry_after_ns.map(Duration::from_nanos));
                return;
            }
            self.failures.add(refusal.name());
        }
        if reply.command || reply.identification {
            self.counts.add(if reply.command { "commands" } else { "told_another_uid" });
        }
        let state = &mut self.agents[agent];
        if state.outstanding > 0 {
            state.outstanding -= 1;
            state.settled = true;
            self.happened
                .push_back(Happened::Answered { agent, latency_ns: now.saturating_sub(state.sent_ns) });
            if state.applying && state.outstanding == 0 {
                state.applying = false;
                self.happened.push_back(Happened::Applied { agent });
            }
        } else if reply.offer.is_none() {
            self.counts.add("unsolicited");
        }
        self.respond(agent, &reply);
    }

    /// What a well-behaved agent does with a reply.
    fn respond(&mut self, agent: usize, reply: &Reply<'_>) {
        if let Some(offer) = reply.offer {
            self.counts.add("offers");
            match self.messages.learn(offer.hash, offer.config) {
                Some(config) => {
                    self.agents[agent].config = config;
                    self.agents[agent].applying = true;
                    self.send(agent, Kind::Applied);
                }
                None => self.failures.add("too_many_configs"),
            }
        }
        if reply.full_state_asked {
            self.counts.add("full_state_asked");
            let state = self.agents[agent].state;
            self.send(agent, Kind::Full(state));
        }
    }
}

fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
