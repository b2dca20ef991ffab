//! Which crate may know which: the direction of the layers, and the purity of the sans-IO parts.
//!
//! ```text
//! opamp-proto ◄─┬─ opamp-server ◄─┐
//!               ├─ opamp-store  ◄─┴─ opamp-fleet, feature `manager` ◄─ examples
//!               ├─ opamp-fleet (default)
//!               └─ opamp-client
//! ```

use std::fmt;

/// What a crate of ours may be built from, of the other crates of ours.
///
/// Crates that are not listed are programs and tools: they may use everything, and nothing may use them.
const LAYERS: &[Layer] = &[
    Layer { name: "opamp-proto", always: &[], optional: &[] },
    Layer { name: "opamp-client", always: &["opamp-proto"], optional: &[] },
    Layer { name: "opamp-server", always: &["opamp-proto"], optional: &[] },
    Layer { name: "opamp-store", always: &["opamp-proto"], optional: &[] },
    Layer { name: "opamp-fleet", always: &["opamp-proto"], optional: &["opamp-server", "opamp-store"] },
    Layer {
        name: "opamp-testkit",
        always: &["opamp-proto", "opamp-client", "opamp-server", "opamp-store", "opamp-fleet"],
        optional: &[],
    },
];

/// Crates that only tests and tools may be built from, besides the unlisted ones.
const TEST_ONLY: &[&str] = &["opamp-testkit"];

/// Packages that may be built from a test-only crate: they are tests and tools themselves.
const TEST_PACKAGES: &[&str] = &["fleet-sim", "interop", "opamp-benches", "xtask"];

/// Runtimes, sockets, clocks, randomness and storage: what a pure crate is never built from.
const IMPURE: &[&str] = &[
    "async-executor",
    "async-io",
    "async-std",
    "axum",
    "chrono",
    "fastrand",
    "getrandom",
    "http",
    "hyper",
    "hyper-util",
    "libsqlite3-sys",
    "mio",
    "polling",
    "quanta",
    "rand",
    "rand_chacha",
    "rand_core",
    "ring",
    "rustls",
    "smol",
    "socket2",
    "sqlx",
    "sqlx-core",
    "time",
    "tokio",
    "tokio-rustls",
    "tokio-tungstenite",
    "tokio-util",
    "tungstenite",
    "web-time",
];

/// What a protocol server must never pull in: storage, and the frameworks of whoever embeds it.
const NOT_IN_SERVER: &[&str] =
    &["axum", "clap", "libsqlite3-sys", "opamp-fleet", "opamp-store", "sqlx", "sqlx-core", "toml"];

/// What an agent must never carry along: servers, storage, and frameworks.
const NOT_IN_CLIENT: &[&str] = &[
    "axum",
    "clap",
    "libsqlite3-sys",
    "opamp-fleet",
    "opamp-server",
    "opamp-store",
    "sqlx",
    "sqlx-core",
    "toml",
];

/// What storage must never pull in: transports and frameworks.
const NOT_IN_STORE: &[&str] = &[
    "axum",
    "hyper",
    "opamp-fleet",
    "opamp-server",
    "rustls",
    "tokio-rustls",
    "tokio-tungstenite",
    "tungstenite",
];

/// One selection of features of one crate, and what its tree must not hold.
#[derive(Clone, Copy, Debug)]
pub struct Purity {
    /// The package.
    pub package: &'static str,
    /// Arguments for cargo that choose the features.
    pub features: &'static [&'static str],
    /// Crates that must not be in its tree.
    pub banned: &'static [&'static str],
}

impl Purity {
    /// Every selection that is checked.
    pub const ALL: &'static [Self] = &[
        Self { package: "opamp-proto", features: &["--all-features"], banned: IMPURE },
        Self { package: "opamp-client", features: &["--no-default-features"], banned: IMPURE },
        Self { package: "opamp-server", features: &["--no-default-features"], banned: IMPURE },
        Self { package: "opamp-fleet", features: &["--no-default-features"], banned: IMPURE },
        Self {
            package: "opamp-fleet",
            features: &["--no-default-features", "--features", "collector"],
            banned: IMPURE,
        },
        Self { package: "opamp-store", features: &["--no-default-features"], banned: IMPURE },
        Self { package: "opamp-client", features: &["--all-features"], banned: NOT_IN_CLIENT },
        Self { package: "opamp-server", features: &["--all-features"], banned: NOT_IN_SERVER },
        Self { package: "opamp-store", features: &["--all-features"], banned: NOT_IN_STORE },
    ];

    /// The banned crates among the crates of a tree.
    #[must_use]
    pub fn violations(&self, tree: &[String]) -> Vec<String> {
        tree.iter()
            .filter(|name| self.banned.contains(&name.as_str()))
            .map(|name| format!("{self} is built from {name}"))
            .collect()
    }
}

impl fmt::Display for Purity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package, self.features.join(" "))
    }
}

/// When a dependency is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// In every build, including as a build dependency.
    Always,
    /// For tests only.
    Dev,
    /// Behind a feature.
    Optional,
}

/// One crate of ours depends on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    from: String,
    to: String,
    kind: EdgeKind,
}

impl Edge {
    /// An edge between two names.
    #[must_use]
    pub fn new(from: &str, to: &str, kind: EdgeKind) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), kind }
    }
}

