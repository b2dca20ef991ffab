//! Labels that a rollout goes by are labels that agents of its fleet have: a typing error would put everybody into one wave.

use std::collections::BTreeSet;

use opamp_testkit::sim::model::fleet::FleetModel;

use super::{Input, InputError, Strategy};

/// The label with an agent's version.
const VERSION: &str = "service.version";

impl Input {
    /// Looks whether agents of the fleet have the labels that waves, their order and their strata go by.
    ///
    /// # Errors
    /// [`InputError`] for a label that no agent has, with those that there are.
    pub fn check_labels(&self) -> Result<(), InputError> {
        let rollout = &self.rollout;
        let strategy = rollout.strategy.as_ref().and_then(Strategy::label);
        let wanted = strategy.map(|label| ("rollout.strategy.key", label));
        let order = label(rollout.order.as_deref()).map(|label| ("rollout.order", label));
        let strata = rollout.stratify.iter().filter_map(|text| label(Some(text)));
        let strata = strata.map(|label| ("rollout.stratify", label));
        let there = self.fleet_labels();
        for (key, label) in wanted.into_iter().chain(order).chain(strata) {
            if !there.contains(label) {
                return Err(InputError::value(key, missing(label, &there)));
            }
        }
        Ok(())
    }

    /// Keys of labels that an agent can have.
    fn fleet_labels(&self) -> BTreeSet<&str> {
        let fleet = &self.fleet;
        let others = fleet.labels.iter().filter(|(_, values)| !values.is_empty()).map(|(key, _)| &**key);
        let zones = (!fleet.zones.is_empty()).then_some(FleetModel::ZONE);
        let versions = (!fleet.versions.is_empty()).then_some(VERSION);
        others.chain(zones).chain(versions).collect()
    }
}

fn label(text: Option<&str>) -> Option<&str> {
    text?.strip_prefix("label:")
}

fn missing(label: &str, there: &BTreeSet<&str>) -> String {
    if there.is_empty() {
        return format!(
            "no agent has the label {label}; the fleet has none: see fleet.labels and fleet.zones"
        );
    }
    let there: Vec<&str> = there.iter().copied().collect();
    format!("no agent has the label {label}; there are {}", there.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fleet: &str, rollout: &str) -> Result<(), String> {
        let text = format!("[fleet]\nagents = 9\n{fleet}\n[rollout]\ntitle = \"v2\"\n{rollout}\n");
        Input::from_toml(&text).unwrap().check_labels().map_err(|error| error.to_string())
    }

    const LABELS: &str = "zones = { eu = 100 }\nversions = { \"1\" = 100 }\nlabels.tier = { a = 50, b = 50 }\nlabels.none = {}";

    #[test]
    fn labels_that_agents_have_are_accepted() {
        for rollout in [
            "",
            "strategy = { kind = \"zone-by-zone\", key = \"zone\" }",
            "strategy = { kind = \"label-rings\", key = \"tier\", rings = [\"a\"] }",
            "order = \"label:tier\"\nstratify = [\"version\", \"label:service.version\"]",
            "order = \"oldest\"",
        ] {
            assert_eq!(check(LABELS, rollout), Ok(()), "{rollout}");
        }
    }

    #[test]
    fn a_label_that_no_agent_has_is_refused_with_those_that_there_are() {
        for (rollout, key, label) in [
            ("strategy = { kind = \"zone-by-zone\", key = \"zoen\" }", "strategy.key", "zoen"),
            (
                "strategy = { kind = \"label-rings\", key = \"teir\", rings = [\"a\"] }",
                "strategy.key",
                "teir",
            ),
            ("order = \"label:teir\"", "order", "teir"),
            ("stratify = [\"label:tier\", \"label:teir\"]", "stratify", "teir"),
            ("order = \"label:none\"", "order", "none"),
        ] {
            let expected = format!(
                "rollout.{key}: no agent has the label {label}; there are service.version, tier, zone"
            );
            assert_eq!(check(LABELS, rollout), Err(expected), "{rollout}");
        }
        let none = check("", "order = \"label:tier\"").unwrap_err();
        assert!(none.contains("the fleet has none"), "{none}");
    }
}
