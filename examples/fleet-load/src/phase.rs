//! What a run does: phases, in the order in which they are given.
//!
//! A phase is written `name:argument,argument,…`; an argument is a word or `key=value`. [`HELP`] lists them all.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::message::State;

mod arguments;

use self::arguments::Arguments;

/// The phases with their arguments, as `--help` shows them.
pub const HELP: &str = "\
Phases, in the order in which they run (times: 500ms, 5s, 10m; sizes: 512, 4KiB, 64MiB):
  connect:agents=N,rate=PER_SECOND,state=none|2k|10k|10k-many|unkept-10k
                              connect up to N agents and send a first message of that size; defaults: rate 1000, state none
  idle:secs=N                 measure memory and CPU while nothing is sent; default 5
  settle:secs=N               the same, to let the server come to rest; default 60
  heartbeat:saturated,active=N,secs=N
                              N agents send the next heartbeat as soon as the last one is answered; defaults: active 64, secs 5
  heartbeat:rate=PER_SECOND,secs=N
                              all agents in turn, so many messages per second
  status:2k|10k|10k-many,saturated|rate=…,active=N,secs=N
                              the same with a status of 2 KB, a full state of 10 KB, or one of that size with many more parts
  push:BYTES,within=SECS      offer a config to every agent through --control, and wait until each has applied it; default within 60
  hold:secs=N,heartbeat=SECS  every agent sends a heartbeat in that interval, memory is sampled; defaults: secs 60, heartbeat 30
  churn:rate=PER_SECOND,secs=N
                              so many agents per second drop their connection and come back
  reconnect:within=SECS       all agents drop, and come back spread over that time, honouring Retry-After; default 10
  slow:percent=P              P percent of the agents come back with small socket buffers, and take nothing from them from here
                              on; 0 ends it
  halfopen:percent=P,upgraded P percent as many further connections say nothing, or nothing after the upgrade; each sort by
                              itself; those that the server has closed are opened again; 0 closes them
  announce:bytes=SIZE,sent=SIZE,secs=N
                              every agent announces a message of that size, sends so much of it and no more; defaults: 64MiB, 16, secs 5";

/// Most bytes of an announced message that are sent.
pub const ANNOUNCED_SENT_MAX: u64 = 512 << 10;

/// One phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Every agent announces a large message and does not send it.
    Announce {
        /// The announced length.
        bytes: u64,
        /// How much of it is sent.
        sent: u64,
        /// How long it stays at that.
        secs: f64,
    },
    /// Agents drop their connection and come back.
    Churn {
        /// How many per second.
        rate: f64,
        /// For how long.
        secs: f64,
    },
    /// Agents connect and send their first message.
    Connect {
        /// How many are connected at the end.
        agents: u32,
        /// How many per second.
        rate: f64,
        /// What they report first.
        state: State,
    },
    /// Connections that say nothing.
    HalfOpen {
        /// How many, as a share of the agents.
        percent: f64,
        /// Whether they ask for a WebSocket before they fall silent.
        upgraded: bool,
    },
    /// Every agent sends heartbeats in an interval.
    Hold {
        /// For how long.
        secs: f64,
        /// The interval.
        heartbeat_secs: f64,
    },
    /// Nothing is sent.
    Idle {
        /// For how long.
        secs: f64,
    },
    /// Agents send messages.
    Load {
        /// Which.
        message: Traffic,
        /// How many at a time.
        pace: Pace,
        /// For how long.
        secs: f64,
    },
    /// A config is offered to every agent.
    Push {
        /// Size of its body.
        bytes: u64,
        /// How long is waited for the last agent.
        within_secs: f64,
    },
    /// All agents drop and come back.
    Reconnect {
        /// The time over which they are spread.
        within_secs: f64,
    },
    /// Nothing is sent, so that the server comes to rest.
    Settle {
        /// For how long.
        secs: f64,
    },
    /// Agents that take nothing from their sockets.
    Slow {
        /// How many, as a share of the agents.
        percent: f64,
    },
}

