//! The agent: its session, what is true of it, and the application that does what the session asks for.

use std::time::Duration;

use opamp_client::packages::{PackageStatus, PackageStatuses, PackagesOffer, PackagesRejected};
use opamp_client::session::{
    self as agent, ConnectionPart, ConnectionsChange, EndpointInfo, Input, Output, Setup,
};
use opamp_client::{
    Component, Components, ConfigHash, Description, EffectiveConfig, Health, Rejected, RemoteConfig,
    SavedState, Transport,
};
use opamp_proto::{AgentMessage, Limits, Mono, Now, Part, Wall, frame};

use super::offers::{self, is_broken};
use super::places::{Behind, Place};

/// How long the application takes to apply a configuration.
const APPLYING: Duration = Duration::from_millis(300);
/// How long it takes to look at connection settings.
const EXAMINING: Duration = Duration::from_millis(100);
/// How long it takes to install packages.
const INSTALLING: Duration = Duration::from_millis(700);
/// How long it takes to let be what it is at with packages.
const CANCELLING: Duration = Duration::from_millis(50);

/// The custom capability both sides have from the start.
pub(crate) const CUSTOM: &str = "com.example.ping";
/// One the agent has sometimes.
const CUSTOM_SOMETIMES: &str = "com.example.sometimes/2";

/// What is true of the agent, and outlives its process.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(crate) health: Health,
    pub(crate) description: Description,
    pub(crate) effective: EffectiveConfig,
    pub(crate) components: Components,
    pub(crate) custom: Vec<String>,
    pub(crate) installed: PackageStatuses,
}

/// What an application is at, and when it is through.
#[derive(Debug, Default)]
pub(crate) struct Work {
    config: Option<(Mono, RemoteConfig)>,
    connections: Option<(Mono, Box<ConnectionsChange>)>,
    packages: Option<(Mono, PackagesOffer, Cancelled)>,
}

type Cancelled = bool;

impl Truth {
    pub(crate) fn new() -> Self {
        Self {
            health: Health::healthy(Wall(1)),
            description: Description::new("com.example.agent"),
            effective: EffectiveConfig::single("start"),
            components: components(0),
            custom: vec![CUSTOM.to_owned()],
            installed: PackageStatuses::new(ConfigHash::default()),
        }
    }

    /// What a new process is told first.
    pub(crate) fn inputs(&self) -> [Input<'static>; 5] {
        [
            Input::Health(self.health.clone()),
            Input::EffectiveConfig(self.effective.clone()),
            Input::AvailableComponents(self.components.clone()),
            Input::CustomCapabilities(self.custom.clone()),
            Input::PackageStatuses(self.installed.clone()),
        ]
    }

    /// An agent of which this is true, with everything switched on that there is.
    pub(crate) fn session(&self, transports: &[Transport], saved: SavedState, seed: u64) -> agent::Session {
        let mut infos = transports.iter().enumerate().map(|(server, transport)| {
            EndpointInfo::new(Place::url(*transport, Place::host(server)), *transport)
        });
        let first = infos.next().expect("an endpoint");
        let mut setup = Setup::new(first, self.description.clone(), saved, seed);
        setup.fallbacks = infos.collect();
        let abilities = &mut setup.abilities;
        abilities.durable = true;
        abilities.opamp_settings = true;
        abilities.other_connections = true;
        abilities.own_logs = true;
        abilities.own_metrics = true;
        abilities.own_traces = true;
        abilities.packages = true;
        abilities.remote_config = true;
        abilities.restart = true;
        agent::Session::new(setup)
    }

    /// What a server should hold of a part: what a fresh agent of which the same is true says first.
    pub(crate) fn first_report(
        &self,
        transports: &[Transport],
        saved: SavedState,
        now: Now,
        part: Part,
    ) -> Vec<u8> {
        let mut fresh = self.session(transports, saved, 0);
        let mut out = agent::Outbox::new();
        let mut transport = transports[0];
        for input in self.inputs().into_iter().chain([Input::Start, Input::Connected]) {
            fresh.handle(input, now, &mut out).expect("it was not stopped");
            while let Some(output) = out.take() {
                if let Output::ConnectOffered(settings) = output {
                    transport = Place::at(&settings.endpoint).transport;
                }
            }
        }
        let payload = match transport {
            Transport::Http => out.message(),
            Transport::WebSocket => frame::decode(out.message()).expect("a header"),
        };
        let message = AgentMessage::decode(payload, &Limits::default()).expect("a message");
        message.part(part).expect("a complete report").to_vec()
    }
}

