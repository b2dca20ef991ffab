//! Every agent the server has a session for, found by `instance_uid`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opamp_proto::{InstanceUid, Mono};

use super::connection::Connection;
use super::duplicates::Polled;
use crate::session::Session;
use crate::snapshot::AgentChange;

/// Shards of what a server has many of.
pub(crate) const SHARDS: usize = 64;

/// Sessions by uid, in shards.
#[derive(Debug)]
pub(crate) struct Directory {
    shards: Box<[Mutex<Shard>]>,
    len: AtomicUsize,
}

type Shard = HashMap<InstanceUid, Entry>;

#[derive(Debug)]
struct Entry {
    slot: Arc<Slot>,
    /// When a sweep is to look at it next. Here and not in the slot, so that it passes those over that have time without touching
    /// them.
    look_at: Mono,
    /// The identity the agent was told to take over and does not use yet: one agent, found under two uids.
    assigned: bool,
}

/// The place of one agent: its session, and who may write to it.
///
/// The lock is held for the microseconds of one `Session::handle`, never across an await, and nearly always taken
/// by the one task that owns the agent's connection; what the application asks for reaches a socket through the
/// connection's mailbox.
#[derive(Debug)]
pub(crate) struct Slot {
    inner: Mutex<SlotInner>,
    queued: AtomicBool,
    told_later: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct SlotInner {
    pub(crate) session: Session,
    pub(crate) owner: Owner,
    /// In the owner's mailbox already. Says nothing about another owner: see [`SlotInner::own`].
    woken: bool,
    /// The numbers of an agent that polls, to tell one from two.
    pub(crate) polled: Option<Box<Polled>>,
    /// An earlier process knew the agent, and it has not come back yet.
    pub(crate) expected: bool,
    /// Removed from the directory: whoever still holds the slot must look the agent up again.
    pub(crate) forgotten: bool,
}

/// Which connection an agent is attached to. A late close of another one changes nothing.
#[derive(Debug)]
pub(crate) enum Owner {
    Nobody,
    Polling,
    Socket(Arc<Connection>),
}

impl Slot {
    pub(crate) fn new(session: Session) -> Self {
        let owner = Owner::Nobody;
        let inner =
            SlotInner { session, owner, woken: false, polled: None, expected: false, forgotten: false };
        Self { inner: Mutex::new(inner), queued: AtomicBool::new(false), told_later: AtomicBool::new(false) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SlotInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller is to queue the agent's change: nobody did since it was last taken.
    pub(crate) fn mark_queued(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Whether the agent's change is queued already.
    pub(crate) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Acquire)
    }

    /// Notes whether the agent is among those that are told of later; says whether it was.
    pub(crate) fn set_told_later(&self, told_later: bool) -> bool {
        self.told_later.swap(told_later, Ordering::AcqRel)
    }

    pub(crate) fn take_change(&self) -> Option<AgentChange> {
        self.queued.store(false, Ordering::Release);
        self.lock().session.take_change()
    }
}

impl SlotInner {
    /// Attaches the agent to another owner; the one it had is returned.
    pub(crate) fn own(&mut self, owner: Owner) -> Owner {
        self.woken = false;
        self.polled = None;
        std::mem::replace(&mut self.owner, owner)
    }

    /// Whether the caller is to put the agent into its connection's mailbox.
    pub(crate) fn mark_woken(&mut self) -> bool {
        !std::mem::replace(&mut self.woken, true)
    }

    /// The connection's task has found the agent in its mailbox.
    pub(crate) fn clear_woken(&mut self) {
        self.woken = false;
    }

    pub(crate) fn is_owned_by(&self, connection: &Connection) -> bool {
        matches!(&self.owner, Owner::Socket(owner) if owner.id() == connection.id())
    }
}

impl Directory {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, len: AtomicUsize::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn find(&self, uid: &InstanceUid) -> Option<Arc<Slot>> {
        self.shard(uid).get(uid).map(|entry| Arc::clone(&entry.slot))
    }

