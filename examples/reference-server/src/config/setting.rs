//! Types a configuration value can have: how each is read from text and shown again.

use std::{
    fmt::{Display, Write as _},
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use opamp_server::Network;

use super::{
    load::nearest,
    value::{CapabilityName, TokenEntry, format_duration, parse_duration, parse_size},
};

/// A type of configuration values.
pub(super) trait Setting: Sized {
    /// Reads the texts of a value: one, none if it is not set, any number for a list.
    fn read(texts: &[String]) -> Result<Self, String>;

    /// The value in TOML notation, with secrets redacted.
    fn show(&self) -> String;
}

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub usize);

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl Setting for Count {
    fn read(texts: &[String]) -> Result<Self, String> {
        let text = one(texts);
        text.parse().map(Count).map_err(|_| format!("{text:?} is not a whole number"))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Setting for Option<Count> {
    fn read(texts: &[String]) -> Result<Self, String> {
        match texts.first().is_some_and(|text| !text.is_empty()) {
            true => Count::read(texts).map(Some),
            false => Ok(None),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| quoted(""), |count| count.show())
    }
}

impl Setting for Size {
    fn read(texts: &[String]) -> Result<Self, String> {
        parse_size(one(texts)).map(Size)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Setting for bool {
    fn read(texts: &[String]) -> Result<Self, String> {
        match one(texts) {
            "true" => Ok(true),
            "false" => Ok(false),
            text => Err(format!("{text:?} is neither true nor false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for Duration {
    fn read(texts: &[String]) -> Result<Self, String> {
        parse_duration(one(texts))
    }

    fn show(&self) -> String {
        quoted(format_duration(*self))
    }
}

impl Setting for SocketAddr {
    fn read(texts: &[String]) -> Result<Self, String> {
        let text = one(texts);
        text.parse().map_err(|_| format!("{text:?} is not an IP address and port such as `127.0.0.1:4320`"))
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for String {
    fn read(texts: &[String]) -> Result<Self, String> {
        Ok(one(texts).to_owned())
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for PathBuf {
    fn read(texts: &[String]) -> Result<Self, String> {
        match one(texts) {
            "" => Err("a path is needed".into()),
            text => Ok(text.into()),
        }
    }

    fn show(&self) -> String {
        quoted(self.display())
    }
}

impl Setting for Option<PathBuf> {
    fn read(texts: &[String]) -> Result<Self, String> {
        Ok(texts.first().filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| quoted(""), PathBuf::show)
    }
}

macro_rules! lists {
    ($($item:ty),*) => {
        $(impl Setting for Vec<$item> {
            fn read(texts: &[String]) -> Result<Self, String> {
                texts.iter().map(|text| <$item as FromStr>::from_str(text).map_err(|error| error.to_string())).collect()
            }

            fn show(&self) -> String {
                let items: Vec<_> = self.iter().map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
        })*
    };
}

lists!(CapabilityName, Network, TokenEntry);

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            pub(super) const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $word,)* })
            }
        }

        impl Setting for $name {
            fn read(texts: &[String]) -> Result<Self, String> {
                match one(texts) {
                    $($word => Ok($name::$variant),)*
                    text => Err(format!("{text:?} is none of {}{}", Self::WORDS.join(", "), nearest(text, Self::WORDS))),
                }
            }

            fn show(&self) -> String {
                quoted(self)
            }
        }
    };
}

choice! {
    /// How agents prove who they are.
    AgentAuth {
        /// They do not: everyone is accepted.
        Insecure = "insecure",
        /// By a client certificate.
        Mtls = "mtls",
        /// By a bearer token.
        Token = "token",
        /// By either of the two.
        TokenOrMtls = "token-or-mtls",
    }
}

choice! {
    /// What reads and writes the frames of WebSockets.
    Frames {
        /// The server's own, without buffers for idle connections.
        Lean = "lean",
        /// The library tokio-tungstenite.
        Tungstenite = "tungstenite",
    }
}

choice! {
    /// Log lines for people or for machines.
    LogFormat {
        /// One JSON object per line.
        Json = "json",
        /// Readable lines.
        Text = "text",
    }
}

choice! {
    /// Who may read `/metrics`.
    MetricsAccess {
        /// Everyone while the admin port is on loopback, otherwise holders of a token.
        Auto = "auto",
        /// Everyone.
        Open = "open",
        /// Holders of an API token of any role.
        Token = "token",
    }
}

choice! {
    /// What happens to a field whose capability the agent does not announce.
    Mismatch {
        /// The field is ignored and noted.
        Ignore = "ignore",
        /// The message is refused.
        Reject = "reject",
    }
}

choice! {
    /// What happens to an agent with the instance uid of another one and another credential.
    OtherCredential {
        /// Its messages are refused.
        Flag = "flag",
        /// It takes the place of the other one.
        NewestWins = "newest-wins",
        /// It gets a uid of its own.
        Rekey = "rekey",
        /// Its connection is closed.
        Reject = "reject",
    }
}

choice! {
    /// What happens to an agent with the instance uid of a connected one and the same credential.
    SameCredential {
        /// It takes the place of the other one.
        NewestWins = "newest-wins",
        /// The other one is pinged: if it answers, the newcomer gets a uid of its own.
        Ping = "ping",
    }
}

choice! {
    /// Where the fleet is kept.
    StoreKind {
        /// In memory; gone at exit.
        Memory = "memory",
        /// In a database file in the data directory.
        Sqlite = "sqlite",
    }
}

pub(super) fn one(texts: &[String]) -> &str {
    texts.first().map_or("", String::as_str)
}

pub(super) fn quoted(text: impl Display) -> String {
    let mut quoted = String::from("\"");
    for c in text.to_string().chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
