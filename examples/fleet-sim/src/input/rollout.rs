//! `[rollout]`: what is rolled out to whom, in which waves, and what stops it.

mod strategy;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::plan::{Domains, Order, PlanRequest, StratumKey};
use opamp_fleet::rollout::windows::Calendar;
use opamp_fleet::rollout::{
    EngineSettings, Fit, LateJoiners, Leavers, Limits, Offline, Time, UnverifiedPolicy,
};
use opamp_testkit::sim::model::fleet::FleetModel;
use opamp_testkit::sim::model::planned::Subject;
use serde::Deserialize;

pub use strategy::{Step, Strategy};
pub use window::Window;

use super::gates::{self, Gate, word};
use super::{InputError, Length, Percent};

/// The rollout. Everything but the title has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// What people call it.
    pub title: String,
    /// The file with the new configuration, beside the plan file. It is compared with `fleet.files`.
    pub file: Option<PathBuf>,
    /// Who gets it; all agents by default.
    pub selector: Option<String>,
    /// In which waves. Default the canary.
    pub strategy: Option<Strategy>,
    /// In which order: hash, hostname, oldest, or `label:<key>` for the least critical first.
    pub order: Option<String>,
    /// What each wave mirrors: agent-type, version, or `label:<key>`.
    #[serde(default)]
    pub stratify: Vec<String>,
    /// Most members of a zone in flight at a time.
    pub in_flight_per_zone: Option<u32>,
    /// How many members are left as they are.
    #[serde(default)]
    pub control_group: u32,
    /// How long gates stay armed after the last wave.
    pub bake: Option<Length>,
    /// How long there may be no progress.
    pub progress: Option<Length>,
    /// What becomes of agents that come later.
    pub late_joiners: Option<String>,
    /// What becomes of members that stop matching.
    pub leavers: Option<String>,
    /// What becomes of members that are away.
    pub offline: Option<String>,
    /// What a member counts as that can give no evidence.
    pub unverified: Option<String>,
    /// Whether a dwell that is shorter than a gate's window becomes as long (`stretch`) or is refused (`refuse`).
    pub fit: Option<String>,
    /// When new offers may begin.
    pub window: Option<Window>,
    /// What it may touch and how fast.
    #[serde(default)]
    pub rate: Rate,
    /// Gates that replace the default of the same kind.
    #[serde(default)]
    pub gate: Vec<Gate>,
    /// When it starts, after it was planned.
    pub starts_after: Option<Length>,
    /// When it is over, after it was planned.
    pub expires_after: Option<Length>,
    /// Why something dangerous is asked for.
    pub reason: Option<String>,
}

/// What a rollout may touch and how fast.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Most offers in a minute.
    pub per_minute: Option<u32>,
    /// Most offers in an hour.
    pub per_hour: Option<u32>,
    /// Most members in flight at a time.
    pub in_flight: Option<u32>,
    /// Most members touched in all.
    pub touched: Option<u32>,
    /// Largest part of the fleet in flight at a time.
    pub fleet_percent_in_flight: Option<Percent>,
}

impl Rollout {
    /// What it is about.
    ///
    /// # Errors
    /// [`InputError`] for a selector that is none, or a title that is too long.
    pub fn subject(&self, seed: u64) -> Result<Subject, InputError> {
        let subject = Subject::new(seed, &self.title)
            .map_err(|error| InputError::value("rollout.title", error.to_string()))?;
        Ok(match &self.selector {
            None => subject,
            Some(text) => subject.for_agents(text.parse::<Selector>()?),
        })
    }

