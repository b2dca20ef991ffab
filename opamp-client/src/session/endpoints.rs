//! Several endpoints, tried in order: the first that can be reached serves, and the first of all is preferred.

use std::sync::Arc;

use opamp_proto::Mono;

use super::settings::EndpointInfo;
use crate::event::Transport;

/// The endpoints, and where among them the agent is.
#[derive(Debug)]
pub(super) struct Endpoints {
    endpoints: Vec<Endpoint>,
    current: usize,
    /// The first one as configured, also when a server has set another.
    configured: EndpointInfo,
    /// What is tried instead of all of them.
    trial: Option<EndpointInfo>,
}

#[derive(Debug)]
struct Endpoint {
    info: EndpointInfo,
    /// The server asked to be left alone until then.
    not_before: Mono,
}

impl Endpoints {
    /// Endpoints in order of preference. There is always one.
    pub(super) fn new(first: EndpointInfo, others: impl IntoIterator<Item = EndpointInfo>) -> Self {
        let configured = first.clone();
        let endpoint = |info| Endpoint { info, not_before: Mono(0) };
        let endpoints = std::iter::once(first).chain(others).map(endpoint).collect();
        Self { endpoints, current: 0, configured, trial: None }
    }

    pub(super) const fn configured(&self) -> &EndpointInfo {
        &self.configured
    }

    /// A server has set the first endpoint.
    pub(super) fn accept(&mut self, info: EndpointInfo) {
        self.endpoints[0] = Endpoint { info, not_before: Mono(0) };
        self.current = 0;
    }

    /// The next connection is one to this endpoint.
    pub(super) fn begin_trial(&mut self, info: EndpointInfo) {
        self.trial = Some(info);
    }

    /// What was tried takes the place of the first.
    pub(super) fn accept_trial(&mut self) {
        if let Some(info) = self.trial.take() {
            self.accept(info);
        }
    }

    /// What was tried is no good.
    pub(super) fn end_trial(&mut self) {
        self.trial = None;
    }

    pub(super) const fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    fn info(&self) -> &EndpointInfo {
        self.trial.as_ref().unwrap_or(&self.endpoints[self.current].info)
    }

    pub(super) fn current(&self) -> usize {
        self.current
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.info().name)
    }

    pub(super) fn transport(&self) -> Transport {
        self.info().transport
    }

    /// Begins a round with the first endpoint that may be tried now; when the next one may, if none.
    pub(super) fn begin(&mut self, now: Mono) -> Result<usize, Mono> {
        let index = self.first_free(now)?;
        self.current = index;
        Ok(index)
    }

    /// The first endpoint that may be tried now; when the next one may, if none.
    pub(super) fn first_free(&self, now: Mono) -> Result<usize, Mono> {
        let earliest = || self.endpoints.iter().map(|endpoint| endpoint.not_before).min().unwrap_or(now);
        self.free(0, now).ok_or_else(earliest)
    }

    /// Goes on to the next endpoint of this round that may be tried now.
    pub(super) fn advance(&mut self, now: Mono) -> Option<usize> {
        self.current = self.free(self.current + 1, now)?;
        Some(self.current)
    }

    /// The server at the current endpoint asked to be left alone until then.
    pub(super) fn block(&mut self, until: Mono) {
        self.endpoints[self.current].not_before = until;
    }

    /// The server at the first endpoint asked to be left alone until then.
    pub(super) fn block_first(&mut self, until: Mono) {
        self.endpoints[0].not_before = until;
    }

    /// Whether an endpoint before the current one may be tried now.
    pub(super) fn first_is_free(&self, now: Mono) -> bool {
        self.current != 0 && self.endpoints[0].not_before <= now
    }

    /// When the first endpoint may be tried.
    pub(super) fn first_free_at(&self) -> Mono {
        self.endpoints[0].not_before
    }

    fn free(&self, from: usize, now: Mono) -> Option<usize> {
        (from..self.endpoints.len()).find(|&index| self.endpoints[index].not_before <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: usize) -> Endpoints {
        let info = |index| EndpointInfo::new(format!("ws://{index}"), Transport::WebSocket);
        Endpoints::new(info(0), (1..count).map(info))
    }

    #[test]
    fn a_round_tries_each_endpoint_once_in_order() {
        let mut endpoints = endpoints(3);
        assert_eq!(endpoints.begin(Mono(0)), Ok(0));
        assert_eq!(endpoints.advance(Mono(0)), Some(1));
        assert_eq!(endpoints.advance(Mono(0)), Some(2));
        assert_eq!(endpoints.advance(Mono(0)), None);
        assert_eq!(endpoints.begin(Mono(0)), Ok(0), "and the next round begins with the first");
    }

    #[test]
    fn an_overloaded_server_is_passed_over_until_its_time() {
        let mut endpoints = endpoints(2);
        endpoints.block(Mono(10));
        assert_eq!(endpoints.begin(Mono(5)), Ok(1));
        endpoints.block(Mono(20));
        assert_eq!(endpoints.begin(Mono(5)), Err(Mono(10)));
        assert_eq!(endpoints.begin(Mono(10)), Ok(0));
    }
}
