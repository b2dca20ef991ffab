//! Label keys and values that many agents share, stored once and counted.

use std::collections::HashMap;
use std::sync::Arc;

/// Number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyId(pub(super) u16);

/// Number of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ValueId(pub(super) u32);

/// What becomes of a value that is given to [`Interner::value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interned {
    /// It is stored here.
    Shared(ValueId),
    /// Its key has too many distinct values for sharing to pay: the row keeps the text.
    Inline,
}

/// Both tables are bounded: keys by `keys_max`, values by `values_per_key_max` for each key. Every use is counted,
/// so that nothing stays that no row refers to.
#[derive(Clone, Debug)]
pub(super) struct Interner {
    keys: Slots<Key>,
    key_ids: HashMap<Arc<str>, u16>,
    values: Slots<Value>,
    keys_max: usize,
    values_per_key_max: usize,
}

#[derive(Clone, Debug)]
struct Key {
    name: Arc<str>,
    uses: u32,
    value_ids: HashMap<Arc<str>, u32>,
}

#[derive(Clone, Debug)]
struct Value {
    text: Arc<str>,
    uses: u32,
}

impl Interner {
    pub(super) fn new(keys_max: u16, values_per_key_max: usize) -> Self {
        Self {
            keys: Slots::default(),
            key_ids: HashMap::new(),
            values: Slots::default(),
            keys_max: usize::from(keys_max),
            values_per_key_max,
        }
    }

    /// The number of `name`, one more use of it counted; none if the table is full.
    pub(super) fn key(&mut self, name: &str) -> Option<KeyId> {
        if let Some(id) = self.key_ids.get(name).copied() {
            self.keys.get_mut(u32::from(id))?.uses += 1;
            return Some(KeyId(id));
        }
        if self.key_ids.len() >= self.keys_max {
            return None;
        }
        let name: Arc<str> = name.into();
        let id = self.keys.insert(Key { name: name.clone(), uses: 1, value_ids: HashMap::new() });
        let id = u16::try_from(id).ok()?;
        self.key_ids.insert(name, id);
        Some(KeyId(id))
    }

    /// The number of `text` as value of `key`, one more use of it counted.
    pub(super) fn value(&mut self, key: KeyId, text: &str) -> Interned {
        let Some(slot) = self.keys.get_mut(u32::from(key.0)) else { return Interned::Inline };
        if let Some(id) = slot.value_ids.get(text).copied() {
            if let Some(value) = self.values.get_mut(id) {
                value.uses += 1;
            }
            return Interned::Shared(ValueId(id));
        }
        if slot.value_ids.len() >= self.values_per_key_max {
            return Interned::Inline;
        }
        let text: Arc<str> = text.into();
        let id = self.values.insert(Value { text: text.clone(), uses: 1 });
        slot.value_ids.insert(text, id);
        Interned::Shared(ValueId(id))
    }

    /// The number of a key that is in use.
    pub(super) fn find_key(&self, name: &str) -> Option<KeyId> {
        self.key_ids.get(name).copied().map(KeyId)
    }

    pub(super) fn key_name(&self, id: KeyId) -> &str {
        self.keys.get(u32::from(id.0)).map_or("", |key| &key.name)
    }

    pub(super) fn value_text(&self, id: ValueId) -> &str {
        self.values.get(id.0).map_or("", |value| &value.text)
    }

    /// Takes back one use of a key, and of the value that went with it.
    pub(super) fn release(&mut self, key: KeyId, value: Option<ValueId>) {
        let key_index = u32::from(key.0);
        let Some(slot) = self.keys.get_mut(key_index) else { return };
        slot.uses -= 1;
        let key_unused = slot.uses == 0;
        if let Some(id) = value
            && let Some(value) = self.values.get_mut(id.0)
        {
            value.uses -= 1;
            if value.uses == 0
                && let Some(value) = self.values.remove(id.0)
            {
                slot.value_ids.remove(&value.text);
            }
        }
        if key_unused && let Some(key) = self.keys.remove(key_index) {
            self.key_ids.remove(&key.name);
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.key_ids.len(), self.values.len())
    }
}

/// Numbered slots; free ones are used again first.
#[derive(Clone, Debug)]
struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(value);
            return id;
        }
        self.slots.push(Some(value));
        (self.slots.len() - 1) as u32
    }

    fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(value)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_and_values_are_stored_once_and_leave_with_their_last_use() {
        let mut interner = Interner::new(8, 8);
        let uses: Vec<_> = (0..3)
            .map(|_| {
                let key = interner.key("os.type").unwrap();
                (key, interner.value(key, "linux"))
            })
            .collect();
        assert_eq!(interner.sizes(), (1, 1));
        for (key, value) in uses {
            assert_eq!(interner.key_name(key), "os.type");
            let Interned::Shared(value) = value else { panic!("shared") };
            assert_eq!(interner.value_text(value), "linux");
            interner.release(key, Some(value));
        }
        assert_eq!(interner.sizes(), (0, 0));
        assert_eq!(interner.find_key("os.type"), None);
    }

    #[test]
    fn a_key_with_too_many_values_leaves_the_rest_to_the_rows() {
        let mut interner = Interner::new(8, 2);
        let key = interner.key("host.name").unwrap();
        assert!(matches!(interner.value(key, "a"), Interned::Shared(_)));
        assert!(matches!(interner.value(key, "b"), Interned::Shared(_)));
        assert_eq!(interner.value(key, "c"), Interned::Inline);
        assert!(matches!(interner.value(key, "a"), Interned::Shared(_)), "known ones are still shared");
    }

    #[test]
    fn the_key_table_is_bounded_and_reuses_its_slots() {
        let mut interner = Interner::new(2, 2);
        let first = interner.key("a").unwrap();
        interner.key("b").unwrap();
        assert_eq!(interner.key("c"), None);
        interner.release(first, None);
        assert!(interner.key("c").is_some());
    }
}
