//! Carrying bytes between an agent and whatever is behind, as the mode allows.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Direction, Mode};

/// Bytes that are on the way in one direction: what was read before a mode was set and not written yet.
const BUFFER_BYTES: usize = 16 << 10;

/// A listener whose connections are carried on to another stream.
#[derive(Debug)]
pub(super) struct Relay {
    addr: SocketAddr,
    setting: watch::Sender<Setting>,
    connections: Arc<AtomicUsize>,
    passed: Arc<Passed>,
    /// Dropping it ends the listener and all connections.
    _listener: JoinSet<()>,
}

/// A mode, and which one in the row of modes it is: the same mode set again counts its bytes anew.
#[derive(Clone, Copy, Debug)]
struct Setting {
    mode: Mode,
    generation: u64,
}

impl Relay {
    /// Listens on a free loopback port and carries each connection on to what `onward` connects to.
    pub(super) async fn start<F, C, S>(onward: F) -> io::Result<Self>
    where
        F: Fn() -> C + Clone + Send + Sync + 'static,
        C: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (setting, mode) = watch::channel(Setting { mode: Mode::Pass, generation: 0 });
        let connections: Arc<AtomicUsize> = Arc::default();
        let accepted = Arc::clone(&connections);
        let passed: Arc<Passed> = Arc::default();
        let counted = Arc::clone(&passed);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((agent, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                while carried.try_join_next().is_some() {}
                carried.spawn(carry(agent, onward.clone(), mode.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self { addr, setting, connections, passed, _listener: tasks })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn set(&self, mode: Mode) {
        self.setting.send_modify(|setting| {
            *setting = Setting { mode, generation: setting.generation + 1 };
        });
    }

    pub(super) fn passed(&self, direction: Direction) -> u64 {
        self.passed.of(direction)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Carries one connection to its end. How it ended is for its two ends to notice.
async fn carry<F, C, S>(agent: TcpStream, onward: F, mode: watch::Receiver<Setting>, passed: Arc<Passed>)
where
    F: Fn() -> C,
    C: Future<Output = io::Result<S>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let refused = async {
        // The error means that the relay is gone, which ends the connection as well.
        let _ = mode.clone().wait_for(|setting| setting.mode == Mode::Refuse).await;
    };
    let meter = Meter { mode: mode.clone(), carried: Mutex::default(), passed };
    let carried = async {
        agent.set_nodelay(true)?;
        // Nobody behind learns of a connection while nothing passes that way.
        meter.opening(Direction::ToServer).await?;
        let (from_agent, to_agent) = tokio::io::split(agent);
        let (from_server, to_server) = tokio::io::split(onward().await?);
        tokio::try_join!(
            pump(from_agent, to_server, Direction::ToServer, &meter),
            pump(from_server, to_agent, Direction::ToAgent, &meter),
        )
    };
    tokio::select! {
        biased;
        () = refused => {}
        _ = carried => {}
    }
}

/// Carries one direction up to the end of the stream, and the end itself.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    meter: &Meter,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await;
        // A broken connection is as invisible behind a stalled one as anything else.
        meter.opening(direction).await?;
        let bytes = read?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        let mut at = 0;
        while at < bytes {
            let allowed = meter.take(direction, bytes - at).await?;
            // Before whoever reads them can ask.
            meter.passed.add(direction, allowed);
            let written = async {
                to.write_all(&buffer[at..at + allowed]).await?;
                to.flush().await
            };
            if let Err(error) = written.await {
                // That the end over there is gone is news from there, and as invisible as any other.
                meter.opening(direction.opposite()).await?;
                return Err(error);
            }
            at += allowed;
        }
    }
}

/// What one connection may carry, and what it has.
struct Meter {
    mode: watch::Receiver<Setting>,
    carried: Mutex<Carried>,
    passed: Arc<Passed>,
}

/// Bytes that have passed or are about to, over all connections.
#[derive(Debug, Default)]
struct Passed {
    to_agent: AtomicU64,
    to_server: AtomicU64,
}

impl Passed {
    fn add(&self, direction: Direction, bytes: usize) {
        let counter = if direction == Direction::ToAgent { &self.to_agent } else { &self.to_server };
        counter.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    fn of(&self, direction: Direction) -> u64 {
        let read = |counted, counter: &AtomicU64| {
            if direction.covers(counted) { counter.load(Ordering::SeqCst) } else { 0 }
        };
        read(Direction::ToAgent, &self.to_agent) + read(Direction::ToServer, &self.to_server)
    }
}

/// Bytes carried since a mode was set.
#[derive(Default)]
struct Carried {
    generation: u64,
    bytes: u64,
}

impl Meter {
    /// Waits until something may pass in this direction.
    async fn opening(&self, direction: Direction) -> io::Result<Setting> {
        let open =
            |setting: &Setting| !matches!(setting.mode, Mode::Stall(stalled) if stalled.covers(direction));
        let mut mode = self.mode.clone();
        let setting = mode.wait_for(open).await.map_err(|_| ended("the relay has ended"))?;
        Ok(*setting)
    }

    /// How many of the bytes that wait may pass; at least one, or the connection is over.
    async fn take(&self, direction: Direction, waiting: usize) -> io::Result<usize> {
        let setting = self.opening(direction).await?;
        let limit = match setting.mode {
            Mode::Cut { direction: counted, bytes } if counted.covers(direction) => bytes,
            _ => return Ok(waiting),
        };
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        if carried.generation < setting.generation {
            *carried = Carried { generation: setting.generation, bytes: 0 };
        }
        let left = usize::try_from(limit.saturating_sub(carried.bytes)).unwrap_or(usize::MAX);
        let allowed = waiting.min(left);
        if allowed == 0 {
            return Err(ended("cut"));
        }
        carried.bytes += allowed as u64;
        Ok(allowed)
    }
}

fn ended(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}
