//! What is built into the agent.

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::{any_value, pb};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::description::AttributeValue;

/// The components built into an agent: receivers, processors, plug-ins, whatever the agent is made of (spec section
/// "AvailableComponents"). They need not match what its health speaks of: those are running instances (R-COMP-11).
///
/// Reported by their hash; in full only when the server asks (R-COMP-06, R-COMP-08).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Components(BTreeMap<String, Component>);

/// One component, and what is inside it, to any depth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Component {
    metadata: Vec<pb::KeyValue>,
    inside: BTreeMap<String, Component>,
}

impl Components {
    /// No component.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a component by its unique ID; one of the same ID is replaced.
    #[must_use]
    pub fn component(mut self, id: impl Into<String>, component: Component) -> Self {
        self.0.insert(id.into(), component);
        self
    }

    /// What stands for them: SHA-256 of the canonical encoding, so that agents of one build have the same, in whatever order
    /// they list their components (R-COMP-05).
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let listed = pb::AvailableComponents { components: self.encoded(), hash: Bytes::new() };
        Sha256::digest(listed.encode_to_vec()).into()
    }

    /// The encoded message with the hash alone, and the one with everything.
    pub(crate) fn encode(&self) -> (Bytes, Bytes) {
        let hash = Bytes::copy_from_slice(&self.hash());
        let encode =
            |components| pb::AvailableComponents { components, hash: hash.clone() }.encode_to_vec().into();
        (encode(BTreeMap::new()), encode(self.encoded()))
    }

    fn encoded(&self) -> BTreeMap<String, pb::ComponentDetails> {
        encoded(&self.0)
    }
}

impl Component {
    /// A component of which nothing is said.
    #[must_use]
    pub const fn new() -> Self {
        Self { metadata: Vec::new(), inside: BTreeMap::new() }
    }

    /// Says something of it, by the semantic conventions where there is one, such as `code.namespace` or `vcs.ref.head.name`
    /// (R-COMP-12). A second value of the same key replaces the first.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        let key = key.into();
        self.metadata.retain(|known| known.key != key);
        self.metadata.push(pb::KeyValue { key, value: Some(value.into().into()) });
        self
    }

    /// Adds what is inside it, by its ID.
    #[must_use]
    pub fn sub_component(mut self, id: impl Into<String>, component: Self) -> Self {
        self.inside.insert(id.into(), component);
        self
    }
}

fn encoded(components: &BTreeMap<String, Component>) -> BTreeMap<String, pb::ComponentDetails> {
    let details = |component: &Component| pb::ComponentDetails {
        metadata: any_value::canonical_attributes(&component.metadata),
        sub_component_map: encoded(&component.inside),
    };
    components.iter().map(|(id, component)| (id.clone(), details(component))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver() -> Component {
        Component::new().metadata("code.namespace", "example.receiver").metadata("vcs.ref.head.name", "main")
    }

    /// R-COMP-04, R-COMP-05.
    #[test]
    fn the_same_components_in_another_order_have_the_same_hash() {
        let other = Component::new()
            .metadata("vcs.ref.head.name", "main")
            .metadata("code.namespace", "example.receiver");
        let one = Components::new().component("a", receiver()).component("b", Component::new());
        let same = Components::new().component("b", Component::new()).component("a", other);
        assert_eq!(one.hash(), same.hash());
        assert_eq!(one.encode(), same.encode());
        for different in [
            Components::new().component("a", receiver()),
            Components::new().component("a", receiver()).component("c", Component::new()),
            Components::new().component("a", receiver().metadata("k", 1)).component("b", Component::new()),
            Components::new()
                .component("a", receiver().sub_component("b", Component::new()))
                .component("b", Component::new()),
        ] {
            assert_ne!(one.hash(), different.hash(), "{different:?}");
        }
    }

    /// R-COMP-12, R-COMP-13.
    #[test]
    fn metadata_goes_out_as_it_was_given_and_components_nest_to_any_depth() {
        let mut nested = receiver();
        for _ in 0..10 {
            nested = Component::new().sub_component("inner", nested);
        }
        let (_, full) = Components::new().component("outer", nested).encode();
        let mut message = pb::AvailableComponents::decode(full).unwrap().components.remove("outer").unwrap();
        for _ in 0..10 {
            message = message.sub_component_map.remove("inner").unwrap();
        }
        let keys: Vec<_> = message.metadata.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(keys, ["code.namespace", "vcs.ref.head.name"]);
    }
}
