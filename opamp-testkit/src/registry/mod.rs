//! The requirement registry: one row for every conformance requirement of the OpAMP specification this project
//! tracks, and how far it is met.
//!
//! The rows live in `opamp-testkit/registry/<area>.toml`, one file per area, edited by hand. A row says what the
//! specification asks (level, side, stability, text) and the state of the work: *proven* by named tests, *deferred*
//! to a topic, *not applicable* with a reason, or *open* while the work is under way. A row about both sides has one state
//! for each.
//!
//! [`violations`] is what keeps it honest: no row may be missing or open, no test name may be invented, and only what
//! belongs to issuing and revoking credentials may wait for enrolment. Beside it stand the [`Lessons`] that other systems
//! paid for, each with the tests that rule it out. [`to_markdown`] renders both as `docs/conformance.md`.

mod lessons;
mod markdown;
mod rows;
mod rules;
mod sources;

pub use lessons::{LESSONS, Lesson, Lessons};
pub use markdown::to_markdown;
pub use rows::{
    Keyword, Level, Registry, RegistryError, Row, RowId, Side, Stability, State, States, TestPath, Topic,
};
pub use rules::violations;
pub use sources::{SourceError, Workspace};

/// One area of requirements, and how many rows of which kind the list of requirements has in it.
///
/// The numbers are those of the list itself, so that a lost row or an altered level shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The part between the dashes of a row's id: `TRANS` in `R-TRANS-01`.
    pub name: &'static str,
    /// What the area is about.
    pub title: &'static str,
    /// Number of rows.
    pub rows: usize,
    /// Rows by keyword: MUST and MUST NOT, SHOULD and SHOULD NOT, MAY, prose.
    pub by_keyword: [usize; 4],
    /// Rows by side: server, client, both.
    pub by_side: [usize; 3],
    /// Rows by stability: stable, beta, development.
    pub by_stability: [usize; 3],
    /// Whether rows of it may be deferred to enrolment: the areas that speak of issuing and revoking credentials.
    pub enrolment: bool,
}

impl Area {
    const fn new(
        name: &'static str,
        title: &'static str,
        by_keyword: [usize; 4],
        by_side: [usize; 3],
        by_stability: [usize; 3],
    ) -> Self {
        let rows = by_side[0] + by_side[1] + by_side[2];
        Self { name, title, rows, by_keyword, by_side, by_stability, enrolment: false }
    }

    const fn with_enrolment(self) -> Self {
        Self { enrolment: true, ..self }
    }

    /// The area with this name.
    pub fn named(name: &str) -> Option<&'static Area> {
        AREAS.iter().find(|area| area.name == name)
    }
}

/// Every area, in the order of the list of requirements; 479 rows in all.
pub const AREAS: [Area; 28] = [
    Area::new("TRANS", "Transport in general", [0, 2, 1, 7], [3, 1, 6], [10, 0, 0]),
    Area::new("WS", "WebSocket: framing, exchange and size limits", [8, 8, 0, 7], [7, 6, 10], [23, 0, 0]),
    Area::new("HTTP", "Plain HTTP transport", [15, 12, 1, 5], [11, 18, 4], [32, 0, 1]),
    Area::new("MSG", "Messages as a whole", [5, 1, 0, 7], [7, 5, 1], [13, 0, 0]),
    Area::new("ID", "Agent identity", [4, 7, 1, 5], [8, 8, 1], [17, 0, 0]),
    Area::new("CAP", "Capabilities and gating", [20, 2, 2, 7], [15, 15, 1], [17, 10, 4]),
    Area::new(
        "STATUS",
        "Status reporting, compression, resynchronisation",
        [5, 3, 2, 11],
        [7, 14, 0],
        [18, 2, 1],
    ),
    Area::new("DESC", "Agent description", [0, 4, 0, 3], [1, 6, 0], [7, 0, 0]),
    Area::new("HEALTH", "Health", [1, 1, 0, 7], [0, 6, 3], [0, 8, 1]),
    Area::new("HB", "Heartbeats", [4, 3, 1, 9], [5, 12, 0], [0, 0, 17]),
    Area::new("CMD", "Restart command", [0, 0, 0, 5], [1, 4, 0], [0, 5, 0]),
    Area::new("CONF", "Remote configuration", [6, 5, 2, 16], [10, 12, 7], [29, 0, 0]),
    Area::new("OWN", "Own telemetry", [1, 10, 0, 3], [4, 10, 0], [0, 13, 1]),
    Area::new("CONN", "Connection settings", [6, 6, 2, 25], [10, 27, 2], [0, 31, 8]).with_enrolment(),
    Area::new("TLS", "TLS, proxy, header and certificate messages", [2, 5, 0, 14], [6, 13, 2], [0, 8, 13])
        .with_enrolment(),
    Area::new(
        "CRED",
        "First-use flows, revocation, certificate generation",
        [1, 0, 0, 10],
        [7, 2, 2],
        [0, 11, 0],
    )
    .with_enrolment(),
    Area::new("CSR", "Certificate request started by the agent", [2, 3, 1, 18], [14, 10, 0], [0, 0, 24])
        .with_enrolment(),
    Area::new("PKG", "Packages", [14, 18, 2, 19], [11, 37, 5], [0, 50, 3]),
    Area::new("CUST", "Custom capabilities and messages", [0, 0, 0, 13], [0, 0, 13], [0, 0, 13]),
    Area::new("COMP", "Available components", [1, 3, 0, 9], [2, 8, 3], [0, 0, 13]),
    Area::new("LIFE", "Connecting, disconnecting, reconnecting", [5, 8, 0, 3], [5, 10, 1], [16, 0, 0]),
    Area::new("AUTH", "Authentication", [1, 0, 1, 2], [1, 1, 2], [0, 4, 0]),
    Area::new("ERR", "Error responses", [1, 4, 0, 4], [6, 2, 1], [9, 0, 0]),
    Area::new("RETRY", "Retrying", [1, 0, 3, 3], [2, 5, 0], [7, 0, 0]),
    Area::new("THROT", "Throttling", [0, 6, 2, 3], [4, 7, 0], [11, 0, 0]),
    Area::new("SEC", "Security", [0, 0, 0, 14], [1, 11, 2], [9, 5, 0]),
    Area::new("INTEROP", "Interoperability and schema stability", [2, 1, 0, 4], [0, 0, 7], [7, 0, 0]),
    Area::new("OTEL", "Companion guidelines for OpenTelemetry agents", [2, 5, 0, 1], [1, 6, 1], [8, 0, 0]),
];

/// Number of rows over all areas.
pub const ROWS: usize = 479;
