//! What an agent says of itself: description and health, as the server gets them.

use opamp_client::session::Input;
use opamp_client::{AttributeValue, Description, Health, InstanceUid, Transport, Wall};
use opamp_proto::{any_value, pb};
use proptest::prelude::*;

use crate::bench::{Bench, UID, on_both, seconds};

const NEW: InstanceUid = InstanceUid::from_bytes([9; 16]);
/// What of a resource identifies the agent of an SDK.
const IDENTIFYING: [&str; 4] =
    ["service.name", "service.instance.id", "service.namespace", "service.namespace.name"];

fn first_description(transport: Transport, description: Description) -> (Bench, pb::AgentDescription) {
    let mut bench = Bench::with(transport, |setup| setup.description = description);
    let described = bench.connect().message().agent_description.clone().expect("a description");
    (bench, described)
}

fn text<'a>(attributes: &'a [pb::KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        pb::any_value::Value::StringValue(text) => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}

on_both_transports! {
    fn a_standalone_agent_says_what_it_is_in_its_first_report(transport) {
        let description = Description::new("com.example.agent")
            .version("1.2")
            .namespace("edge")
            .with_host()
            .attribute("deployment.environment.name", "production");
        let (_, described) = first_description(transport, description);
        let identifying = &described.identifying_attributes;
        assert_eq!(text(identifying, "service.name"), Some("com.example.agent"));
        assert_eq!(text(identifying, "service.version"), Some("1.2"));
        assert_eq!(text(identifying, "service.namespace"), Some("edge"));
        assert_eq!(text(identifying, "service.instance.id"), Some(UID.to_string().as_str()));
        let others = &described.non_identifying_attributes;
        assert_eq!(text(others, "deployment.environment.name"), Some("production"), "what the user set");
        assert!(text(others, "os.type").is_some() && text(others, "host.arch").is_some());
        assert!(identifying.iter().all(|attribute| others.iter().all(|other| other.key != attribute.key)));
    }

    fn health_follows_what_breaks_and_what_is_repaired(transport) {
        let mut bench = Bench::on(transport);
        bench.connect();
        let started = Wall(1_700_000_000_000);
        let exporter = |health| Health::of_components(started, [("exporter", health), ("receiver", Health::healthy(started))]);
        for (health, healthy, error, running) in [
            (exporter(Health::healthy(started)), true, "", true),
            (exporter(Health::not_running("exit code 1")), false, "exporter: exit code 1", true),
            (exporter(Health::healthy(started)), true, "", true),
            (Health::not_running("stopped by the operator"), false, "stopped by the operator", false),
        ] {
            bench.pass(seconds(2));
            let step = bench.tell(Input::Health(health));
            let health = step.message().health.as_ref().unwrap();
            assert_eq!((health.healthy, health.last_error.as_str()), (healthy, error));
            assert_eq!(health.start_time_unix_nano, if running { 1_700_000_000_000_000_000 } else { 0 });
            assert_eq!(health.status_time_unix_nano, bench.now.wall.0 * 1_000_000, "when it was observed");
        }
    }

    fn words_components_and_attributes_of_health_are_carried_as_they_are(transport) {
        let word = "zwischen Tür und Angel";
        let list = vec!["a", "b"];
        let mut health = Health::healthy(Wall(1)).status(word).attribute("depth", 0).attribute("list", list.clone());
        for depth in 1..=10 {
            health = Health::healthy(Wall(1)).component("inner", health).attribute("depth", depth);
        }
        let mut bench = Bench::on(transport);
        bench.connect();
        let step = bench.tell(Input::Health(health));
        let mut inner = step.message().health.as_ref().unwrap();
        for depth in (0..=10).rev() {
            let expected = pb::AnyValue { value: Some(pb::any_value::Value::IntValue(depth)) };
            assert_eq!(inner.attributes[0].value.as_ref(), Some(&expected), "level {depth}");
            if depth > 0 {
                inner = &inner.component_health_map["inner"];
            }
        }
        assert_eq!(inner.status, word);
        assert_eq!(inner.attributes[1].value, Some(AttributeValue::from(list).into()));
    }
}