/// What is sent under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// Heartbeats.
    Heartbeat,
    /// Statuses of 2 KB.
    Status2k,
    /// Full states of 10 KB.
    Status10k,
    /// Full states of 10 KB with many more parts.
    Status10kMany,
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// So many per second, whether answers come or not.
    Rate(f64),
    /// So many agents, each sending the next as soon as the last is answered.
    Saturated {
        /// How many.
        active: u32,
    },
}

/// A phase that cannot be understood: what is wrong, and what could stand there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("phase `{phase}`: {fault}")]
pub struct PhaseError {
    phase: String,
    fault: String,
}

const NAMES: &str =
    "announce, churn, connect, halfopen, heartbeat, hold, idle, push, reconnect, settle, slow, status";

impl FromStr for Phase {
    type Err = PhaseError;

    fn from_str(text: &str) -> Result<Self, PhaseError> {
        parse(text).map_err(|fault| PhaseError { phase: text.to_owned(), fault })
    }
}

fn parse(text: &str) -> Result<Phase, String> {
    let (name, rest) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
    let mut given = Arguments::new(rest)?;
    let phase = match name {
        "announce" => {
            let bytes = given.size("bytes")?.unwrap_or(64 << 20);
            let sent = given.size("sent")?.unwrap_or(bytes.min(16));
            if sent >= bytes || sent > ANNOUNCED_SENT_MAX {
                return Err(format!(
                    "sent={sent} is not less than bytes={bytes}, or more than {ANNOUNCED_SENT_MAX}"
                ));
            }
            Phase::Announce { bytes, sent, secs: given.secs("secs")?.unwrap_or(5.0) }
        }
        "churn" => {
            Phase::Churn { rate: given.rate()?.unwrap_or(100.0), secs: given.secs("secs")?.unwrap_or(10.0) }
        }
        "connect" => Phase::Connect {
            agents: given.count("agents")?.ok_or("says not how many agents: add agents=N")?,
            rate: given.rate()?.unwrap_or(1_000.0),
            state: match given.text("state").as_deref() {
                None | Some("none") => State::None,
                Some("2k") => State::Kib2,
                Some("10k") => State::Kib10,
                Some("10k-many") => State::Kib10Many,
                Some("unkept-10k") => State::Unkept10,
                Some(other) => {
                    return Err(format!("state={other} is none of none, 2k, 10k, 10k-many, unkept-10k"));
                }
            },
        },
        "halfopen" => Phase::HalfOpen { upgraded: given.word("upgraded"), percent: given.percent()? },
        "heartbeat" => load(&mut given, Traffic::Heartbeat)?,
        "hold" => Phase::Hold {
            secs: given.secs("secs")?.unwrap_or(60.0),
            heartbeat_secs: given.secs("heartbeat")?.unwrap_or(30.0),
        },
        "idle" => Phase::Idle { secs: given.secs("secs")?.unwrap_or(5.0) },
        "push" => Phase::Push {
            bytes: match given.size("bytes")? {
                Some(bytes) => bytes,
                None => given.first_size()?.ok_or("says not how large the config is: write push:4096")?,
            },
            within_secs: given.secs("within")?.unwrap_or(60.0),
        },
        "reconnect" => Phase::Reconnect { within_secs: given.secs("within")?.unwrap_or(10.0) },
        "settle" => Phase::Settle { secs: given.secs("secs")?.unwrap_or(60.0) },
        "slow" => Phase::Slow { percent: given.percent()? },
        "status" => {
            let sizes = [
                ("2k", Traffic::Status2k),
                ("10k", Traffic::Status10k),
                ("10k-many", Traffic::Status10kMany),
            ];
            let mut given_sizes = sizes.into_iter().filter(|(word, _)| given.word(word));
            let (Some((_, traffic)), None) = (given_sizes.next(), given_sizes.next()) else {
                return Err("wants one of the sizes 2k, 10k and 10k-many: write status:10k,…".to_owned());
            };
            drop(given_sizes);
            load(&mut given, traffic)?
        }
        _ => return Err(format!("there is no phase `{name}`; there are {NAMES}")),
    };
    given.finish()?;
    Ok(phase)
}

