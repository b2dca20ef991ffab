//! Links between agents and replicas: delay, cuts, outages, and a log of frames.

use std::collections::VecDeque;

use opamp_client::session::Input;
use opamp_client::{Failure, FailureKind, Transport};
use opamp_fleet::rollout::stats::Ppm;
use opamp_proto::{Mono, pb};
use opamp_server::DisconnectReason;
use prost::Message as _;

use super::profiles::{Profile, Span, Stage};
use super::schedule::What;
use super::world::{Delivery, World};

/// How long a message takes, in milliseconds.
const DELAY: Span =
    Span { from: std::time::Duration::from_millis(1), until: std::time::Duration::from_millis(200) };
/// How long a slow one takes.
const SLOW: Span = Span::between(1, 5);

/// Messages on their way, with the time they arrive. None overtakes another.
#[derive(Clone, Debug, Default)]
pub struct Wire(VecDeque<(Mono, Vec<u8>)>);

/// The connection of an agent, or what it takes for one.
#[derive(Clone, Debug)]
pub struct Link {
    /// The replica it leads to.
    pub replica: usize,
    /// Which connection of the world this is: later ones have larger numbers.
    pub number: u64,
    /// Nothing gets through any more, and nobody was told.
    pub dead: bool,
    up: Wire,
    down: Wire,
}

impl Wire {
    /// Sends a message that arrives at `at`, or right after the one before it; when that is.
    pub fn send(&mut self, at: Mono, message: Vec<u8>) -> Mono {
        let at = self.0.back().map_or(at, |(last, _)| at.max(*last));
        self.0.push_back((at, message));
        at
    }

    /// The next message that has arrived.
    pub fn arrived(&mut self, now: Mono) -> Option<Vec<u8>> {
        let first = self.0.front().is_some_and(|(at, _)| *at <= now);
        if first { self.0.pop_front().map(|(_, message)| message) } else { None }
    }
}

impl Link {
    fn new(replica: usize, number: u64) -> Self {
        Self { replica, number, dead: false, up: Wire::default(), down: Wire::default() }
    }
}

impl World {
    /// The agent connects to some replica.
    pub(super) fn connect(&mut self, agent: usize) {
        self.hang_up(agent);
        let there: Vec<usize> = (0..self.replicas.len()).filter(|ix| self.replicas[*ix].is_up()).collect();
        let one = &mut self.agents[agent];
        if there.is_empty() || self.mono < one.outage_until {
            let failure = Failure::new(FailureKind::Refused, "nobody there");
            return self.tell(agent, Input::Failed(failure));
        }
        let replica = one.link_rng.pick(&there);
        self.connections += 1;
        one.link = Some(Link::new(replica, self.connections));
        if one.transport() == Transport::WebSocket {
            self.attach(replica, agent);
        }
        self.tell(agent, Input::Connected);
    }

    /// The agent sends what its session composed.
    pub(super) fn send(&mut self, agent: usize) {
        let delay = self.delay(agent);
        let (mono, one) = (self.mono, &mut self.agents[agent]);
        let message = one.masked(one.out.message());
        let Some(link) = &mut one.link else {
            return self.tell(agent, Input::Failed(Failure::new(FailureKind::Closed, "no connection")));
        };
        if !link.dead {
            let at = link.up.send(mono + delay, message);
            self.schedule.put(at, What::Up(agent));
        }
        if self.agents[agent].transport() == Transport::WebSocket {
            // Written, which is no promise that it arrives.
            self.tell(agent, Input::Written);
        }
    }

    /// Messages of a replica to an agent, as WebSocket messages.
    pub(super) fn send_down(&mut self, replica: usize, agent: usize, messages: Vec<Vec<u8>>) {
        for message in messages {
            let delay = self.delay(agent);
            let (mono, one) = (self.mono, &mut self.agents[agent]);
            let skip = usize::from(one.transport() == Transport::Http);
            let Some(link) = one.link.as_mut().filter(|link| !link.dead && link.replica == replica) else {
                continue;
            };
            let at = link.down.send(mono + delay, message.get(skip..).unwrap_or_default().to_vec());
            self.schedule.put(at, What::Down(agent));
        }
    }

    fn delay(&mut self, agent: usize) -> std::time::Duration {
        let slow = Ppm::percent(self.faulty().message_slow.into());
        let rng = &mut self.agents[agent].link_rng;
        let span = if rng.chance(slow) { SLOW } else { DELAY };
        rng.span(span)
    }

    /// Messages of an agent may have arrived at its replica.
    pub(super) fn arrived_up(&mut self, agent: usize) {
        let now = self.mono;
        while let Some(link) = &mut self.agents[agent].link {
            let replica = link.replica;
            if let Some(until) = self.replicas[replica].stands_still(now) {
                return self.schedule.put(until, What::Up(agent));
            }
            let Some(message) = link.up.arrived(now) else { return };
            self.frame(agent, "up", &message);
            let payload = self.agents[agent].payload(&message).to_vec();
            self.message(replica, agent, &payload);
        }
    }

