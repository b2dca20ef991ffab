//! A connection cut at every byte of what either side sends, on both transports, with and without a restart of the agent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opamp_client::{EffectiveConfig, Health, InstanceUid, RemoteConfig, Wall};
use opamp_proto::{Part, pb};
use opamp_server::AgentSnapshot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::common::{Agent, Memory, TestServer, builder, desired, hash, session};

/// Stories at a time.
const AT_ONCE: usize = 8;

/// Whose bytes are counted and cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Agent,
    Server,
}

/// A wire that ends after so many bytes of one side, once; what is connected later is whole.
///
/// There are thousands of these, so they leave no ports behind that others have to wait for: agents are reset
/// instead of closed, and servers are reached from an address of its own.
struct Cutter {
    address: SocketAddr,
    wire: Arc<Wire>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Wire {
    side: Side,
    after: usize,
    passed: AtomicUsize,
    cut: AtomicUsize,
}

impl Wire {
    /// How many of so many bytes pass, and whether the wire is cut behind them.
    fn pass(&self, side: Side, bytes: usize) -> (usize, bool) {
        if side != self.side {
            return (bytes, false);
        }
        let before = self.passed.fetch_add(bytes, Ordering::SeqCst);
        if self.is_cut() || before + bytes <= self.after {
            return (bytes, false);
        }
        self.cut.store(1, Ordering::SeqCst);
        (self.after - before, true)
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) > 0
    }

    /// Carries bytes until one end ends or the wire is cut.
    async fn carry(&self, mut agent: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
        let (mut up, mut down) = ([0; 4096], [0; 4096]);
        loop {
            let cut = tokio::select! {
                read = agent.read(&mut up) => match read? {
                    0 => return Ok(()),
                    read => {
                        let (pass, cut) = self.pass(Side::Agent, read);
                        server.write_all(&up[..pass]).await?;
                        cut
                    }
                },
                read = server.read(&mut down) => match read? {
                    0 => return Ok(()),
                    read => {
                        let (pass, cut) = self.pass(Side::Server, read);
                        agent.write_all(&down[..pass]).await?;
                        if cut {
                            // A reset would take back what the agent has not read yet.
                            agent.shutdown().await?;
                            while agent.read(&mut up).await? > 0 {}
                        }
                        cut
                    }
                },
            };
            if cut {
                return Ok(());
            }
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Cutter {
    async fn start(server: SocketAddr, number: usize, side: Side, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Arc::new(Wire { side, after, passed: AtomicUsize::new(0), cut: AtomicUsize::new(0) });
        let carrying = Arc::clone(&wire);
        let [.., high, low] = number.to_be_bytes();
        let accepting = tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                agent.set_zero_linger().unwrap();
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((Ipv4Addr::new(127, 77, high, low), 0).into()).unwrap();
                let server = socket.connect(server).await.unwrap();
                let wire = Arc::clone(&carrying);
                tokio::spawn(async move {
                    // How it ended is for its ends to notice.
                    let _ = wire.carry(agent, server).await;
                });
            }
        });
        Self { address, wire, accepting }
    }
}

fn uid(number: usize) -> InstanceUid {
    InstanceUid::v7(number as u64, [3; 10])
}

fn has_everything(agent: &AgentSnapshot) -> bool {
    let applied = agent.remote_config.report.as_ref().is_some_and(|report| {
        report.hash == hash(1) && report.status == pb::RemoteConfigStatuses::Applied as i32
    });
    let holds = |part, text: &[u8]| {
        agent.state.part(part).is_some_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
    };
    applied
        && holds(Part::AgentDescription, b"com.example.agent")
        && holds(Part::Health, b"second")
        && holds(Part::EffectiveConfig, b"remote")
}

/// One agent from its start to rest, over a wire that ends after so many bytes; how many would have passed.
async fn story(
    server: Arc<TestServer>,
    scheme: &'static str,
    number: usize,
    side: Side,
    after: usize,
    restart: bool,
) -> usize {
    let uid = uid(number);
    let (state, applications) = (Memory::of(uid), Arc::new(AtomicUsize::new(0)));
    server.handle.set_desired(&uid, desired(1, b"remote"));
    let cutter = Cutter::start(server.address, number, side, after).await;
    let url = format!("{scheme}://{}", cutter.address);
    let start = || {
        let counted = Arc::clone(&applications);
        let runs = Arc::new(std::sync::Mutex::new(EffectiveConfig::single("local")));
        if counted.load(Ordering::SeqCst) > 0 {
            *runs.lock().unwrap() = EffectiveConfig::single("remote");
        }
        let provided = Arc::clone(&runs);
        let agent = Agent::start(
            builder(&url)
                .state(state.clone())
                .settings(session(|session| session.health_debounce = Duration::ZERO))
                .health(Health::healthy(Wall(1)).status("first"))
                .effective_config(move || {
                    let now = provided.lock().unwrap().clone();
                    async move { now }
                })
                .on_remote_config(move |config: RemoteConfig, _| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    *runs.lock().unwrap() = EffectiveConfig::from(&config);
                    async { Ok(()) }
                }),
        );
        agent.client.set_health(Health::healthy(Wall(1)).status("second")).unwrap();
        agent
    };
    let mut agent = start();
    if restart {
        agent
            .reconnect_until("the cut, or the end", || {
                cutter.wire.is_cut() || server.handle.agent(&uid).is_some_and(|agent| has_everything(&agent))
            })
            .await;
        agent.client.stop();
        let passing = async {
            loop {
                agent.clock.advance(Duration::from_millis(20));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = agent.client.stopped() => {}
            () = passing => {}
        }
        agent = start();
    }
    let what = format!("{scheme}, cut after {after} bytes of the {side:?}, restart {restart}");
    agent
        .reconnect_until(&what, || server.handle.agent(&uid).is_some_and(|agent| has_everything(&agent)))
        .await;
    let applied = applications.load(Ordering::SeqCst);
    assert_eq!(applied, 1, "{what}");
    cutter.wire.passed.load(Ordering::SeqCst)
}

async fn cut_everywhere(scheme: &'static str, side: Side, restart: bool) {
    let server = Arc::new(TestServer::start().await);
    let total = story(Arc::clone(&server), scheme, 0, side, usize::MAX, false).await;
    assert!(total > if side == Side::Agent { 500 } else { 150 }, "{total}");
    // With room for numbers that differ in length.
    let mut positions = (0..total + 20).enumerate();
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((number, after)) = positions.next()
        {
            running.spawn(story(Arc::clone(&server), scheme, number + 1, side, after, restart));
        }
        match running.join_next().await {
            Some(story) => story.unwrap(),
            None => break,
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_cut_at_every_byte_loses_nothing() {
    cut_everywhere("ws", Side::Agent, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_cut_at_every_byte_loses_nothing_when_the_agent_restarts() {
    cut_everywhere("ws", Side::Agent, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_cut_at_every_byte_of_the_server_loses_nothing_and_applies_nothing_twice() {
    cut_everywhere("ws", Side::Server, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_cut_at_every_byte_of_the_server_loses_nothing_when_the_agent_restarts() {
    cut_everywhere("ws", Side::Server, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_cut_at_every_byte_lose_nothing() {
    cut_everywhere("http", Side::Agent, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_cut_at_every_byte_lose_nothing_when_the_agent_restarts() {
    cut_everywhere("http", Side::Agent, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_cut_at_every_byte_lose_nothing_and_nothing_is_applied_twice() {
    cut_everywhere("http", Side::Server, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_cut_at_every_byte_lose_nothing_when_the_agent_restarts() {
    cut_everywhere("http", Side::Server, true).await;
}