fn load(given: &mut Arguments<'_>, message: Traffic) -> Result<Phase, String> {
    let pace = match (given.word("saturated"), given.rate()?) {
        (true, None) => Pace::Saturated { active: given.count("active")?.unwrap_or(64) },
        (false, Some(rate)) => Pace::Rate(rate),
        _ => return Err("wants one of `saturated` and `rate=PER_SECOND`".to_owned()),
    };
    Ok(Phase::Load { message, pace, secs: given.secs("secs")?.unwrap_or(5.0) })
}

impl Phase {
    /// What one unit of it is, which CPU time is divided by.
    #[must_use]
    pub const fn unit(&self) -> &'static str {
        match self {
            Self::Load { .. } | Self::Hold { .. } => "message",
            Self::Connect { .. } | Self::Reconnect { .. } | Self::Churn { .. } => "connect",
            Self::Push { .. } | Self::Announce { .. } => "agent",
            Self::HalfOpen { .. } | Self::Idle { .. } | Self::Settle { .. } | Self::Slow { .. } => "second",
        }
    }

    /// How long it takes at least, for progress and for how long a worker is waited for.
    #[must_use]
    pub fn secs(&self) -> f64 {
        match self {
            Self::Announce { secs, .. }
            | Self::Churn { secs, .. }
            | Self::Hold { secs, .. }
            | Self::Idle { secs }
            | Self::Load { secs, .. }
            | Self::Settle { secs } => *secs,
            Self::Connect { agents, rate, .. } => f64::from(*agents) / rate,
            Self::HalfOpen { .. } | Self::Slow { .. } => 1.0,
            Self::Push { within_secs, .. } | Self::Reconnect { within_secs } => *within_secs,
        }
    }

    /// The part of it that falls to one of several workers which share the work evenly, the first ones taking what is left over.
    #[must_use]
    pub fn share(&self, worker: u32, workers: u32) -> Self {
        let part = |whole: u32| whole / workers + u32::from(worker < whole % workers);
        let mut phase = self.clone();
        match &mut phase {
            Self::Connect { agents, rate, .. } => {
                *agents = part(*agents);
                *rate /= f64::from(workers);
            }
            Self::Load { pace: Pace::Rate(rate), .. } | Self::Churn { rate, .. } => {
                *rate /= f64::from(workers)
            }
            Self::Load { pace: Pace::Saturated { active }, .. } => *active = part(*active),
            _ => {}
        }
        phase
    }
}

impl fmt::Display for Phase {
    /// Short, as it stands in reports: what tells it from others of the same run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announce { bytes, sent, .. } => write!(f, "announce {bytes}, {sent} sent"),
            Self::Churn { rate, .. } => write!(f, "churn {rate}/s"),
            Self::Connect { agents, state, .. } => {
                let state = match state {
                    State::None => "none",
                    State::Kib2 => "2k",
                    State::Kib10 => "10k",
                    State::Kib10Many => "10k-many",
                    State::Unkept10 => "unkept-10k",
                };
                write!(f, "connect {agents} {state}")
            }
            Self::HalfOpen { percent, upgraded } => {
                write!(f, "halfopen {percent} %{}", if *upgraded { " upgraded" } else { "" })
            }
            Self::Hold { secs, heartbeat_secs } => write!(f, "hold {secs} s at {heartbeat_secs} s"),
            Self::Idle { .. } => f.write_str("idle"),
            Self::Load { message, pace, .. } => {
                f.write_str(match message {
                    Traffic::Heartbeat => "heartbeat",
                    Traffic::Status2k => "status 2k",
                    Traffic::Status10k => "status 10k",
                    Traffic::Status10kMany => "status 10k-many",
                })?;
                match pace {
                    Pace::Rate(rate) => write!(f, " {rate}/s"),
                    Pace::Saturated { .. } => f.write_str(" saturated"),
                }
            }
            Self::Push { bytes, .. } => write!(f, "push {bytes}"),
            Self::Reconnect { within_secs } => write!(f, "reconnect {within_secs} s"),
            Self::Settle { secs } => write!(f, "settle {secs} s"),
            Self::Slow { percent } => write!(f, "slow {percent} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(text: &str) -> Phase {
        text.parse().unwrap()
    }

