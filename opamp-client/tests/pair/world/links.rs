//! What carries the messages, and loses them.

use std::collections::VecDeque;
use std::time::Duration;

use opamp_client::session::Input;
use opamp_client::{Failure, FailureKind, InstanceUid, Transport};
use opamp_proto::{Mono, encode, frame, pb};
use opamp_server::Liveness;
use prost::Message as _;

use super::World;
use super::places::{Behind, Place};

const LATENCY: Duration = Duration::from_millis(20);

/// Messages on their way, with the time they arrive.
pub(super) type Wire = VecDeque<(Mono, Vec<u8>)>;

/// The connection of the agent, or what it takes for one.
pub(super) struct Link {
    pub(super) place: Place,
    pub(super) alive: bool,
    pub(super) up: Wire,
    pub(super) down: Wire,
}

impl World {
    pub(super) fn arrived(&mut self, queue: fn(&mut Link) -> &mut Wire) -> Option<Vec<u8>> {
        let now = self.now.mono;
        let link = self.link.as_mut()?;
        let front = queue(link).pop_front_if(|(at, _)| *at <= now)?;
        Some(front.1)
    }

    pub(super) fn deliver_up(&mut self, bytes: &[u8]) {
        let Some(place) = self.link.as_ref().map(|link| link.place) else { return };
        if place.behind == Behind::Mute {
            return;
        }
        let websocket = place.transport == Transport::WebSocket;
        let payload = if websocket { frame::decode(bytes).expect("a header") } else { bytes };
        let message = pb::AgentToServer::decode(payload).expect("a message");
        let old = InstanceUid::try_from(&*message.instance_uid).expect("an identity");
        let goes = message.agent_disconnect.is_some();
        self.log.messages.push(message);
        if let Some(uid) = self.rekey.take_if(|_| !goes) {
            self.rename(uid, place);
        }
        let known = self.servers[place.server].uid();
        if known != old {
            return self.identify(&old, &known, place.server);
        }
        let server = &mut self.servers[place.server];
        if !websocket && server.liveness() == Liveness::Disconnected {
            server.attach(place.transport, self.now);
        }
        let fresh = InstanceUid::from_bytes([0x77; 16]);
        let answers = server.receive(payload, fresh, self.now);
        self.send_down(place.server, answers);
    }

    /// The servers find that another agent has this identity: this one is new to them, under another.
    fn rename(&mut self, uid: InstanceUid, place: Place) {
        for server in &mut self.servers {
            server.forget(uid, &self.desired, self.now);
        }
        if place.transport == Transport::WebSocket {
            self.servers[place.server].attach(place.transport, self.now);
        }
    }

    /// A message under an identity that is another's is answered with the right one, and nothing else of it is processed.
    fn identify(&mut self, old: &InstanceUid, known: &InstanceUid, server: usize) {
        let mut framed = vec![frame::HEADER];
        encode::uid_field(encode::server_to_agent::INSTANCE_UID, old, &mut framed);
        encode::varint_field(encode::server_to_agent::CAPABILITIES, 0x3f, &mut framed);
        let identification = pb::AgentIdentification { new_instance_uid: known.as_bytes().to_vec().into() };
        let identification = identification.encode_to_vec();
        encode::bytes_field(encode::server_to_agent::AGENT_IDENTIFICATION, &identification, &mut framed);
        self.send_down(server, vec![framed]);
    }

    pub(super) fn cut(&mut self, silently: bool) {
        let Some(link) = &mut self.link else { return };
        link.alive = false;
        link.up.clear();
        link.down.clear();
        if silently {
            return;
        }
        let place = link.place;
        self.link = None;
        self.lost(place);
        self.tell(Input::Failed(Failure::new(FailureKind::Closed, "cut")));
    }

    /// The server is told that a WebSocket is gone.
    fn lost(&mut self, place: Place) {
        if place.transport == Transport::WebSocket && place.behind == Behind::Good {
            self.servers[place.server].detach(self.now);
        }
    }

    pub(super) fn send_down(&mut self, server: usize, messages: Vec<Vec<u8>>) {
        for message in messages {
            self.log.answers.push(pb::ServerToAgent::decode(&message[1..]).expect("a message"));
            let link = self.link.as_mut().filter(|link| link.alive && link.place.server == server);
            if let Some(link) = link {
                let skip = usize::from(link.place.transport == Transport::Http);
                link.down.push_back((self.now.mono + LATENCY, message[skip..].to_vec()));
            }
        }
    }

    pub(super) fn connect(&mut self, place: Place) {
        self.log.connects += 1;
        if self.now.mono < self.outage_until || place.behind == Behind::Refused {
            let failure = Failure::new(FailureKind::Refused, "nobody there");
            return self.tell(Input::Failed(failure));
        }
        self.close();
        self.link = Some(Link { place, alive: true, up: VecDeque::new(), down: VecDeque::new() });
        if place.behind == Behind::Good {
            self.server = place.server;
            if place.transport == Transport::WebSocket {
                self.servers[place.server].attach(place.transport, self.now);
            }
        }
        self.tell(Input::Connected);
    }

    pub(super) fn send(&mut self) {
        let message = self.agent_out.message().to_vec();
        let Some(link) = &mut self.link else { return };
        if link.alive {
            link.up.push_back((self.now.mono + LATENCY, message));
        }
        if link.place.transport == Transport::WebSocket {
            // Written, which is no promise that it arrives.
            self.tell(Input::Written);
        }
    }

    pub(super) fn close(&mut self) {
        // What was written before an orderly end arrives, as it does with TCP.
        while let Some((_, bytes)) = self.link.as_mut().and_then(|link| link.up.pop_front()) {
            self.deliver_up(&bytes);
        }
        if let Some(link) = self.link.take() {
            self.lost(link.place);
        }
    }
}
