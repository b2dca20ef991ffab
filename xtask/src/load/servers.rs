//! The servers under load, as processes.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::workspace::WorkspaceError;

use super::attend::Attended;
use super::programs::{Place, Programs};
use super::usage::{self, Usage};

/// Starting may take this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A bare epoll echo: what the kernel and the sizes alone cost.
    Floor,
    /// The server of opamp-go with empty answers.
    OpampGo,
    /// The reference server.
    Ours,
}

impl Kind {
    /// All, in the order in which they take their turns.
    pub(crate) const ALL: [Self; 3] = [Self::Floor, Self::OpampGo, Self::Ours];

    /// Its word on the command line.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::OpampGo => "opamp-go",
            Self::Ours => "ours",
        }
    }
}

/// Where ours keeps its fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// In memory: no disk takes part.
    Memory,
    /// In a file.
    Sqlite,
}

impl Store {
    /// Its word.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
        }
    }
}

/// A server that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Whose it is.
    pub(crate) kind: Kind,
    /// The endpoint for agents.
    pub(crate) url: String,
    /// What configs are pushed through.
    pub(crate) control: String,
    /// The certificate to trust.
    pub(crate) authority: Option<PathBuf>,
    /// The token that the control needs.
    pub(crate) token_file: Option<PathBuf>,
    /// Where ours has its metrics.
    pub(crate) admin: Option<SocketAddr>,
    process: Attended,
}

impl Server {
    /// Starts one under a name that nothing else of this measurement has.
    ///
    /// # Errors
    ///
    /// It does not start; the text says where its last words are.
    pub(crate) fn start(
        kind: Kind,
        name: &str,
        programs: &Programs,
        place: &Place,
        tls: bool,
        more: &[&str],
    ) -> Result<Self, WorkspaceError> {
        let log = place.file(&format!("{name}.log"));
        let directory = place.made(name)?;
        let mut flags: Vec<String> = Vec::new();
        let bare = ["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--attended"];
        let program = match kind {
            Kind::Floor => {
                flags.extend(bare.map(str::to_owned));
                "epoll-floor"
            }
            Kind::OpampGo => {
                flags.extend(bare.map(str::to_owned));
                "loadserver"
            }
            Kind::Ours => "reference-server",
        };
        let (listen, admin) = (free_address()?, free_address()?);
        if kind == Kind::Ours {
            let (listen, admin) = (listen.to_string(), admin.to_string());
            flags.extend(["--listen", &listen, "--admin-listen", &admin].map(str::to_owned));
            flags.extend(
                ["--data-dir", "data", "--admin-metrics", "open", "--log-level", "warn"].map(str::to_owned),
            );
            // It would be one agent more than the ones that are counted.
            flags.extend(["--self-agent-enabled", "false"].map(str::to_owned));
        }
        if tls {
            flags.extend(["--tls-cert".to_owned(), programs.certificate.display().to_string()]);
            flags.extend(["--tls-key".to_owned(), programs.key.display().to_string()]);
        }
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let mut process = Attended::start(name, &programs.path(program), &flags, &directory, &log)?;
        let scheme = if tls { "wss" } else { "ws" };
        let authority = tls.then(|| programs.certificate.clone());
        if kind != Kind::Ours {
            let line = process.line(PATIENCE)?;
            let (address, control) = listening(&line)
                .ok_or_else(|| WorkspaceError(format!("{name} began with something else: {line}")))?;
            return Ok(Self {
                kind,
                url: format!("{scheme}://{address}/v1/opamp"),
                control: format!("plain+http://{control}"),
                authority,
                token_file: None,
                admin: None,
                process,
            });
        }
        let token_file = directory.join("token");
        fs::write(&token_file, token(&mut process)?)
            .map_err(|error| WorkspaceError(format!("cannot write {}: {error}", token_file.display())))?;
        Ok(Self {
            kind,
            url: format!("{scheme}://{listen}/v1/opamp"),
            control: format!("rest+http://{admin}"),
            authority,
            token_file: Some(token_file),
            admin: Some(admin),
            process,
        })
    }

    /// Its process id.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// CPU and memory until now.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub(crate) fn usage(&self) -> Result<Usage, WorkspaceError> {
        usage::of(self.pid())
    }
}

/// The first admin token, which ours prints when it is ready.
fn token(process: &mut Attended) -> Result<String, WorkspaceError> {
    let begun = Instant::now();
    loop {
        let line = process.line(PATIENCE.saturating_sub(begun.elapsed()))?;
        if line.trim().starts_with("opamp-pat.") {
            return Ok(line.trim().to_owned());
        }
    }
}

/// `{"event":"listening","address":"127.0.0.1:1","control":"127.0.0.1:2"}`
fn listening(line: &str) -> Option<(String, String)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| event[key].as_str().map(str::to_owned);
    Some((text("address")?, text("control")?)).filter(|_| event["event"] == "listening")
}

/// A port that nobody has at the moment.
fn free_address() -> Result<SocketAddr, WorkspaceError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| WorkspaceError(format!("no port on 127.0.0.1 is free: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_where_it_listens() {
        let line = r#"{"event":"listening","address":"127.0.0.1:1","control":"127.0.0.1:2"}"#;
        assert_eq!(listening(line), Some(("127.0.0.1:1".into(), "127.0.0.1:2".into())));
        assert_eq!(listening(r#"{"event":"ended","address":"a","control":"b"}"#), None);
        assert_eq!(listening(r#"{"event":"listening","address":"127.0.0.1:1"}"#), None);
        assert_eq!(listening("listening"), None);
    }
}