    #[test]
    fn phases_are_read_with_their_defaults() {
        assert_eq!(
            phase("connect:agents=10000,rate=2000,state=unkept-10k"),
            Phase::Connect { agents: 10_000, rate: 2_000.0, state: State::Unkept10 }
        );
        assert_eq!(
            phase("heartbeat:saturated"),
            Phase::Load { message: Traffic::Heartbeat, pace: Pace::Saturated { active: 64 }, secs: 5.0 }
        );
        assert_eq!(
            phase("status:10k,rate=1000,secs=500ms"),
            Phase::Load { message: Traffic::Status10k, pace: Pace::Rate(1_000.0), secs: 0.5 }
        );
        assert_eq!(phase("push:64KiB"), Phase::Push { bytes: 65_536, within_secs: 60.0 });
        assert_eq!(phase("push:bytes=4096,within=5s"), Phase::Push { bytes: 4_096, within_secs: 5.0 });
        assert_eq!(phase("hold:secs=10m,heartbeat=30s"), Phase::Hold { secs: 600.0, heartbeat_secs: 30.0 });
        assert_eq!(phase("announce:bytes=64MiB"), Phase::Announce { bytes: 64 << 20, sent: 16, secs: 5.0 });
        assert_eq!(phase("halfopen:percent=1%,upgraded"), Phase::HalfOpen { percent: 1.0, upgraded: true });
        assert_eq!(phase("idle"), Phase::Idle { secs: 5.0 });
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_what_could_stand_there() {
        for (text, says) in [
            ("conect:agents=5", "there is no phase `conect`"),
            ("connect:rate=5", "add agents=N"),
            ("connect:agents=many", "agents=many"),
            ("connect:agents=0", "agents=0"),
            ("connect:agents=5,state=11k", "none of none, 2k, 10k, 10k-many, unkept-10k"),
            ("connect:agents=5,agents=6", "agents is given twice"),
            ("heartbeat:secs=5", "one of `saturated` and `rate=PER_SECOND`"),
            ("heartbeat:saturated,rate=5", "one of `saturated` and `rate=PER_SECOND`"),
            ("heartbeat:rate=5,active=3", "does not know `active`"),
            ("heartbeat:rate=-5", "rate=-5"),
            ("heartbeat:rate=0", "rate=0"),
            ("heartbeat:rate=NaN", "rate=NaN"),
            ("status:saturated", "sizes 2k, 10k and 10k-many"),
            ("push:", "write push:4096"),
            ("push:4 parsecs", "4 parsecs"),
            ("idle:secs=5 weeks", "5 weeks"),
            ("idle:secs=-1", "secs=-1"),
            ("slow:percent=101", "percent=101"),
            ("slow", "percent=P"),
            ("announce:bytes=10,sent=10", "not less than bytes=10"),
            ("idle:sec=5", "does not know `sec`"),
        ] {
            let error = text.parse::<Phase>().unwrap_err().to_string();
            assert!(error.contains(says) && error.starts_with(&format!("phase `{text}`")), "{error}");
        }
    }

    #[test]
    fn shares_of_a_phase_sum_to_the_whole() {
        for workers in 1..7 {
            let whole = phase("connect:agents=10001,rate=600");
            let (mut agents, mut rate) = (0, 0.0);
            for worker in 0..workers {
                if let Phase::Connect { agents: some, rate: part, .. } = whole.share(worker, workers) {
                    agents += some;
                    rate += part;
                }
            }
            assert_eq!(agents, 10_001);
            assert!((rate - 600.0).abs() < 1e-6);
        }
    }

    #[test]
    fn every_phase_is_in_the_help() {
        for name in NAMES.split(", ") {
            assert!(HELP.contains(&format!("\n  {name}:")), "{name}");
        }
    }
}
