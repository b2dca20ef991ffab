//! All agents of one process on one epoll loop.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream, unix::SourceFd};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{
    activity::Activity,
    dial,
    link::{Link, Stage},
    mute::{self, Mute},
    timer::Timer,
};
use crate::{
    message::{self, Kind, Messages, Sender, State},
    report::Tally,
    target::Target,
};

/// Bytes that one read takes at most.
const SCRATCH_BYTES: usize = 256 * 1024;
/// How long the loop rests at most, so that clocks and commands are looked at.
const REST_MAX: Duration = Duration::from_millis(200);
const TIMER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);

/// One agent.
pub(crate) struct Agent {
    pub(crate) uid: [u8; 16],
    /// Its number in the whole fleet.
    pub(crate) index: u32,
    /// Of its last message; goes on over connections.
    pub(crate) sequence: u64,
    /// The configuration that it runs, as the messages number them.
    pub(crate) config: u16,
    pub(crate) state: State,
    pub(crate) link: Option<Box<Link>>,
    /// When its last message was sent.
    pub(crate) sent_ns: u64,
    /// Messages without an answer.
    pub(crate) outstanding: u32,
    /// Whether the first message of this connection has its answer.
    pub(crate) settled: bool,
    /// Whether it has reported a config that it was offered, and the answer to that is out.
    pub(crate) applying: bool,
    /// Whether its next connection is one that holds little while nobody reads.
    pub(crate) narrow: bool,
    /// Whether it takes nothing from its socket.
    pub(crate) slow: bool,
}

/// What an activity learns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happened {
    /// A message has its answer.
    Answered { agent: usize, latency_ns: u64 },
    /// The report of an applied config has its answer.
    Applied { agent: usize },
    /// The connection is gone.
    Down { agent: usize, retry_after: Option<Duration> },
    /// The connection is there, and nothing has been said.
    Opened { agent: usize },
}

/// How agents connect.
pub(crate) struct Way {
    pub(crate) target: Target,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The request that asks for a WebSocket.
    pub(crate) upgrade: Vec<u8>,
    /// What the server has to make of the key in it.
    pub(crate) accept: String,
}

/// The loop and its agents.
pub(crate) struct Engine {
    pub(crate) agents: Vec<Agent>,
    pub(crate) messages: Messages,
    pub(crate) way: Way,
    pub(crate) failures: Tally,
    pub(crate) counts: Tally,
    pub(crate) happened: VecDeque<Happened>,
    /// How long the last answers of a phase are waited for.
    pub(crate) answer_timeout_ns: u64,
    /// Connections that say nothing.
    pub(crate) mute: Vec<Option<Mute>>,
    poll: Poll,
    timer: Timer,
    started: Instant,
    scratch: Vec<u8>,
    out: Vec<u8>,
    now_ns: u64,
}

