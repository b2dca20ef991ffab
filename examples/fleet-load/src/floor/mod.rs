//! The floor: a server that does nothing but move bytes. One epoll loop, one fixed reply to every whole message, nothing kept of an agent
//! but its socket and its identity. What a real server costs is told in ratios to it, measured beside it in the same run.
//!
//! It is no OpAMP server: it looks at nothing but frame heads and the 16 bytes of the identity, and checks nothing.

mod command;
mod peer;
mod pump;
mod tls;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use self::{
    command::{Command, Commands},
    peer::Peer,
    pump::Pump,
};

/// Fewest bytes of a reply: the header of a message and the identity.
pub const REPLY_BYTES_MIN: usize = 19;
const EVENTS_MAX: usize = 1_024;
/// Connections that may wait to be accepted; the system has a bound of its own.
const BACKLOG: i32 = 65_535;
const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);

/// How a floor is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Where pushes are asked for.
    pub control: SocketAddr,
    /// Certificate chain and key, for wss.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Size of a reply, from [`REPLY_BYTES_MIN`] on; one byte more than that is not possible.
    pub reply_bytes: usize,
}

/// A floor that listens.
pub struct Floor {
    poll: Poll,
    listener: TcpListener,
    commands: Commands,
    control: SocketAddr,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    pump: Pump,
    tls: Option<Arc<ServerConfig>>,
    pushes: u64,
}

impl Floor {
    /// Listens on both addresses.
    ///
    /// # Errors
    ///
    /// If that or reading the certificate is not possible, or there is no reply of that size.
    pub fn new(options: &Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(options.listen)?;
        // Anew, with room for all who come at once: the library's own choice is 1,024.
        rustix::net::listen(&listener, BACKLOG)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (commands, control) = Commands::listen(options.control, waker)?;
        let tls = match &options.tls {
            Some((certificates, key)) => Some(tls_config(certificates, key)?),
            None => None,
        };
        let pump = Pump::new(options.reply_bytes)?;
        Ok(Self {
            poll,
            listener,
            commands,
            control,
            peers: Vec::new(),
            free: Vec::new(),
            pump,
            tls,
            pushes: 0,
        })
    }

    /// Where agents connect.
    ///
    /// # Errors
    ///
    /// If the socket does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where pushes are asked for.
    #[must_use]
    pub const fn control(&self) -> SocketAddr {
        self.control
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    ///
    /// If the loop itself fails; peers that fail are dropped.
    pub fn serve(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => self.obey(),
                    Token(at) => self.peer(at, event.is_readable() || event.is_read_closed()),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut socket, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Nothing can be accepted until a file is free, and the listener tells no second time of those that wait:
                // without all of its agents a floor measures nothing.
                Err(error) if out_of_files(&error) => return Err(error),
                // This peer is gone already, or a signal came: the next one waits.
                Err(_) => continue,
            };
            if socket.set_nodelay(true).is_err() {
                // Gone already.
                continue;
            }
            let at = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.poll.registry().register(&mut socket, Token(at), Interest::READABLE | Interest::WRITABLE)?;
            self.peers[at] = self.greet(socket).ok();
            if self.peers[at].is_none() {
                self.free.push(at);
            }
        }
    }

    fn greet(&self, socket: TcpStream) -> Result<Peer, rustls::Error> {
        let tls = self.tls.as_ref().map(|config| tls::Tls::new(Arc::clone(config))).transpose()?;
        Ok(Peer::new(socket, tls))
    }

    fn peer(&mut self, at: usize, readable: bool) {
        let Some(Some(peer)) = self.peers.get_mut(at) else { return };
        let alive = peer.flush().and_then(|()| if readable { self.pump.read(peer) } else { Ok(true) });
        if !matches!(alive, Ok(true)) {
            self.peers[at] = None;
            self.free.push(at);
        }
    }

    fn obey(&mut self) {
        while let Some((command, answer)) = self.commands.next() {
            let count = match command {
                Command::Count => self.peers.iter().flatten().filter(|peer| peer.named()).count(),
                Command::Push(bytes) => self.push(bytes),
            };
            // Nobody listens any more if the one who asked has gone.
            let _ = answer.send(count);
        }
    }

    /// Sends a config of that size to everyone who has said who he is.
    fn push(&mut self, bytes: usize) -> usize {
        self.pushes += 1;
        self.pump.prepare_push(bytes, self.pushes);
        let mut told = 0;
        for (at, slot) in self.peers.iter_mut().enumerate() {
            let Some(peer) = slot else { continue };
            if !peer.named() {
                continue;
            }
            if self.pump.push(peer).is_ok() {
                told += 1;
            } else {
                *slot = None;
                self.free.push(at);
            }
        }
        told
    }
}

/// Whether an error concerns this process or the machine rather than the peer.
fn out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

fn tls_config(certificates: &PathBuf, key: &PathBuf) -> io::Result<Arc<ServerConfig>> {
    let file = |path: &PathBuf| {
        let path = path.display().to_string();
        move |error: rustls_pki_types::pem::Error| io::Error::other(format!("{path}: {error}"))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificates)
        .map_err(file(certificates))?
        .collect::<Result<_, _>>()
        .map_err(file(certificates))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(file(key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)?;
    // A floor remembers nobody.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
