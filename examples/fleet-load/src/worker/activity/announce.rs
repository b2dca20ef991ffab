//! Every agent announces a large message, sends some bytes of it, and stays at that.

use super::{Activity, Step};
use crate::{
    frame,
    report::Seen,
    worker::engine::{Engine, Happened},
};

pub(super) struct Announce {
    announced: u64,
    held: u64,
    started_ns: u64,
    ended_ns: u64,
    until_ns: u64,
}

impl Announce {
    pub(super) fn start(engine: &mut Engine, bytes: u64, sent: u64, until_ns: u64) -> Self {
        let started_ns = engine.clock();
        let mut out = Vec::new();
        let mut announced = 0;
        if engine.way.target.transport.websocket() {
            frame::write_head(frame::BINARY, bytes as usize, Some([0; 4]), &mut out);
        } else {
            let poll = engine.messages.poll_head();
            out.extend_from_slice(&poll);
            out.extend_from_slice(format!("{bytes}\r\n\r\n").as_bytes());
        }
        out.resize(out.len() + sent as usize, 0);
        for agent in 0..engine.agents.len() {
            if engine.agents[agent].can_send() {
                engine.send_raw(agent, &out);
                announced += 1;
            }
        }
        Self { announced, held: 0, started_ns, ended_ns: started_ns, until_ns }
    }
}

impl Activity for Announce {
    fn tick(&mut self, engine: &mut Engine) -> Step {
        self.ended_ns = engine.clock();
        if self.ended_ns < self.until_ns {
            return Step::Wait(Some(self.until_ns));
        }
        self.held = engine.connected();
        // Nobody can say anything else on these connections any more.
        for agent in 0..engine.agents.len() {
            if engine.agents[agent].link.is_some() {
                engine.drop_link(agent);
            }
        }
        Step::Done
    }

    fn on(&mut self, _engine: &mut Engine, _happened: Happened) {}

    fn seen(&mut self) -> Seen {
        let mut seen =
            Seen { units: self.announced, elapsed_ns: self.ended_ns - self.started_ns, ..Default::default() };
        seen.counts.add_n("held_to_the_end", self.held);
        seen
    }

    /// The server may close or refuse whoever it has no room for.
    fn provokes(&self, failure: &str) -> bool {
        failure.starts_with("clos")
            || failure.starts_with("connection_")
            || failure.starts_with("status_")
            || failure == "unavailable"
    }

    fn progress(&self, engine: &Engine) -> (u64, u64) {
        (engine.now() - self.started_ns, self.until_ns - self.started_ns)
    }
}