fn value() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        "[ A-Za-z]{0,4}".prop_map(AttributeValue::from),
        any::<String>().prop_map(AttributeValue::from),
        any::<i64>().prop_map(AttributeValue::from),
        any::<bool>().prop_map(AttributeValue::from),
        proptest::collection::vec(any::<String>(), 0..3).prop_map(AttributeValue::from),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(&IDENTIFYING[..]).prop_map(str::to_owned),
        proptest::sample::select(&["service.version", "host.name", "cloud.region"][..])
            .prop_map(str::to_owned),
        "[a-z.]{1,8}",
    ]
}

proptest! {
    /// One resource describes the agent and marks its telemetry: every attribute is reported, in its place, with the
    /// value it has there.
    #[test]
    fn what_the_agent_of_an_sdk_reports_is_what_its_resource_holds(
        resource in proptest::collection::btree_map(key(), value(), 0..8),
        http: bool,
    ) {
        let transport = if http { Transport::Http } else { Transport::WebSocket };
        let (_, described) = first_description(transport, Description::from_resource(resource.clone()));
        let reported = |attributes: &[pb::KeyValue], key: &str| {
            attributes.iter().find(|attribute| attribute.key == key).and_then(|attribute| attribute.value.clone())
        };
        for (key, value) in &resource {
            let value: pb::AnyValue = value.clone().into();
            let (here, there) = (&described.identifying_attributes, &described.non_identifying_attributes);
            let (place, other) = if IDENTIFYING.contains(&key.as_str()) { (here, there) } else { (there, here) };
            prop_assert!(reported(place, key).is_some_and(|reported| any_value::canonical_eq(&reported, &value)), "{}", key);
            prop_assert!(reported(other, key).is_none(), "{} in both places", key);
        }
        let made_up = described.identifying_attributes.iter().filter(|attribute| !resource.contains_key(&attribute.key));
        let made_up: Vec<&str> = made_up.map(|attribute| attribute.key.as_str()).collect();
        let expected: &[&str] = if resource.contains_key("service.instance.id") { &[] } else { &["service.instance.id"] };
        prop_assert_eq!(made_up, expected, "nothing is made up but an instance id where there is none");
    }

    /// R-OWN-13: what an agent is told to put into the resource of its telemetry is what its server is told.
    #[test]
    fn attributes_for_the_own_telemetry_are_those_that_are_reported(
        identifying in proptest::collection::btree_map(key(), value(), 0..6),
        others in proptest::collection::btree_map(key(), value(), 0..3),
        http: bool,
    ) {
        let mut description = Description::new("com.example.agent");
        for (key, value) in others {
            description = description.attribute(key, value);
        }
        for (key, value) in identifying {
            description = description.identifying(key, value);
        }
        let transport = if http { Transport::Http } else { Transport::WebSocket };
        let (mut bench, described) = first_description(transport, description.clone());
        prop_assert_eq!(&described.identifying_attributes, &description.identifying_attributes(&UID));
        let identification = pb::AgentIdentification { new_instance_uid: NEW.as_bytes().to_vec().into() };
        let step = bench.answer(pb::ServerToAgent { agent_identification: Some(identification), ..Default::default() });
        let now = description.identifying_attributes(&NEW);
        let told = step.sent.iter().find_map(|message| message.agent_description.clone()).unwrap_or(described);
        prop_assert_eq!(told.identifying_attributes, now, "also under another identity");
    }
}

#[test]
fn two_agents_of_one_type_on_one_machine_differ_in_what_identifies_them() {
    for transport in on_both() {
        let of = |uid| {
            let mut bench = Bench::with(transport, |setup| {
                setup.description = Description::new("com.example.agent").version("1").with_host();
                setup.saved = opamp_client::SavedState::new(uid);
            });
            bench.connect().message().agent_description.clone().unwrap().identifying_attributes
        };
        assert_ne!(of(UID), of(NEW));
    }
}
