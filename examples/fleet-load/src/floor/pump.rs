//! What the floor does with bytes, over buffers that all peers share.

use std::io;

use opamp_proto::{encode, pb};
use prost::Message as _;

use super::{REPLY_BYTES_MIN, peer::Peer};
use crate::frame;

/// Bytes that one read takes at most, and the largest frame.
const SCRATCH_BYTES: usize = 1024 * 1024;
const HEADERS_MAX: usize = 64;
/// `instance_uid` as it stands after the header of a message: key and length.
const UID_FIELD: [u8; 2] = [0x0a, 16];

pub(super) struct Pump {
    scratch: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
    sealed: Vec<u8>,
    /// A reply as a frame, with the identity at `uid_at`.
    reply: Vec<u8>,
    /// A config for everyone, likewise.
    push: Vec<u8>,
}

impl Pump {
    pub(super) fn new(reply_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            scratch: vec![0; SCRATCH_BYTES],
            plain: Vec::new(),
            out: Vec::new(),
            sealed: Vec::new(),
            reply: reply(reply_bytes).ok_or_else(|| {
                io::Error::other(format!(
                    "there is no reply of {reply_bytes} bytes: give {REPLY_BYTES_MIN}, or {} and more",
                    REPLY_BYTES_MIN + 2
                ))
            })?,
            push: Vec::new(),
        })
    }

    /// Reads what is there and answers it; false if the peer is gone.
    pub(super) fn read(&mut self, peer: &mut Peer) -> io::Result<bool> {
        loop {
            // What was incomplete goes in front of what arrives now.
            let kept = std::mem::take(if peer.tls.is_some() { &mut peer.sealed } else { &mut peer.partial });
            if kept.len() >= self.scratch.len() {
                return Err(io::Error::other("too much for one message"));
            }
            self.scratch[..kept.len()].copy_from_slice(&kept);
            let Some(read) = peer.read(&mut self.scratch[kept.len()..])? else {
                *(if peer.tls.is_some() { &mut peer.sealed } else { &mut peer.partial }) = kept;
                return Ok(true);
            };
            if read == 0 {
                return Ok(false);
            }
            let end = kept.len() + read;
            self.out.clear();
            let open =
                if peer.tls.is_some() { self.sealed_bytes(peer, end)? } else { self.plain_bytes(peer, end)? };
            if !open {
                return Ok(false);
            }
            if end < self.scratch.len() {
                return Ok(true);
            }
        }
    }

    fn plain_bytes(&mut self, peer: &mut Peer, end: usize) -> io::Result<bool> {
        let received = &self.scratch[..end];
        let Some(used) = answer(peer, received, &self.reply, &mut self.out)? else { return Ok(false) };
        peer.partial = received[used..].to_vec();
        if !self.out.is_empty() {
            peer.send(&self.out)?;
        }
        Ok(true)
    }

    fn sealed_bytes(&mut self, peer: &mut Peer, end: usize) -> io::Result<bool> {
        let Some(tls) = &mut peer.tls else { return Ok(false) };
        self.plain.clear();
        self.plain.append(&mut peer.partial);
        self.sealed.clear();
        let opened = tls.open(&mut self.scratch[..end], &mut self.plain, &mut self.sealed)?;
        if !self.sealed.is_empty() {
            peer.send(&self.sealed)?;
        }
        if opened.ended {
            return Ok(false);
        }
        let mut open = true;
        if !self.plain.is_empty() {
            match answer(peer, &self.plain, &self.reply, &mut self.out)? {
                Some(used) => peer.partial = self.plain[used..].to_vec(),
                None => open = false,
            }
        }
        peer.sealed = self.scratch[opened.used..end].to_vec();
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            let sent = self.send_sealed(peer, &out);
            self.out = out;
            sent?;
        }
        Ok(open)
    }

    fn send_sealed(&mut self, peer: &mut Peer, plain: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut peer.tls else { return peer.send(plain) };
        self.sealed.clear();
        tls.seal(&mut peer.sealed, plain, &mut self.sealed)?;
        peer.send(&self.sealed)
    }

    /// Encodes a config of that size once for all.
    pub(super) fn prepare_push(&mut self, bytes: usize, number: u64) {
        let line = format!("# {number}\n");
        let body: Vec<u8> =
            line.bytes().chain(b"receivers: {otlp: {}}\n".iter().copied().cycle()).take(bytes).collect();
        let file = pb::AgentConfigObject {
            body: body.into(),
            content_type: "text/yaml".to_owned(),
            role: String::new(),
        };
        let mut hash = [0xf1; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let offer = pb::AgentRemoteConfig {
            config: Some(pb::AgentConfigMap { config_map: [(String::new(), file)].into() }),
            config_hash: hash.to_vec().into(),
        };
        let mut payload = addressed();
        encode::message_field(encode::server_to_agent::REMOTE_CONFIG, &offer, &mut payload);
        debug_assert!(pb::ServerToAgent::decode(&payload[1..]).is_ok());
        self.push = framed(&payload);
    }

    pub(super) fn push(&mut self, peer: &mut Peer) -> io::Result<()> {
        address(&mut self.push, peer.uid);
        let push = std::mem::take(&mut self.push);
        let sent = if peer.tls.is_some() { self.send_sealed(peer, &push) } else { peer.send(&push) };
        self.push = push;
        sent
    }
}

