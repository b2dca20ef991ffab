//! Commands.

use opamp_client::session::Output;
use opamp_proto::pb;

use crate::bench::{self, Bench, seconds};

fn command(number: i32) -> pb::ServerToAgent {
    pb::ServerToAgent { command: Some(pb::ServerToAgentCommand { r#type: number }), ..Default::default() }
}

on_both_transports! {
    fn a_command_is_carried_out_alone_and_everything_beside_it_ignored(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.answer(pb::ServerToAgent { command: command(0).command, flags: 1, ..bench::offer(&[1], "x") });
        assert_eq!(step.outputs, [Output::Restart]);
        assert!(step.sent.is_empty() && step.events.is_empty(), "{step:?}");
    }

    fn it_is_the_presence_of_the_command_that_counts(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        bench.pass(seconds(30));
        // `command`, field 9, empty.
        assert_eq!(bench.receive_bytes(&[0x4a, 0x00]).outputs, [Output::Restart]);
    }

    fn an_agent_that_cannot_restart_ignores_the_command(transport) {
        let mut bench = Bench::on(transport);
        bench.connect();
        assert!(bench.answer(command(0)).is_silent());
        assert_eq!(bench.pass(seconds(60)).sent.len(), 2);
    }

    fn unknown_command_numbers_are_ignored(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        assert!(bench.answer(command(77)).is_silent());
        assert!(bench.answer(command(-1)).is_silent());
        assert_eq!(bench.pass(seconds(60)).sent.len(), 2);
    }
}
