//! The addresses there are, and what is behind each.

use opamp_client::Transport;

/// What an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which server; they serve the same fleet, and know nothing of each other's connections.
    pub(crate) server: usize,
    pub(crate) transport: Transport,
    pub(crate) behind: Behind,
}

/// How far somebody gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// There is a server.
    Good,
    /// Connections stand, and nobody ever answers.
    Mute,
    /// Nobody listens.
    Refused,
    /// What an agent would need to go there cannot be used at all.
    Unfit,
}

/// How many servers there are.
pub(crate) const SERVERS: usize = 2;

impl Place {
    /// What is behind an address.
    pub(crate) fn at(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let transport = if scheme.starts_with("http") { Transport::Http } else { Transport::WebSocket };
        let (server, behind) = match rest.split('/').next().expect("a host") {
            "one.example" => (0, Behind::Good),
            "two.example" => (1, Behind::Good),
            "mute.example" => (0, Behind::Mute),
            "gone.example" => (0, Behind::Refused),
            "unfit.example" => (0, Behind::Unfit),
            other => panic!("no such place: {other}"),
        };
        Self { server, transport, behind }
    }

    /// The address of this transport at this host.
    pub(crate) fn url(transport: Transport, host: &str) -> String {
        let scheme = if transport == Transport::Http { "https" } else { "wss" };
        format!("{scheme}://{host}/v1/opamp")
    }

    /// Where the server of this number is.
    pub(crate) fn host(server: usize) -> &'static str {
        ["one.example", "two.example"][server % SERVERS]
    }
}
