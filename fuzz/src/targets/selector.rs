//! Selectors: whatever is parsed prints as something that means the same, and nothing is parsed without end.

use std::cell::Cell;

use opamp_fleet::selector::{LabelFact, REQUIREMENTS_MAX, SELECTOR_BYTES_MAX, Subject};
use opamp_fleet::{Drift, Health, LabelScope, Liveness, Selector};
use opamp_proto::AgentCapabilities;

use crate::memory::measured;
use crate::tape::Tape;

pub(crate) fn run(input: &[u8]) {
    // A few bytes choose the agents, the rest is the selector.
    let (choices, text) = input.split_at(input.len().min(8));
    let Ok(text) = std::str::from_utf8(text) else { return };

    let (parsed, allocated) = measured(|| text.parse::<Selector>());
    let bound = 4_096 + 200 * text.len() as u64;
    assert!(allocated.bytes_max <= bound, "{} bytes for a text of {}", allocated.bytes_max, text.len());
    let selector = match parsed {
        Ok(selector) => selector,
        Err(error) => {
            assert!(error.to_string().len() < 2_000, "an error that a person can read");
            return;
        }
    };
    assert!(text.len() <= SELECTOR_BYTES_MAX && selector.requirements().len() <= REQUIREMENTS_MAX);

    let printed = selector.to_string();
    let again: Selector = match printed.parse() {
        Ok(again) => again,
        // Quotes and escapes are added, so what was within the bound may print beyond it.
        Err(_) if printed.len() > SELECTOR_BYTES_MAX => return,
        Err(error) => panic!("{text:?} prints as {printed:?}, which is refused: {error}"),
    };
    assert_eq!(again, selector, "{printed}");
    assert_eq!(again.to_string(), printed, "the printed form is its own");

    let mut tape = Tape::new(choices);
    for _ in 0..3 {
        let subject = Anyone::drawn(&mut tape);
        let matches = selector.matches(&subject);
        assert_eq!(again.matches(&subject), matches, "{printed}");
        let each = selector.requirements().len();
        assert!(subject.asked.get() <= 4 * each, "evaluation looks at each requirement once");
        assert!(matches || !selector.is_everything());
    }
}

/// An agent that has some answer to every question.
struct Anyone {
    salt: u8,
    capabilities: AgentCapabilities,
    drift: Drift,
    health: Health,
    liveness: Liveness,
    asked: Cell<usize>,
}

impl Anyone {
    fn drawn(tape: &mut Tape<'_>) -> Self {
        Self {
            salt: tape.byte(),
            capabilities: AgentCapabilities::from_bits(u64::from(tape.short())),
            drift: tape.pick(&Drift::ALL),
            health: tape.pick(&Health::ALL),
            liveness: tape.pick(&Liveness::ALL),
            asked: Cell::new(0),
        }
    }
}

impl Subject for Anyone {
    fn label(&self, scope: Option<LabelScope>, key: &str) -> LabelFact<'_> {
        self.asked.set(self.asked.get() + 1);
        let digest = key.bytes().fold(self.salt, |digest, byte| digest.rotate_left(3) ^ byte);
        match (digest ^ scope.map_or(0, |scope| scope as u8)) % 8 {
            0 => LabelFact::Absent,
            1 => LabelFact::Opaque,
            2 => LabelFact::Unknown,
            3 => LabelFact::Text(""),
            4 => LabelFact::Text("1.2.0"),
            5 => LabelFact::Text("a"),
            6 => LabelFact::Text("v10.0.0-rc.1"),
            _ => LabelFact::Text("linux"),
        }
    }

    fn capabilities(&self) -> AgentCapabilities {
        self.capabilities
    }

    fn drift(&self) -> Drift {
        self.drift
    }

    fn health(&self) -> Health {
        self.health
    }

    fn liveness(&self) -> Liveness {
        self.liveness
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let texts = [
        ("everything", ""),
        ("kubernetes", "os.type in (linux, windows),team!=edge,!gone,present"),
        ("words", "agent_type=collector,capability in (AcceptsRemoteConfig),drift=in_sync,health!=unhealthy"),
        ("versions", "version>=1.2.0,version<v2,cores>16,liveness notin (connected,stale)"),
        ("scopes", "label/team=edge,identifying/service.name=a,non-identifying/os.type"),
        ("quotes", "\"a \\\" \\\\ b\"=\"\",\"health\"=x,empty=,k in (\"\",\"group\")"),
        ("broken", "a in (b,"),
    ];
    texts.map(|(name, text)| (name, [&[3, 1, 4, 1, 5, 9, 2, 6], text.as_bytes()].concat())).into()
}