    /// Messages to an agent may have arrived.
    pub(super) fn arrived_down(&mut self, agent: usize) {
        let now = self.mono;
        while let Some(link) = &mut self.agents[agent].link {
            let Some(message) = link.down.arrived(now) else { return };
            self.frame(agent, "down", &message);
            self.receive(agent, &message);
        }
    }

    fn receive(&mut self, agent: usize, message: &[u8]) {
        let (mono, one) = (self.mono, &mut self.agents[agent]);
        let answer = pb::ServerToAgent::decode(one.payload(message)).unwrap_or_default();
        let Some(offer) = answer.remote_config.filter(|_| one.is_up() && !one.truth.hangs) else {
            return self.tell(agent, Input::Received(message));
        };
        let hash = opamp_proto::ConfigHash::new(offer.config_hash.to_vec()).fingerprint();
        let body = offer.config.as_ref().map(|map| opamp_proto::hash::config_hash(map).fingerprint());
        let number = self.configs.number(hash);
        self.seen.deliveries.push(Delivery { agent, config: hash, body, number, at: mono });
        if let Some(number) = number {
            one.truth.history.push((mono, super::agents::Happened::Received(number)));
        }
        if number != Some(one.spec.runs) {
            match one.spec.profile {
                Profile::DropsCapability => one.truth.dropped_capability = true,
                Profile::Silent { stage: Stage::Delivered } => one.truth.hangs = true,
                Profile::Silent { stage: Stage::Offered } => {
                    // As if it had never arrived: the connection is dead, and nobody was told.
                    self.seen.deliveries.pop();
                    one.truth.history.pop();
                    return self.cut(agent, true);
                }
                _ => {}
            }
        }
        self.tell(agent, Input::Received(message));
    }

    /// The agent pings its replica, which answers if it can.
    pub(super) fn ping(&mut self, agent: usize) {
        let now = self.mono;
        let Some(link) = self.agents[agent].link.as_ref().filter(|link| !link.dead) else { return };
        let replica = link.replica;
        if self.replicas[replica].stands_still(now).is_none() {
            self.alive(replica, agent);
            self.tell(agent, Input::Alive);
        }
    }

    /// The connection ends; what is on its way is lost. If silently, neither side is told.
    pub(super) fn cut(&mut self, agent: usize, silently: bool) {
        let Some(link) = &mut self.agents[agent].link else { return };
        if silently {
            link.dead = true;
            (link.up, link.down) = (Wire::default(), Wire::default());
            return;
        }
        self.hang_up(agent);
        self.tell(agent, Input::Failed(Failure::new(FailureKind::Closed, "cut")));
    }

    /// The agent's side of the connection is gone; its replica notices unless the link was dead.
    pub(super) fn hang_up(&mut self, agent: usize) {
        let one = &mut self.agents[agent];
        let Some(link) = one.link.take() else { return };
        if one.transport() == Transport::WebSocket && !link.dead {
            self.detach(link.replica, agent, link.number, DisconnectReason::Closed);
        }
    }

    /// A replica has ended: those that were connected to it notice.
    pub(super) fn lose_replica(&mut self, replica: usize) {
        for agent in 0..self.agents.len() {
            let link = self.agents[agent].link.as_ref();
            if link.is_some_and(|link| link.replica == replica) {
                self.agents[agent].link = None;
                self.tell(agent, Input::Failed(Failure::new(FailureKind::Closed, "the server is gone")));
            }
        }
    }
}

/// A message in one line, without bodies.
pub(super) fn said(way: &str, payload: &[u8]) -> String {
    if way == "up" {
        return pb::AgentToServer::decode(payload).map_or_else(|_| "?".to_owned(), |report| said_up(&report));
    }
    let Ok(answer) = pb::ServerToAgent::decode(payload) else { return "?".to_owned() };
    let offer = answer.remote_config.map(|offer| opamp_proto::ConfigHash::new(offer.config_hash.to_vec()));
    offer.map_or_else(|| "answer".to_owned(), |hash| format!("offer {}", hash.fingerprint()))
}

fn said_up(report: &pb::AgentToServer) -> String {
    let mut line = format!("report {}", report.sequence_num);
    if let Some(status) = &report.remote_config_status {
        let hash = opamp_proto::ConfigHash::new(status.last_remote_config_hash.to_vec());
        line += &format!(" {:?} {}", status.status(), hash.fingerprint());
    }
    if let Some(health) = &report.health {
        line += if health.healthy { " well" } else { " ill" };
    }
    if report.effective_config.is_some() {
        line += " effective";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_overtakes_another() {
        let mut wire = Wire::default();
        assert_eq!(wire.send(Mono(50), vec![1]), Mono(50));
        assert_eq!(wire.send(Mono(20), vec![2]), Mono(50));
        assert_eq!(wire.arrived(Mono(49)), None);
        assert_eq!(wire.arrived(Mono(50)), Some(vec![1]));
        assert_eq!(wire.arrived(Mono(50)), Some(vec![2]));
        assert_eq!(wire.arrived(Mono(99)), None);
    }
}
