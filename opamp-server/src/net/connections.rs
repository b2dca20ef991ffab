//! Every WebSocket of the server, and when each is to be looked at next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opamp_proto::Mono;

use super::connection::Connection;
use super::directory::SHARDS;

/// The connections by number, in shards.
///
/// The time of the next look stands beside the pointer, so that a sweep passes those over that have time without touching them.
#[derive(Debug)]
pub(crate) struct Connections(Box<[Mutex<Shard>]>);

type Shard = HashMap<u64, Entry>;

#[derive(Debug)]
struct Entry {
    look_at: Mono,
    connection: Arc<Connection>,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    pub(crate) fn insert(&self, connection: &Arc<Connection>) {
        let entry = Entry { look_at: Mono::default(), connection: Arc::clone(connection) };
        self.shard(connection.id()).insert(connection.id(), entry);
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, connection: &Connection) -> bool {
        self.shard(connection.id()).remove(&connection.id()).is_some()
    }

    /// Has the next sweep look at this one, whatever was said about when to look at it.
    pub(crate) fn look_soon(&self, connection: &Connection) {
        if let Some(entry) = self.shard(connection.id()).get_mut(&connection.id()) {
            entry.look_at = Mono::default();
        }
    }

    /// Those that are there now; what comes and goes meanwhile may or may not be among them.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        let mut all = Vec::new();
        for shard in &self.0 {
            all.extend(lock(shard).values().map(|entry| Arc::clone(&entry.connection)));
        }
        all
    }

    /// Looks at those of a shard that are due, and answers how many that were. `look` says when to look again; the shard is locked
    /// meanwhile.
    pub(crate) fn look(&self, shard: usize, now: Mono, look: impl Fn(&Connection) -> Mono) -> usize {
        let mut shard = lock(&self.0[shard]);
        let due = shard.values_mut().filter(|entry| entry.look_at <= now);
        due.map(|entry| entry.look_at = look(&entry.connection)).count()
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, Shard> {
        lock(&self.0[(id % SHARDS as u64) as usize])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use opamp_proto::Wall;
    use proptest::prelude::*;

    use super::*;
    use crate::net::presented::Presented;
    use crate::net::settings::ServerSettings;
    use crate::snapshot::{ConnectionInfo, Principal, Transport};

    #[derive(Clone, Debug)]
    enum Happening {
        Heard,
        Writing(bool),
        Receiving(bool),
        Agents(usize),
        Nothing,
    }

    fn connection(id: u64) -> Arc<Connection> {
        let info = ConnectionInfo {
            id,
            transport: Transport::WebSocket,
            remote_addr: None,
            principal: Principal::anonymous(),
            connected_at: Wall(0),
        };
        Arc::new(Connection::new(Arc::new(info), Presented::default(), Mono::default()))
    }

    fn look_at_all(connections: &Connections, now: Mono, look: impl Fn(&Connection) -> Mono) -> usize {
        (0..SHARDS).map(|shard| connections.look(shard, now, &look)).sum()
    }

    /// Whether it has to be looked at.
    fn apply(happening: &Happening, connection: &Connection, now: Mono) -> bool {
        match happening {
            Happening::Heard => connection.heard(now),
            Happening::Writing(on) => connection.writing(on.then_some(now)),
            Happening::Receiving(on) => connection.receiving(on.then_some(now)),
            Happening::Agents(agents) => return connection.set_agents(*agents, now),
            Happening::Nothing => {}
        }
        false
    }

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        let happening = prop_oneof![
            3 => Just(Happening::Heard),
            1 => any::<bool>().prop_map(Happening::Writing),
            1 => any::<bool>().prop_map(Happening::Receiving),
            1 => (0..=2_usize).prop_map(Happening::Agents),
            40 => Just(Happening::Nothing),
        ];
        prop::collection::vec(happening, 0..400)
    }

    proptest! {
        #[test]
        fn a_connection_that_is_looked_at_when_it_is_due_is_treated_as_one_that_is_always_looked_at(
            happenings in happenings(),
            ping_s in 1..40_u64,
            timeouts_s in prop::array::uniform4(1..40_u64),
            offset_ms in 0..250_u64,
        ) {
            let [write, body, first, read] = timeouts_s.map(Duration::from_secs);
            let settings = ServerSettings {
                ping_interval: Duration::from_secs(ping_s),
                write_timeout: write,
                body_timeout: body,
                first_message_timeout: first,
                read_timeout: read,
                ..ServerSettings::default()
            };
            let period = settings.sweep_period().as_millis() as u64;
            let (always, due) = (connection(1), connection(2));
            let connections = Connections::new();
            connections.insert(&due);
            for (at, happening) in happenings.iter().enumerate() {
                let now = Mono(at as u64 * period);
                let before = Mono(now.0.saturating_sub(offset_ms));
                apply(happening, &always, before);
                if apply(happening, &due, before) {
                    connections.look_soon(&due);
                }
                let slow = always.sweep(now, &settings);
                let found = Cell::new(None);
                let look = |connection: &Connection| {
                    found.set(connection.sweep(now, &settings));
                    connection.next_look(now, &settings)
                };
                let looked_at = look_at_all(&connections, now, look);
                prop_assert!(looked_at <= 1);
                prop_assert_eq!(found.get(), slow);
                let (ordered, expected) = (due.take_orders(), always.take_orders());
                prop_assert_eq!(ordered.ping, expected.ping);
                prop_assert_eq!(ordered.close, expected.close);
            }
        }
    }

    #[test]
    fn one_that_has_time_is_not_looked_at() {
        let settings = ServerSettings::default();
        let connections = Connections::new();
        connections.insert(&connection(1));
        let look = |now| look_at_all(&connections, now, |connection| connection.next_look(now, &settings));
        assert_eq!(look(Mono(0)), 1);
        assert_eq!(look(Mono(1_000)), 0);
        assert_eq!(look(Mono(19_000)), 0);
        assert_eq!(
            look(Mono(20_000)),
            1,
            "a write that began right after the first look would have taken too long"
        );
    }
}
