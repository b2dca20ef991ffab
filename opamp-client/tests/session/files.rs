//! Files of configurations, from the offer to the report, byte for byte.

use bytes::Bytes;
use opamp_client::session::Input;
use opamp_client::{ConfigFile, ConfigHash, EffectiveConfig, Transport};
use opamp_proto::pb;

use crate::bench::{ALL, Bench, Step};

const ODD: &[u8] = b"\0\r\n\xff\xfe\xc3(";

fn object(body: &'static [u8], content_type: &str, role: &str) -> pb::AgentConfigObject {
    pb::AgentConfigObject {
        body: Bytes::from_static(body),
        content_type: content_type.to_owned(),
        role: role.to_owned(),
    }
}

/// Offers these files to an agent that runs what it is offered; what it reports to run.
fn offered_and_reported(
    transport: Transport,
    files: &[(&str, pb::AgentConfigObject)],
) -> std::collections::BTreeMap<String, pb::AgentConfigObject> {
    let mut bench = Bench::able(transport);
    bench.connect();
    let config_map = files.iter().map(|(name, file)| ((*name).to_owned(), file.clone())).collect();
    let config = Some(pb::AgentConfigMap { config_map });
    let offer = pb::AgentRemoteConfig { config, config_hash: vec![1].into() };
    let step = bench.answer(pb::ServerToAgent {
        remote_config: Some(offer),
        capabilities: ALL,
        ..Default::default()
    });
    let effective = EffectiveConfig::from(step.applies()[0]);
    let hash = ConfigHash::new(vec![1]);
    reported(&bench.tell(Input::ConfigOutcome { hash, result: Ok(()), effective: Some(effective) }))
}

fn reported(step: &Step) -> std::collections::BTreeMap<String, pb::AgentConfigObject> {
    let effective = step.message().effective_config.clone().expect("an effective configuration");
    effective.config_map.unwrap().config_map.into_iter().collect()
}

on_both_transports! {
    fn three_files_are_three_files_in_what_runs(transport) {
        let files = [
            ("a.yaml", object(b"a: 1", "text/yaml", "main")),
            ("b.yaml", object(b"b: 2", "text/yaml", "")),
            ("certs/ca.pem", object(b"-----", "", "")),
        ];
        let reported = offered_and_reported(transport, &files);
        assert_eq!(reported, files.iter().map(|(name, file)| ((*name).to_owned(), file.clone())).collect());
    }

    fn bodies_are_bytes_and_stay_as_they_are(transport) {
        let reported = offered_and_reported(transport, &[("x", object(ODD, "", ""))]);
        assert_eq!(&reported["x"].body[..], ODD);
    }

    fn content_types_are_kept_and_may_be_absent(transport) {
        let files = [("with", object(b"1", "application/x-unheard-of", "")), ("without", object(b"2", "", ""))];
        let reported = offered_and_reported(transport, &files);
        assert_eq!(reported["with"].content_type, "application/x-unheard-of");
        assert_eq!(reported["without"].content_type, "");
    }

    fn the_only_file_may_have_an_empty_name(transport) {
        let reported = offered_and_reported(transport, &[("", object(b"a: 1", "", ""))]);
        assert_eq!(reported.keys().collect::<Vec<_>>(), [""]);
        assert_eq!(&reported[""].body[..], b"a: 1");
    }

    fn an_agent_with_a_single_file_reports_a_map_of_one_entry(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let reported = reported(&bench.tell(Input::EffectiveConfig(EffectiveConfig::single("a: 1"))));
        assert_eq!(reported.keys().collect::<Vec<_>>(), [""]);
    }

    fn names_are_unique_in_what_is_reported_and_the_last_of_a_name_counts(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let config = EffectiveConfig::new().file("x", ConfigFile::new("old")).file("x", ConfigFile::new("new"));
        let reported = reported(&bench.tell(Input::EffectiveConfig(config)));
        assert_eq!(reported.len(), 1);
        assert_eq!(&reported["x"].body[..], b"new");
    }

    fn what_runs_may_differ_from_what_was_offered(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.offer(&[1], "level: debug");
        // A local file of the same name has a say as well; the agent merges as its type demands.
        let merged = EffectiveConfig::new()
            .file("", ConfigFile::new("level: info\nlocal: true"))
            .file("local.yaml", ConfigFile::new("local: true"));
        let hash = ConfigHash::new(vec![1]);
        let step = bench.tell(Input::ConfigOutcome { hash, result: Ok(()), effective: Some(merged) });
        let status = step.message().remote_config_status.as_ref().unwrap();
        assert_eq!((status.status(), &status.last_remote_config_hash[..]), (pb::RemoteConfigStatuses::Applied, &[1][..]));
        let reported = reported(&step);
        assert_eq!(&reported[""].body[..], b"level: info\nlocal: true", "what really runs, not the offer");
        assert_eq!(reported.len(), 2);
    }
}