/// Answers what is whole and says how much that was; none if the peer ends the connection.
fn answer(peer: &mut Peer, received: &[u8], reply: &[u8], out: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut used = 0;
    if !peer.upgraded {
        match upgrade(received, out)? {
            Some(head) => used = head,
            None => return Ok(Some(0)),
        }
        peer.upgraded = true;
    }
    while let Some(head) = frame::head(&received[used..]) {
        let end = head.head_bytes as u64 + head.payload_bytes;
        if end > SCRATCH_BYTES as u64 {
            return Err(io::Error::other("too much for one message"));
        }
        let Some(whole) = received.get(used..used + end as usize) else { break };
        let payload = &whole[head.head_bytes..];
        match head.opcode {
            0 | 2 => {
                if !peer.named() {
                    peer.uid = identity(payload, head.mask.unwrap_or_default());
                }
                if head.last {
                    let start = out.len();
                    out.extend_from_slice(reply);
                    address(&mut out[start..], peer.uid);
                }
            }
            8 => return Ok(None),
            _ => {}
        }
        used += end as usize;
    }
    Ok(Some(used))
}

/// Answers the request for a WebSocket once it is whole.
fn upgrade(received: &[u8], out: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(received).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
    let key = key.ok_or_else(|| io::Error::other("not a WebSocket"))?.value;
    out.extend_from_slice(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            frame::accept(key)
        )
        .as_bytes(),
    );
    Ok(Some(head))
}

/// The identity at the start of a message, where agents of this program put it; all zero if there is none.
fn identity(payload: &[u8], mask: [u8; 4]) -> [u8; 16] {
    let Some(start) = payload.first_chunk::<REPLY_BYTES_MIN>() else { return [0; 16] };
    let mut start = *start;
    frame::mask(&mut start, mask, 0);
    match start {
        [opamp_proto::frame::HEADER, key, length, uid @ ..] if [key, length] == UID_FIELD => uid,
        _ => [0; 16],
    }
}

/// The start of a message to somebody.
fn addressed() -> Vec<u8> {
    let mut payload = vec![opamp_proto::frame::HEADER];
    payload.extend_from_slice(&UID_FIELD);
    payload.resize(REPLY_BYTES_MIN, 0);
    payload
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame::write_head(frame::BINARY, payload.len(), None, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// Puts an identity into a frame of [`addressed`] payload.
fn address(framed: &mut [u8], uid: [u8; 16]) {
    let head = match framed.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    let start = head + 1 + UID_FIELD.len();
    if let Some(place) = framed.get_mut(start..start + uid.len()) {
        place.copy_from_slice(&uid);
    }
}

/// A reply of that size as a frame. What is missing after the identity is a field that nobody knows.
fn reply(bytes: usize) -> Option<Vec<u8>> {
    const PADDING: u32 = 15;
    let mut payload = addressed();
    let padding = bytes.checked_sub(payload.len())?;
    if padding > 0 {
        let content = (0..padding).find(|content| encode::bytes_field_len(PADDING, *content) == padding);
        encode::bytes_field(PADDING, &vec![0; content?], &mut payload);
    }
    Some(framed(&payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_the_wanted_size_and_is_for_whom_it_is_addressed_to() {
        for bytes in [19, 21, 24, 40, 146, 300] {
            let mut frame = reply(bytes).unwrap();
            address(&mut frame, [9; 16]);
            let head = frame::head(&frame).unwrap();
            assert_eq!(head.payload_bytes, bytes as u64);
            let message = crate::reply::read(&frame[head.head_bytes + 1..]).unwrap();
            assert_eq!(message.uid, [9; 16]);
        }
        for bytes in [0, 18, 20] {
            assert_eq!(reply(bytes), None);
        }
    }
}
