//! The server library on a loopback port, and a control beside it that bare servers have.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use opamp_proto::{ConfigHash, hash, pb};
use opamp_server::{
    Desired, InsecureAcceptEveryone, OpampServer, RemoteConfigOffer, ServerHandle, Target, TlsSource,
};
use opamp_testkit::certs::Authority;
use tokio::runtime::Runtime;

pub struct Ours {
    pub address: SocketAddr,
    pub control: String,
    pub handle: ServerHandle,
    /// The authority of its certificate, if it has one.
    pub ca: Option<PathBuf>,
    _runtime: Runtime,
}

impl Ours {
    pub fn start() -> Self {
        Self::with(None)
    }

    pub fn with_tls() -> Self {
        Self::with(Some(&Authority::new("load tests")))
    }

    fn with(authority: Option<&Authority>) -> Self {
        let runtime = Runtime::new().unwrap();
        let (service, handle, driver) = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).build();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = authority
            .map(|authority| TlsSource::new(Authority::server_config(&authority.server(&["127.0.0.1"]))));
        let ca = authority.map(|authority| {
            let path = super::unique("ca.pem");
            std::fs::write(&path, authority.pem()).unwrap();
            path
        });
        runtime.spawn(driver.run());
        runtime.spawn(opamp_server::serve(listener, tls, service));
        let control = control(handle.clone());
        Self { address, control, handle, ca, _runtime: runtime }
    }

    /// Agents that report to run what was pushed last.
    pub fn applied(&self, bytes: usize) -> usize {
        let (hash, _) = config(bytes);
        let applied = i32::from(pb::RemoteConfigStatuses::Applied);
        let says_so = |agent: &opamp_server::AgentSnapshot| {
            let reported = agent.remote_config.report.as_ref();
            reported.is_some_and(|reported| reported.hash == hash && reported.status == applied)
        };
        self.handle.agents().iter().filter(|agent| says_so(agent)).count()
    }
}

fn config(bytes: usize) -> (ConfigHash, pb::AgentConfigMap) {
    let file = pb::AgentConfigObject {
        body: vec![b'#'; bytes].into(),
        content_type: "text/yaml".to_owned(),
        role: String::new(),
    };
    let map = pb::AgentConfigMap { config_map: [(String::new(), file)].into() };
    (hash::config_hash(&map), map)
}

/// Answers `POST /push?bytes=N` by setting what all agents should have.
fn control(handle: ServerHandle) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (generation, connection) in listener.incoming().enumerate() {
            push(&connection.unwrap(), &handle, generation as u64 + 1);
        }
    });
    format!("plain+http://{address}")
}

fn push(connection: &TcpStream, handle: &ServerHandle, generation: u64) {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line).unwrap();
    let bytes = line.split_once("bytes=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    let (hash, config) = config(bytes);
    let offer = RemoteConfigOffer::new(hash, &config);
    let agents = handle.agents();
    for agent in &agents {
        let desired =
            Desired { remote_config: Target::new(generation, Some(offer.clone())), ..Desired::default() };
        handle.set_desired(&agent.uid, desired);
    }
    let told = agents.len().to_string();
    let mut connection = connection;
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{told}",
        told.len()
    )
    .unwrap();
}