impl Engine {
    pub(crate) fn new(way: Way, messages: Messages) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.raw_fd()), TIMER, Interest::READABLE)?;
        let engine = Self {
            agents: Vec::new(),
            messages,
            way,
            failures: Tally::default(),
            counts: Tally::default(),
            happened: VecDeque::new(),
            answer_timeout_ns: 0,
            mute: Vec::new(),
            poll,
            timer,
            started: Instant::now(),
            scratch: vec![0; SCRATCH_BYTES],
            out: Vec::with_capacity(16 * 1024),
            now_ns: 0,
        };
        Ok((engine, waker))
    }

    /// Adds agents that are not connected yet.
    pub(crate) fn add_agents(&mut self, seed: u32, indices: std::ops::Range<u32>, state: State) {
        self.agents.extend(indices.map(|index| Agent {
            uid: message::uid(seed, index),
            index,
            sequence: 0,
            config: 0,
            state,
            link: None,
            sent_ns: 0,
            outstanding: 0,
            settled: false,
            applying: false,
            narrow: false,
            slow: false,
        }));
    }

    /// Nanoseconds since the process started.
    pub(crate) fn clock(&mut self) -> u64 {
        self.now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.now_ns
    }

    /// The clock as it was looked at last.
    pub(crate) const fn now(&self) -> u64 {
        self.now_ns
    }

    /// Agents that are connected, have had an answer and take what is sent to them: of those that do not, nobody can
    /// tell here whether the server keeps them.
    pub(crate) fn connected(&self) -> u64 {
        self.agents.iter().filter(|agent| agent.can_send()).count() as u64
    }

    /// Waits for events, until `wake_ns` at most, and tells the activity what happened.
    pub(crate) fn turn(
        &mut self,
        events: &mut Events,
        activity: &mut dyn Activity,
        wake_ns: Option<u64>,
    ) -> io::Result<()> {
        let now = self.clock();
        let rest = match wake_ns {
            Some(wake) if wake <= now => Duration::ZERO,
            Some(wake) => {
                let rest = Duration::from_nanos(wake - now);
                if rest < REST_MAX {
                    self.timer.arm(wake, rest)?;
                }
                REST_MAX
            }
            None => REST_MAX,
        };
        if let Err(error) = self.poll.poll(events, Some(rest))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        self.clock();
        for event in events.iter() {
            match event.token() {
                TIMER => self.timer.taken(),
                WAKER => {}
                Token(agent) if agent < self.agents.len() => {
                    let writable = event.is_writable() || event.is_error();
                    self.ready(agent, event.is_readable() || event.is_read_closed(), writable);
                    self.tell(activity);
                }
                Token(mute) => {
                    if let Some(at) = mute.checked_sub(mute::FIRST) {
                        self.mute_ready(at);
                    }
                }
            }
        }
        self.tell(activity);
        Ok(())
    }

    fn tell(&mut self, activity: &mut dyn Activity) {
        while let Some(happened) = self.happened.pop_front() {
            activity.on(self, happened);
        }
    }

    /// Starts a connection.
    pub(crate) fn connect(&mut self, agent: usize) {
        let now = self.clock();
        match self.dial(agent, now) {
            Ok(link) => {
                let agent = &mut self.agents[agent];
                agent.outstanding = 0;
                agent.settled = false;
                agent.applying = false;
                agent.link = Some(Box::new(link));
            }
            Err(error) => self.down(agent, &describe("connect", &error), None),
        }
    }

    fn dial(&self, agent: usize, now: u64) -> io::Result<Link> {
        let Agent { index, narrow, .. } = self.agents[agent];
        let mut socket = dial::dial(self.way.target.address, index, narrow)?;
        self.register(&mut socket, Token(agent), Interest::READABLE | Interest::WRITABLE)?;
        Link::new(socket, self.way.tls.as_ref().map(|(config, name)| (config, name)), now)
    }

    pub(super) fn register(
        &self,
        socket: &mut TcpStream,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.poll.registry().register(socket, token, interest)
    }

    /// Ends a connection without a word, as a crashed agent does. No activity is told.
    pub(crate) fn drop_link(&mut self, agent: usize) {
        let agent = &mut self.agents[agent];
        agent.link = None;
        agent.outstanding = 0;
        agent.settled = false;
    }

    /// Sends a message; an agent without a connection sends nothing.
    pub(crate) fn send(&mut self, agent: usize, kind: Kind) {
        let at = agent;
        let now = self.clock();
        let Some(agent) = self.agents.get_mut(at) else { return };
        let Some(link) = &mut agent.link else { return };
        agent.sequence += 1;
        let sender =
            Sender { uid: agent.uid, index: agent.index, sequence: agent.sequence, config: agent.config };
        self.out.clear();
        self.messages.write(kind, &sender, &mut self.out);
        agent.sent_ns = now;
        agent.outstanding += 1;
        if let Err(error) = link.send(&self.out) {
            self.down(at, &describe("send", &error), None);
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, agent: usize, bytes: &[u8]) {
        if let Some(link) = &mut self.agents[agent].link
            && let Err(error) = link.send(bytes)
        {
            self.down(agent, &describe("send", &error), None);
        }
    }

    /// The connection is gone, or has to go, for a reason that is a failure.
    pub(crate) fn down(&mut self, agent: usize, reason: &str, retry_after: Option<Duration>) {
        self.failures.add(reason);
        self.gone(agent, retry_after);
    }

    /// The connection is gone, or has to go.
    pub(crate) fn gone(&mut self, agent: usize, retry_after: Option<Duration>) {
        self.drop_link(agent);
        self.happened.push_back(Happened::Down { agent, retry_after });
    }

    fn ready(&mut self, agent: usize, readable: bool, writable: bool) {
        let Some(link) = &mut self.agents[agent].link else { return };
        if link.stage == Stage::Connecting {
            match link.connected() {
                Ok(true) => self.begin(agent),
                Ok(false) => return,
                Err(error) => return self.down(agent, &describe("connect", &error), None),
            }
        }
        let Some(link) = &mut self.agents[agent].link else { return };
        if writable && let Err(error) = link.flush() {
            return self.down(agent, &describe("send", &error), None);
        }
        if readable && !self.agents[agent].slow {
            self.read(agent);
        }
    }

    fn begin(&mut self, agent: usize) {
        let Some(link) = &mut self.agents[agent].link else { return };
        if self.way.target.transport.websocket() {
            link.stage = Stage::Upgrading;
            if let Err(error) = link.send(&self.way.upgrade) {
                self.down(agent, &describe("send", &error), None);
            }
        } else {
            link.stage = Stage::Open;
            self.happened.push_back(Happened::Opened { agent });
        }
    }

    /// Reads until the socket is empty.
    pub(crate) fn read(&mut self, agent: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(link) = &mut self.agents[agent].link {
            let short_is_all = link.short_read_is_all();
            match link.read(&mut scratch) {
                Ok(0) => {
                    self.down(agent, "closed", None);
                    break;
                }
                Ok(read) => {
                    self.clock();
                    self.receive(agent, &scratch[..read]);
                    if short_is_all && read < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.down(agent, &describe("receive", &error), None);
                    break;
                }
            }
        }
        self.scratch = scratch;
    }
}

impl Agent {
    /// Whether it is connected and has had the answer to its first message.
    pub(crate) fn ready(&self) -> bool {
        self.settled && self.link.is_some()
    }

    /// Whether it is ready and takes what is sent to it.
    pub(crate) fn can_send(&self) -> bool {
        self.ready() && !self.slow
    }
}

/// A fault in few words, so that equal ones are counted together.
fn describe(during: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection_refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection_reset".to_owned(),
        io::ErrorKind::InvalidData => format!("tls: {error}"),
        _ => format!("{during}: {error}"),
    }
}
