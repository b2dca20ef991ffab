//! Configurations by number: the same number is the same configuration.

use std::collections::BTreeMap;

use opamp_fleet::{ConfigLimits, ConfigMap};
use opamp_proto::{Fingerprint, pb};
use opamp_server::RemoteConfigOffer;

/// All configurations of a world.
#[derive(Clone, Debug)]
pub struct Configs {
    by_number: BTreeMap<u8, ConfigMap>,
    numbers: BTreeMap<Fingerprint, u8>,
}

impl Configs {
    /// Those of these numbers.
    pub fn new(numbers: impl IntoIterator<Item = u8>) -> Self {
        let by_number: BTreeMap<u8, ConfigMap> = numbers
            .into_iter()
            .filter_map(|number| {
                let map = ConfigMap::new(files(number), &ConfigLimits::default());
                map.ok().map(|map| (number, map))
            })
            .collect();
        let numbers = by_number.iter().map(|(number, map)| (map.hash().fingerprint(), *number)).collect();
        Self { by_number, numbers }
    }

    /// The configuration of a number.
    pub fn get(&self, number: u8) -> Option<&ConfigMap> {
        self.by_number.get(&number)
    }

    /// The fingerprint of the configuration of a number.
    pub fn fingerprint(&self, number: u8) -> Option<Fingerprint> {
        self.get(number).map(|map| map.hash().fingerprint())
    }

    /// The number of a fingerprint.
    pub fn number(&self, of: Fingerprint) -> Option<u8> {
        self.numbers.get(&of).copied()
    }

    /// What a session offers for a fingerprint.
    pub fn offer(&self, of: Fingerprint) -> Option<RemoteConfigOffer> {
        let map = self.get(self.number(of)?)?;
        Some(RemoteConfigOffer::new(map.hash().clone(), map.map()))
    }

    /// All fingerprints.
    pub fn all(&self) -> impl Iterator<Item = Fingerprint> {
        self.numbers.keys().copied()
    }
}

/// The files of a number.
pub fn files(number: u8) -> pb::AgentConfigMap {
    let body = format!("receivers: {{ number: {number} }}\n").into_bytes();
    let object = pb::AgentConfigObject {
        body: body.into(),
        content_type: "text/yaml".to_owned(),
        ..Default::default()
    };
    pb::AgentConfigMap { config_map: [("collector.yaml".to_owned(), object)].into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_fingerprint() {
        let configs = Configs::new(0..4);
        for number in 0..4 {
            let fingerprint = configs.fingerprint(number).unwrap();
            assert_eq!(configs.number(fingerprint), Some(number));
            assert_eq!(configs.offer(fingerprint).unwrap().hash().fingerprint(), fingerprint);
        }
        assert_eq!(configs.fingerprint(9), None);
        assert_eq!(configs.all().count(), 4);
    }
}
