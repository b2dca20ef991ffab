//! Names, texts and collections as bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use opamp_proto::{AgentCapabilities, AgentId, ConfigHash, Fingerprint};

use super::codec::{Wire, put_list, records, take_list, take_slice};
use crate::Selector;
use crate::rollout::members::{Flags, Pace};
use crate::rollout::stats::Ppm;
use crate::rollout::windows::{Days, Minute};
use crate::rollout::{
    CommandKey, ConfigIx, GateIx, GroupIx, MemberIx, RestoreError, RolloutId, Serial, Slot, Time, WaveIx,
    ZoneIx,
};

/// Structs around one value that is written in their place.
macro_rules! wrappers {
    ($($name:ident($inner:ty)),+ $(,)?) => {$(
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
                <$inner>::take(bytes).map(Self)
            }
        }
    )+};
}

wrappers! {
    ConfigIx(u32), Days(u8), Flags(u16), GateIx(u8), GroupIx(u16), MemberIx(u32), Minute(u16), Ppm(u32), Serial(u64),
    Time(u64), WaveIx(u16), ZoneIx(u16),
}

records! {
    Pace { interval_s, spans }
}

fn put_bytes(content: &[u8], out: &mut Vec<u8>) {
    content.len().put(out);
    out.extend_from_slice(content);
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], RestoreError> {
    let length = usize::take(bytes)?;
    take_slice(bytes, length)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, RestoreError> {
    std::str::from_utf8(take_bytes(bytes)?).map_err(|_| RestoreError::Invalid { what: "text" })
}

impl Wire for Box<str> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        take_text(bytes).map(Self::from)
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        take_text(bytes).map(Self::from)
    }
}

impl Wire for ConfigHash {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        take_bytes(bytes).map(|content| Self::new(content.to_vec()))
    }
}

macro_rules! sixteen_bytes {
    ($($name:ty),+) => {$(
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_bytes());
            }

            fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
                let mut content = [0; 16];
                content.copy_from_slice(take_slice(bytes, 16)?);
                Ok(Self::from_bytes(content))
            }
        }
    )+};
}

sixteen_bytes!(AgentId, Fingerprint, RolloutId);

impl Wire for CommandKey {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_str().as_bytes(), out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Self::new(take_text(bytes)?).map_err(|_| RestoreError::Invalid { what: "key of a command" })
    }
}

impl Wire for Slot {
    fn put(&self, out: &mut Vec<u8>) {
        self.code().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Self::from_code(u32::take(bytes)?).ok_or(RestoreError::Invalid { what: "slot" })
    }
}

impl Wire for AgentCapabilities {
    fn put(&self, out: &mut Vec<u8>) {
        self.bits().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        u64::take(bytes).map(Self::from_bits)
    }
}

/// In its text form, which round-trips.
impl Wire for Selector {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_string().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        take_text(bytes)?.parse().map_err(|_| RestoreError::Invalid { what: "selector" })
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        bool::take(bytes)?.then(|| T::take(bytes)).transpose()
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => error.put(out),
        }
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Ok(if bool::take(bytes)? { Ok(T::take(bytes)?) } else { Err(E::take(bytes)?) })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Ok((A::take(bytes)?, B::take(bytes)?))
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Ok((A::take(bytes)?, B::take(bytes)?, C::take(bytes)?))
    }
}

macro_rules! lists {
    ($($name:ty),+) => {$(
        impl<T: Wire> Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                put_list(self.iter(), out);
            }

            fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
                take_list(bytes)
            }
        }
    )+};
}

lists!(Vec<T>, VecDeque<T>, Box<[T]>);

impl<T: Wire + Ord> Wire for BTreeSet<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self.iter(), out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        take_list(bytes)
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        take_list::<(K, V), _>(bytes)
    }
}