/// Edges that point the wrong way.
#[must_use]
pub fn direction_violations(edges: &[Edge]) -> Vec<String> {
    edges
        .iter()
        .filter_map(|edge| wrong(edge).map(|why| format!("{} depends on {}: {why}", edge.from, edge.to)))
        .collect()
}

/// Names of the crates in the output of `cargo tree --prefix none`, each once, in order of first appearance.
#[must_use]
pub fn tree_names(output: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in output.lines() {
        // Section headings stand in brackets; a crate line is "name v1.2.3 …".
        let mut words = line.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        if version.starts_with('v') && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

struct Layer {
    name: &'static str,
    always: &'static [&'static str],
    optional: &'static [&'static str],
}

fn wrong(edge: &Edge) -> Option<&'static str> {
    let target = LAYERS.iter().find(|layer| layer.name == edge.to);
    if target.is_none() {
        return Some("nothing may depend on a program or a tool");
    }
    if edge.kind == EdgeKind::Dev {
        // A test may look down and sideways; a crate's own tests may use the kit that knows all of them.
        return None;
    }
    if TEST_ONLY.contains(&edge.to.as_str()) && !TEST_PACKAGES.contains(&edge.from.as_str()) {
        return Some("it is for tests only");
    }
    let layer = LAYERS.iter().find(|layer| layer.name == edge.from)?;
    let allowed = match edge.kind {
        EdgeKind::Always => layer.always.contains(&edge.to.as_str()),
        EdgeKind::Optional => {
            layer.always.contains(&edge.to.as_str()) || layer.optional.contains(&edge.to.as_str())
        }
        EdgeKind::Dev => true,
    };
    if allowed {
        None
    } else if layer.optional.contains(&edge.to.as_str()) {
        Some("it may do so behind a feature only")
    } else {
        Some("this direction is not allowed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(package: &str, features: &str) -> Purity {
        *Purity::ALL.iter().find(|one| one.package == package && one.features == [features]).unwrap()
    }

    fn one(from: &str, to: &str, kind: EdgeKind) -> Vec<String> {
        direction_violations(&[Edge::new(from, to, kind)])
    }

    #[test]
    fn the_layers_of_the_architecture_are_allowed() {
        let edges = [
            Edge::new("opamp-server", "opamp-proto", EdgeKind::Always),
            Edge::new("opamp-fleet", "opamp-store", EdgeKind::Optional),
            Edge::new("reference-server", "opamp-fleet", EdgeKind::Always),
            Edge::new("opamp-server", "opamp-testkit", EdgeKind::Dev),
            Edge::new("interop", "opamp-testkit", EdgeKind::Always),
            Edge::new("fleet-sim", "opamp-testkit", EdgeKind::Always),
        ];
        assert_eq!(direction_violations(&edges), Vec::<String>::new());
    }

    #[test]
    fn a_store_that_knows_the_server_is_refused() {
        assert_eq!(
            one("opamp-store", "opamp-server", EdgeKind::Always),
            ["opamp-store depends on opamp-server: this direction is not allowed"]
        );
        assert_eq!(one("opamp-store", "opamp-server", EdgeKind::Optional).len(), 1);
    }

    #[test]
    fn a_codec_that_knows_a_session_is_refused() {
        assert_eq!(one("opamp-proto", "opamp-server", EdgeKind::Always).len(), 1);
    }

    #[test]
    fn a_fleet_that_always_needs_the_store_is_refused() {
        assert_eq!(
            one("opamp-fleet", "opamp-store", EdgeKind::Always),
            ["opamp-fleet depends on opamp-store: it may do so behind a feature only"]
        );
    }

    #[test]
    fn anything_that_depends_on_the_reference_server_is_refused() {
        for kind in [EdgeKind::Always, EdgeKind::Dev, EdgeKind::Optional] {
            for from in ["opamp-fleet", "embed-axum", "interop"] {
                assert_eq!(one(from, "reference-server", kind).len(), 1, "{from} {kind:?}");
            }
        }
    }

    #[test]
    fn a_program_built_from_the_testkit_is_refused() {
        assert_eq!(one("reference-server", "opamp-testkit", EdgeKind::Always).len(), 1);
        assert_eq!(one("opamp-server", "opamp-testkit", EdgeKind::Optional).len(), 1);
    }

    #[test]
    fn a_tree_with_a_runtime_is_not_pure() {
        let output = "\
opamp-server v0.1.0 (a path)
├── bytes v1.10.1
tokio v1.54.0
mio v1.0.0 (*)
tokio v1.54.0 (*)

[build-dependencies]
prost v0.14.4
";
        let names = tree_names(output);
        assert_eq!(names, ["opamp-server", "tokio", "mio", "prost"]);
        assert_eq!(
            checked("opamp-server", "--no-default-features").violations(&names),
            [
                "opamp-server --no-default-features is built from tokio",
                "opamp-server --no-default-features is built from mio"
            ]
        );
    }

    #[test]
    fn a_server_with_a_database_is_refused() {
        let names = ["tokio".to_owned(), "sqlx-core".to_owned()];
        let found = checked("opamp-server", "--all-features").violations(&names);
        assert_eq!(found, ["opamp-server --all-features is built from sqlx-core"]);
    }
}