    /// The agent's slot, made by `make` if there is none and fewer than `max` agents are known.
    pub(crate) fn find_or_insert(
        &self,
        uid: &InstanceUid,
        max: usize,
        make: impl FnOnce() -> Session,
    ) -> Option<Arc<Slot>> {
        let mut shard = self.shard(uid);
        if let Some(entry) = shard.get(uid) {
            return Some(Arc::clone(&entry.slot));
        }
        if self.len() >= max {
            return None;
        }
        let slot = Arc::new(Slot::new(make()));
        shard.insert(*uid, Entry { slot: Arc::clone(&slot), look_at: Mono::default(), assigned: false });
        self.len.fetch_add(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Makes `slot` found under the uid its agent is told to take over; false if that uid is taken.
    pub(crate) fn assign(&self, uid: InstanceUid, slot: &Arc<Slot>) -> bool {
        let mut shard = self.shard(&uid);
        if shard.contains_key(&uid) {
            return false;
        }
        shard.insert(uid, Entry { slot: Arc::clone(slot), look_at: Mono::default(), assigned: true });
        true
    }

    /// The agent uses its assigned uid: from now on it is found under that one only.
    pub(crate) fn adopt(&self, old: &InstanceUid, new: &InstanceUid, slot: &Arc<Slot>) {
        if let Some(entry) = self.shard(new).get_mut(new).filter(|entry| Arc::ptr_eq(&entry.slot, slot)) {
            entry.assigned = false;
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        self.remove(old, slot);
    }

    /// Forgets a uid if it leads to `slot`.
    pub(crate) fn remove(&self, uid: &InstanceUid, slot: &Arc<Slot>) {
        let mut shard = self.shard(uid);
        if shard.get(uid).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot))
            && let Some(removed) = shard.remove(uid)
            && !removed.assigned
        {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Looks at those of a shard that are due, and answers how many that were. `look` says when to look again; the shard is not
    /// locked meanwhile, because an agent may be forgotten.
    pub(crate) fn look(&self, shard: usize, now: Mono, look: impl Fn(&Arc<Slot>) -> Mono) -> usize {
        let shard = &self.shards[shard];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |entry: &Entry| entry.look_at <= now && !entry.assigned;
        let due: Vec<(InstanceUid, Arc<Slot>)> = lock()
            .iter()
            .filter(|(_, entry)| due(entry))
            .map(|(uid, entry)| (*uid, Arc::clone(&entry.slot)))
            .collect();
        if due.is_empty() {
            return 0;
        }
        let again: Vec<Mono> = due.iter().map(|(_, slot)| look(slot)).collect();
        let mut shard = lock();
        for ((uid, slot), look_at) in due.iter().zip(again) {
            if let Some(entry) = shard.get_mut(uid).filter(|entry| Arc::ptr_eq(&entry.slot, slot)) {
                entry.look_at = look_at;
            }
        }
        due.len()
    }

    /// Every slot once, shard by shard: what comes and goes meanwhile may or may not be in it.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<Slot>)) {
        let mut slots = Vec::new();
        for shard in &self.shards {
            slots.clear();
            {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                let own = shard.values().filter(|entry| !entry.assigned);
                slots.extend(own.map(|entry| Arc::clone(&entry.slot)));
            }
            slots.iter().for_each(&mut visit);
        }
    }

    /// Every slot once, in the order of the uids, each as it is when its turn comes.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = Arc<Slot>> {
        let mut uids: Vec<InstanceUid> = Vec::with_capacity(self.len());
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            uids.extend(shard.iter().filter(|(_, entry)| !entry.assigned).map(|(uid, _)| *uid));
        }
        uids.sort_unstable_by_key(|uid| *uid.as_bytes());
        uids.into_iter().filter_map(|uid| self.find(&uid))
    }

    fn shard(&self, uid: &InstanceUid) -> MutexGuard<'_, Shard> {
        let bytes = uid.as_bytes();
        // The last byte is random in every UUID version in use.
        let index = usize::from(bytes[15]) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