    /// The request for a plan.
    ///
    /// # Errors
    /// [`InputError`] for words that there are not.
    pub fn request<'a>(&self, subject: &'a Subject, begins: Time) -> Result<PlanRequest<'a>, InputError> {
        let request = subject.request();
        let window = self.window.as_ref().map(Window::window).transpose()?;
        let domains = self.in_flight_per_zone.map(|in_flight_max| Domains {
            key: FleetModel::ZONE.into(),
            in_flight_max,
            anti_affinity: None,
        });
        Ok(PlanRequest {
            title: self.title.as_str().into(),
            strategy: match &self.strategy {
                Some(strategy) => strategy.strategy()?,
                None => request.strategy,
            },
            order: self.order.as_deref().map_or(Ok(Order::Hash), order)?,
            stratify: self.stratify.iter().map(|text| stratum(text)).collect::<Result<_, _>>()?,
            domains,
            control_group: self.control_group,
            gates: gates::gates(&self.gate)?,
            settings: self.settings()?,
            calendar: Calendar { windows: window.into_iter().collect(), ..Calendar::default() },
            start_at: self.starts_after.map(|after| begins + after.0),
            expires_at: self.expires_after.map(|after| begins + after.0),
            override_reason: self.reason.as_deref().map(Into::into),
            author: "simulated".into(),
            ..request
        })
    }

    fn settings(&self) -> Result<EngineSettings, InputError> {
        let default = EngineSettings::default();
        let length = |wanted: Option<Length>, default: Duration| wanted.map_or(default, |length| length.0);
        Ok(EngineSettings {
            bake: length(self.bake, default.bake),
            progress: length(self.progress, default.progress),
            joiners: chosen::<LateJoiners>("rollout.late_joiners", &self.late_joiners, default.joiners)?,
            leavers: chosen::<Leavers>("rollout.leavers", &self.leavers, default.leavers)?,
            offline: chosen::<Offline>("rollout.offline", &self.offline, default.offline)?,
            unverified: chosen::<UnverifiedPolicy>(
                "rollout.unverified",
                &self.unverified,
                default.unverified,
            )?,
            fit: chosen::<Fit>("rollout.fit", &self.fit, default.fit)?,
            in_flight_max: self.rate.in_flight.unwrap_or(default.in_flight_max),
            limits: self.rate.limits(),
            ..default
        })
    }
}

impl Rate {
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            touched_max: self.touched.unwrap_or(default.touched_max),
            fleet_percent_in_flight: self
                .fleet_percent_in_flight
                .map_or(default.fleet_percent_in_flight, |percent| percent.0),
            per_hour: self.per_hour.unwrap_or(default.per_hour),
            per_minute: self.per_minute.unwrap_or(default.per_minute),
            in_flight_max: self.in_flight.unwrap_or(default.in_flight_max),
            ..default
        }
    }
}

fn chosen<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &'static str,
    text: &Option<String>,
    default: T,
) -> Result<T, InputError> {
    text.as_deref().map_or(Ok(default), |text| word(key, text))
}

fn order(text: &str) -> Result<Order, InputError> {
    Ok(match (text, text.strip_prefix("label:")) {
        (_, Some(label)) => Order::LeastCritical { label: label.into() },
        ("hash", _) => Order::Hash,
        ("hostname", _) => Order::Hostname,
        ("oldest", _) => Order::Oldest,
        (other, _) => {
            let what = format!("{other} is none of hash, hostname, oldest, label:<key>");
            return Err(InputError::value("rollout.order", what));
        }
    })
}

fn stratum(text: &str) -> Result<StratumKey, InputError> {
    Ok(match (text, text.strip_prefix("label:")) {
        (_, Some(label)) => StratumKey::Label(label.into()),
        ("agent-type", _) => StratumKey::AgentType,
        ("version", _) => StratumKey::Version,
        (other, _) => {
            let what = format!("{other} is none of agent-type, version, label:<key>");
            return Err(InputError::value("rollout.stratify", what));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<(EngineSettings, Order), InputError> {
        let rollout: Rollout = toml::from_str(&format!("title = \"v2\"\n{text}")).unwrap();
        let subject = rollout.subject(1)?;
        let request = rollout.request(&subject, Time(1_000))?;
        Ok((request.settings, request.order))
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let (settings, order) = request("").unwrap();
        assert_eq!((settings, order), (EngineSettings::default(), Order::Hash));
    }

    #[test]
    fn rates_and_policies_are_taken_over() {
        let text = "late_joiners = \"snapshot\"\norder = \"label:tier\"\nrate = { per_minute = 600, touched = 50, fleet_percent_in_flight = 2.5 }\n";
        let (settings, order) = request(text).unwrap();
        assert_eq!(settings.joiners, LateJoiners::Snapshot);
        assert_eq!((settings.limits.per_minute, settings.limits.touched_max), (600, 50));
        assert_eq!(settings.limits.fleet_percent_in_flight.0, 25_000);
        assert_eq!(order, Order::LeastCritical { label: "tier".into() });
    }

    #[test]
    fn times_count_from_the_plan() {
        let rollout: Rollout = toml::from_str("title = \"v2\"\nstarts_after = \"2 s\"\n").unwrap();
        let subject = rollout.subject(1).unwrap();
        assert_eq!(rollout.request(&subject, Time(1_000)).unwrap().start_at, Some(Time(3_000)));
    }

    #[test]
    fn words_that_there_are_not_are_refused() {
        for text in [
            "late_joiners = \"never\"",
            "order = \"size\"",
            "stratify = [\"moon\"]",
            "selector = \"a in (\"",
            "fit = \"bend\"",
        ] {
            let error = request(text).unwrap_err().to_string();
            assert!(error.starts_with("rollout."), "{text}: {error}");
        }
    }
}
