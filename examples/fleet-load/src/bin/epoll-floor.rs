//! The floor that OpAMP servers are compared with.

use std::{
    error::Error,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{self, ExitCode},
    thread,
};

use clap::{Arg, ArgAction, Command};
use fleet_load::floor::{Floor, Options};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("epoll-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let matches = command().get_matches();
    let address = |name: &str| matches.get_one::<SocketAddr>(name).copied();
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let options = Options {
        listen: address("listen").ok_or("--listen is missing")?,
        control: address("control").ok_or("--control is missing")?,
        tls: path("tls-cert").zip(path("tls-key")),
        reply_bytes: matches.get_one::<usize>("reply-bytes").copied().unwrap_or_default(),
    };
    for address in [options.listen, options.control] {
        if !address.ip().is_loopback() {
            return Err(format!("{address} is not on this machine, and this server checks nothing").into());
        }
    }
    fleet_load::worker::raise_file_limit()?;
    let floor = Floor::new(&options)?;
    if matches.get_flag("attended") {
        thread::spawn(|| {
            // Also an input that cannot be read has nobody at its other end.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            process::exit(0);
        });
    }
    let line = serde_json::json!({
        "event": "listening",
        "address": floor.address()?.to_string(),
        "control": floor.control().to_string(),
    });
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()?;
    floor.serve()?;
    Ok(())
}

fn command() -> Command {
    let address = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("ADDR")
            .value_parser(clap::value_parser!(SocketAddr))
            .default_value("127.0.0.1:0")
            .help(help)
    };
    let file = |name: &'static str, other: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .requires(other)
            .help(help)
    };
    Command::new("epoll-floor")
        .about("A bare WebSocket server on epoll that answers every message with the same bytes: the floor that OpAMP servers are measured against")
        .version(env!("CARGO_PKG_VERSION"))
        .args([
            address("listen", "Where agents connect, on any path; port 0 takes a free one"),
            address("control", "Where POST /push?bytes=N and GET /agents are answered with a number of agents"),
            file("tls-cert", "tls-key", "PEM file with the certificate chain, for wss"),
            file("tls-key", "tls-cert", "PEM file with the key"),
            Arg::new("reply-bytes")
                .long("reply-bytes")
                .value_name("N")
                .value_parser(clap::value_parser!(usize))
                .default_value("24")
                .help("Size of a reply with the header of the message: 19, or 21 and more"),
            Arg::new("attended")
                .long("attended")
                .action(ArgAction::SetTrue)
                .help("End when standard input does"),
        ])
}
