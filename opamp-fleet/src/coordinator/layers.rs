//! The fixed order in which layers of configuration are composed (R63).

use std::collections::BTreeMap;

use opamp_proto::{Fingerprint, pb};

use crate::rollout::Slot;
use crate::{ConfigError, ConfigLimits, ConfigMap};

/// Why a layer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayersError {
    /// The slot has no configuration: use the main one or a named one.
    #[error("only the main configuration and named ones are layers")]
    NoLayer,
    /// There are too many layers: join some.
    #[error("at most {limit} layers")]
    TooMany {
        /// The bound.
        limit: usize,
    },
}

/// What an agent gets when several configurations are meant for it.
///
/// The order is fixed: the main configuration, then named ones by number. Where two layers have a file of the same name,
/// the later one's is taken, whole. A change of one layer looks at that layer's files only: all others stay what they are,
/// and whose they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layered {
    layers: BTreeMap<Slot, ConfigMap>,
    /// Whose file each name is.
    files: BTreeMap<String, Slot>,
}

/// One file of what was composed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayeredFile<'a> {
    /// Its name.
    pub name: &'a str,
    /// The layer it is from.
    pub from: Slot,
    /// How many earlier layers have a file of this name, which nobody gets.
    pub hides: usize,
}

impl Layered {
    /// Most layers.
    pub const LAYERS_MAX: usize = 64;

    /// Puts a layer in, or another one in its place.
    ///
    /// # Errors
    /// [`LayersError`], and then nothing has changed.
    pub fn set(&mut self, slot: Slot, config: ConfigMap) -> Result<(), LayersError> {
        if !matches!(slot, Slot::MainConfig | Slot::NamedConfig(_)) {
            return Err(LayersError::NoLayer);
        }
        if self.layers.len() >= Self::LAYERS_MAX && !self.layers.contains_key(&slot) {
            return Err(LayersError::TooMany { limit: Self::LAYERS_MAX });
        }
        let mut names: Vec<String> = config.map().config_map.keys().cloned().collect();
        if let Some(before) = self.layers.insert(slot, config) {
            names.extend(before.into_map().config_map.into_keys());
        }
        self.look_at(names);
        Ok(())
    }

    /// Takes a layer out. Whether it was there.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let Some(before) = self.layers.remove(&slot) else { return false };
        self.look_at(before.into_map().config_map.into_keys());
        true
    }

    /// The layers in the order in which they are composed, each by the fingerprint of its configuration.
    pub fn layers(&self) -> impl Iterator<Item = (Slot, Fingerprint)> {
        self.layers.iter().map(|(slot, config)| (*slot, config.hash().fingerprint()))
    }

    /// The files by name, and whose they are.
    pub fn files(&self) -> impl Iterator<Item = LayeredFile<'_>> {
        self.files.iter().map(|(name, from)| {
            let earlier = self.layers.range(..*from).filter(|(_, config)| has(config, name));
            LayeredFile { name, from: *from, hides: earlier.count() }
        })
    }

    /// What the agent gets.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no file, or all of them together exceed a bound.
    pub fn composed(&self, limits: &ConfigLimits) -> Result<ConfigMap, ConfigError> {
        let file = |(name, from): (&String, &Slot)| {
            let file = self.layers.get(from)?.map().config_map.get(name)?;
            Some((name.clone(), file.clone()))
        };
        let config_map = self.files.iter().filter_map(file).collect();
        ConfigMap::new(pb::AgentConfigMap { config_map }, limits)
    }

    /// Finds anew whose these files are.
    fn look_at(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let last = self.layers.iter().rev().find(|(_, config)| has(config, &name));
            match last.map(|(slot, _)| *slot) {
                Some(slot) => self.files.insert(name, slot),
                None => self.files.remove(&name),
            };
        }
    }
}

fn has(config: &ConfigMap, name: &str) -> bool {
    config.map().config_map.contains_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(files: &[(&str, &str)]) -> ConfigMap {
        let file = |(name, body): &(&str, &str)| {
            let object = pb::AgentConfigObject { body: body.to_string().into(), ..Default::default() };
            ((*name).to_owned(), object)
        };
        let config_map = files.iter().map(file).collect();
        ConfigMap::new(pb::AgentConfigMap { config_map }, &ConfigLimits::default()).unwrap()
    }

    fn owners(layered: &Layered) -> Vec<(String, Slot, usize)> {
        layered.files().map(|file| (file.name.to_owned(), file.from, file.hides)).collect()
    }

    #[test]
    fn the_main_configuration_comes_first_and_later_layers_replace_its_files() {
        let mut layered = Layered::default();
        layered.set(Slot::NamedConfig(2), config(&[("b", "two")])).unwrap();
        layered.set(Slot::MainConfig, config(&[("a", "main"), ("b", "main"), ("c", "main")])).unwrap();
        layered.set(Slot::NamedConfig(1), config(&[("b", "one"), ("c", "one")])).unwrap();
        let slots: Vec<_> = layered.layers().map(|(slot, _)| slot).collect();
        assert_eq!(slots, [Slot::MainConfig, Slot::NamedConfig(1), Slot::NamedConfig(2)]);
        let expected =
            [("a", Slot::MainConfig, 0), ("b", Slot::NamedConfig(2), 2), ("c", Slot::NamedConfig(1), 1)];
        assert_eq!(owners(&layered), expected.map(|(name, from, hides)| (name.to_owned(), from, hides)));
        let composed = layered.composed(&ConfigLimits::default()).unwrap();
        assert_eq!(composed, config(&[("a", "main"), ("b", "two"), ("c", "one")]));
    }

    #[test]
    fn a_layer_taken_out_uncovers_what_it_hid() {
        let mut layered = Layered::default();
        layered.set(Slot::MainConfig, config(&[("a", "main")])).unwrap();
        layered.set(Slot::NamedConfig(1), config(&[("a", "one"), ("b", "one")])).unwrap();
        assert!(layered.remove(Slot::NamedConfig(1)) && !layered.remove(Slot::NamedConfig(1)));
        assert_eq!(owners(&layered), [("a".to_owned(), Slot::MainConfig, 0)]);
        assert!(layered.remove(Slot::MainConfig));
        assert_eq!(layered.composed(&ConfigLimits::default()), Err(ConfigError::Empty));
    }

    #[test]
    fn what_has_no_configuration_is_no_layer_and_there_is_a_bound() {
        let mut layered = Layered::default();
        for slot in [Slot::ConnectionSettings, Slot::Packages(1), Slot::Restart] {
            assert_eq!(layered.set(slot, config(&[("a", "")])), Err(LayersError::NoLayer));
        }
        for number in 0..64 {
            layered.set(Slot::NamedConfig(number), config(&[("a", "")])).unwrap();
        }
        let one_more = layered.set(Slot::NamedConfig(64), config(&[("a", "")]));
        assert_eq!(one_more, Err(LayersError::TooMany { limit: 64 }));
        assert_eq!(layered.set(Slot::NamedConfig(0), config(&[("a", "new")])), Ok(()));
    }
}