impl Work {
    /// When something is through.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        let times = [
            self.config.as_ref().map(|(at, _)| *at),
            self.connections.as_ref().map(|(at, _)| *at),
            self.packages.as_ref().map(|(at, ..)| *at),
        ];
        times.into_iter().flatten().min()
    }

    pub(crate) fn apply(&mut self, config: RemoteConfig, now: Mono) {
        let before = self.config.replace((now + APPLYING, config));
        assert!(before.is_none(), "one configuration at a time");
    }

    pub(crate) fn examine(&mut self, change: Box<ConnectionsChange>, now: Mono) {
        let before = self.connections.replace((now + EXAMINING, change));
        assert!(before.is_none(), "one change of connections at a time");
    }

    /// Begins with packages; what is to be told at once.
    pub(crate) fn install(&mut self, offer: PackagesOffer, truth: &Truth, now: Mono) -> Input<'static> {
        let mut news = truth.installed.clone().about(offer.hash().clone());
        for (name, package) in offer.packages() {
            let has = truth.installed.get(name).and_then(PackageStatus::has).cloned();
            news.set(name, PackageStatus::Installing { offered: package.version().clone(), has });
        }
        let before = self.packages.replace((now + INSTALLING, offer, false));
        assert!(before.is_none(), "one offer of packages at a time");
        Input::PackageStatuses(news)
    }

    pub(crate) fn cancel_packages(&mut self, now: Mono) {
        let (at, _, cancelled) = self.packages.as_mut().expect("packages to let be");
        *at = (now + CANCELLING).min(*at);
        *cancelled = true;
    }

    /// What is through by now, and what is to be told of it.
    pub(crate) fn through(&mut self, now: Mono, truth: &mut Truth) -> Vec<Input<'static>> {
        let mut told = Vec::new();
        if let Some((_, config)) = self.config.take_if(|(at, _)| *at <= now) {
            let body = config.single().expect("a single file");
            let result =
                if is_broken(body[0]) { Err(Rejected::new("every fifth is broken")) } else { Ok(()) };
            if result.is_ok() {
                truth.effective = EffectiveConfig::from(&config);
            }
            let effective = Some(truth.effective.clone());
            told.push(Input::ConfigOutcome { hash: config.hash().clone(), result, effective });
        }
        if let Some((_, change)) = self.connections.take_if(|(at, _)| *at <= now) {
            let unfit = |url: &str| Place::at(url).behind == Behind::Unfit;
            let failed = match &change.opamp {
                Some(opamp) if unfit(&opamp.endpoint) => {
                    vec![(ConnectionPart::Opamp, Rejected::new("nothing to be done with it"))]
                }
                _ => Vec::new(),
            };
            told.push(Input::ConnectionsOutcome { hash: change.hash, failed });
        }
        if let Some((_, offer, cancelled)) = self.packages.take_if(|(at, ..)| *at <= now) {
            told.extend(installed(&offer, cancelled, truth));
        }
        told
    }
}

/// What a package handler tells when it is through.
fn installed(offer: &PackagesOffer, cancelled: bool, truth: &mut Truth) -> Vec<Input<'static>> {
    let hash = offer.hash().clone();
    let number = |version: &str| version.parse::<u8>().expect("a number");
    let first = offer.packages().next().map(|(_, package)| number(package.version().version()));
    // What was begun is undone.
    let as_before = Input::PackageStatuses(truth.installed.clone().about(hash.clone()));
    if cancelled {
        return vec![as_before, Input::PackagesOutcome { hash, result: Ok(()) }];
    }
    if first.is_some_and(offers::is_rejected) {
        let why = PackagesRejected::new("nothing of this kind");
        truth.installed = truth.installed.clone().about(hash.clone()).rejected(why.clone());
        return vec![as_before, Input::PackagesOutcome { hash, result: Err(why) }];
    }
    let mut news = PackageStatuses::new(hash.clone());
    for (name, package) in offer.packages() {
        let offered = package.version().clone();
        let has = truth.installed.get(name).and_then(PackageStatus::has).cloned();
        let status = if is_broken(number(offered.version())) {
            PackageStatus::Failed { offered, has, why: Rejected::new("every fifth is broken") }
        } else {
            PackageStatus::Installed { has: offered.clone(), offered: Some(offered) }
        };
        news.set(name, status);
    }
    truth.installed = news.clone();
    vec![Input::PackageStatuses(news), Input::PackagesOutcome { hash, result: Ok(()) }]
}

/// The components of one build.
pub(crate) fn components(number: u8) -> Components {
    let component = Component::new().metadata("build", i64::from(number));
    Components::new().component(format!("component {number}"), component)
}

/// The custom capabilities of an agent: one for good, one now and then.
pub(crate) fn custom(sometimes: bool) -> Vec<String> {
    let names = [(CUSTOM, true), (CUSTOM_SOMETIMES, sometimes)];
    names.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()).collect()
}
