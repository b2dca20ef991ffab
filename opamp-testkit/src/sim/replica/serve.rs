//! What a replica does for agents: their sessions, what they should run, and what becomes known of them.

use std::sync::Arc;

use opamp_proto::{AgentMessage, ConfigHash, InstanceUid, Limits, Now, pb};
use opamp_server::session::Input;
use opamp_server::{ConnectionInfo, Desired, DisconnectReason, Liveness, Principal, Target, Transport};
use prost::Message as _;

use super::facts;
use crate::sim::world::{Heard, World};

impl World {
    /// The time as a replica sees it.
    fn now_at(&self, replica: usize) -> Now {
        self.replicas[replica].now(self.mono, self.now_of_world().wall)
    }

    /// An agent has connected.
    pub(in crate::sim) fn attach(&mut self, replica: usize, agent: usize) {
        let (now, one) = (self.now_at(replica), &self.agents[agent]);
        let number = one.link.as_ref().map_or(0, |link| link.number);
        let transport = match one.transport() {
            opamp_client::Transport::Http => Transport::Http,
            opamp_client::Transport::WebSocket => Transport::WebSocket,
        };
        let uid = one.uid;
        self.enroll(agent);
        let known = self.store.rows().agents.get(&self.agents[agent].id).and_then(|row| row.facts.as_ref());
        let known = known.filter(|_| self.store_is_reachable());
        let held = self.replicas[replica].peers.get(&agent);
        if held.zip(known).is_some_and(|(held, known)| held.connection < known.connection) {
            // It was with another replica since: what this one remembers is older than what the store has.
            self.replicas[replica].peers.remove(&agent);
        }
        let peer = self.replicas[replica].peer(agent, uid, known, now);
        peer.connection = number;
        let info = ConnectionInfo {
            id: number,
            transport,
            remote_addr: None,
            principal: Principal::anonymous(),
            connected_at: now.wall,
        };
        self.desire(replica, agent);
        self.serve(replica, agent, Input::Attached(Arc::new(info)));
    }

    /// The connection of an agent is gone, unless it has another one by now.
    pub(in crate::sim) fn detach(
        &mut self,
        replica: usize,
        agent: usize,
        number: u64,
        why: DisconnectReason,
    ) {
        let peer = self.replicas[replica].peers.get(&agent);
        if peer.is_some_and(|peer| peer.connection == number) {
            self.serve(replica, agent, Input::Detached(why));
        }
    }

    /// A message of an agent.
    pub(in crate::sim) fn message(&mut self, replica: usize, agent: usize, payload: &[u8]) {
        let Ok(message) = AgentMessage::decode(payload, &Limits::default()) else {
            self.seen.impossible.push(format!("agent {agent} sent what cannot be decoded"));
            return;
        };
        self.heard(agent, payload);
        let there = self.replicas[replica].peers.get(&agent);
        let number = self.agents[agent].link.as_ref().map_or(0, |link| link.number);
        let known = there.is_some_and(|peer| {
            peer.connection == number && peer.session.liveness() != Liveness::Disconnected
        });
        if !known {
            self.attach(replica, agent);
        }
        let assign = Some(InstanceUid::from_bytes([0x77; 16]));
        self.serve(replica, agent, Input::Message { message: &message, assign });
    }

    /// What an agent says of a configuration is noted for who compares it with what becomes of that.
    fn heard(&mut self, agent: usize, payload: &[u8]) {
        let report = pb::AgentToServer::decode(payload).ok();
        if let Some(status) = report.and_then(|report| report.remote_config_status) {
            let hash = ConfigHash::new(status.last_remote_config_hash);
            let (config, status) = (hash.fingerprint(), facts::status(status.status));
            self.seen.reports.push(Heard { agent, config, status });
        }
    }

    /// A sign of life of an agent.
    pub(in crate::sim) fn alive(&mut self, replica: usize, agent: usize) {
        self.serve(replica, agent, Input::Alive);
    }

    /// The session of an agent takes something in, and what follows is done.
    pub(in crate::sim) fn serve(&mut self, replica: usize, agent: usize, input: Input<'_>) {
        let now = self.now_at(replica);
        let (messages, news) = self.replicas[replica].handle(agent, input, now);
        self.send_down(replica, agent, messages);
        if news.is_some() {
            self.write_facts(replica, agent);
        }
        self.wake_replica(replica);
    }

    /// Writes what is known of an agent, now or with the next sweep, and tells the others.
    pub(in crate::sim) fn write_facts(&mut self, replica: usize, agent: usize) {
        let reachable = self.store_is_reachable();
        let id = self.agents[agent].id;
        let desired = self.store.rows().agents.get(&id).map(|row| (row.desired, row.generation));
        let Some(peer) = self.replicas[replica].peers.get_mut(&agent) else { return };
        peer.unwritten = !reachable;
        if !reachable {
            return;
        }
        if let Some((Some(desired), generation)) = desired {
            peer.facts.runs_desired(desired, generation);
        }
        let facts = peer.facts.clone();
        self.store.put_facts(&id, &facts);
        self.hint(agent);
    }

    /// Reads what an agent should run, and offers it.
    pub(in crate::sim) fn desire(&mut self, replica: usize, agent: usize) {
        let row = self.store.rows().agents.get(&self.agents[agent].id);
        let Some(row) = row.filter(|row| self.store_is_reachable() && !row.removed) else { return };
        let Some(desired) = row.desired else { return };
        let generation = row.generation;
        let kept = self.kept.contains(&desired);
        let Some(offer) = self.configs.offer(desired).filter(|_| kept) else {
            self.seen.missing.push((agent, desired));
            return;
        };
        let desired = Desired { remote_config: Target::new(generation, Some(offer)), ..Desired::default() };
        self.serve(replica, agent, Input::Desired(desired));
        self.serve(replica, agent, Input::Wake);
    }

    /// The replica has missed something, perhaps: it reads what its agents should run, and writes what it could not.
    pub(in crate::sim) fn sweep(&mut self, replica: usize) {
        let agents: Vec<usize> = self.replicas[replica].peers.keys().copied().collect();
        for agent in agents {
            self.desire(replica, agent);
            if self.replicas[replica].peers.get(&agent).is_some_and(|peer| peer.unwritten) {
                self.write_facts(replica, agent);
            }
        }
    }

    /// Sessions whose time has come.
    pub(in crate::sim) fn tick_sessions(&mut self, replica: usize) {
        for agent in self.replicas[replica].due(self.mono) {
            self.serve(replica, agent, Input::Tick);
            let peer = self.replicas[replica].peers.get(&agent);
            let dead = peer.filter(|peer| {
                let snapshot = peer.session.snapshot();
                let websocket = |info: &ConnectionInfo| info.transport == Transport::WebSocket;
                peer.session.liveness() == Liveness::Stale
                    && snapshot.connection.as_deref().is_some_and(websocket)
            });
            if let Some(number) = dead.map(|peer| peer.connection) {
                // What a driver does with a WebSocket that is silent for too long.
                self.detach(replica, agent, number, DisconnectReason::Timeout);
            }
        }
    }
}
