//! Connections beside the agents that say nothing: half-open peers, which a server has to get rid of by itself.

use std::io;

use mio::{Interest, Token, net::TcpStream};

use super::{
    engine::Engine,
    link::{Link, Stage},
};

/// Their tokens begin here, far beyond those of agents.
pub(super) const FIRST: usize = usize::MAX / 2;

/// One of them.
pub(crate) struct Mute {
    link: Link,
    /// Whether it asks for the upgrade before it falls silent; otherwise it does not even begin TLS.
    upgrades: bool,
}

impl Engine {
    /// Keeps so many of one sort from here on, and opens those again that the server has closed meanwhile. The other sort
    /// stays as it is.
    pub(crate) fn keep_mute(&mut self, wanted: usize, upgrades: bool) {
        let mut open = 0;
        for slot in &mut self.mute {
            if slot.as_ref().is_some_and(|mute| mute.upgrades == upgrades) {
                if open < wanted {
                    open += 1;
                } else {
                    *slot = None;
                }
            }
        }
        let mut at = 0;
        while open < wanted {
            if at == self.mute.len() {
                self.mute.push(None);
            }
            if self.mute[at].is_none() {
                match self.connect_mute(at, upgrades) {
                    Ok(mute) => self.mute[at] = Some(mute),
                    Err(_) => {
                        self.failures.add("halfopen_refused");
                        break;
                    }
                }
                open += 1;
            }
            at += 1;
        }
        self.counts.add_n("half_open", open as u64);
    }

    fn connect_mute(&mut self, at: usize, upgrades: bool) -> io::Result<Mute> {
        let now = self.clock();
        let mut socket = TcpStream::connect(self.way.target.address)?;
        let token = Token(FIRST + at);
        self.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = self.way.tls.as_ref().map(|(config, name)| (config, name));
        Ok(Mute { link: Link::new(socket, tls, now)?, upgrades })
    }

    /// Lets one of them do as much as it does.
    pub(super) fn mute_ready(&mut self, at: usize) {
        let Some(Some(mute)) = self.mute.get_mut(at) else { return };
        match mute.step(&self.way.upgrade) {
            Ok(true) => {}
            Ok(false) | Err(_) => {
                self.counts.add("half_open_closed_by_the_server");
                self.mute[at] = None;
            }
        }
    }
}

impl Mute {
    /// False once the server has closed it.
    fn step(&mut self, upgrade: &[u8]) -> io::Result<bool> {
        if self.link.stage == Stage::Connecting {
            if !self.link.connected()? {
                return Ok(true);
            }
            self.link.stage = Stage::Upgrading;
            if self.upgrades {
                self.link.send(upgrade)?;
            }
        }
        if self.upgrades {
            self.link.flush()?;
        }
        let mut dropped = [0; 4_096];
        loop {
            match self.link.read(&mut dropped) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
