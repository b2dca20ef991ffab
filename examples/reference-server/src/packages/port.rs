//! The OpAMP port: the protocol's endpoint, and beside it the files of packages.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use opamp_server::{OpampService, ServerHandle};
use tower_service::Service;

use super::download::{Body, Downloads, PREFIX};

/// Answers every request of the port.
#[derive(Clone)]
pub(crate) struct OpampPort {
    opamp: OpampService,
    server: ServerHandle,
    /// `None` where packages are switched off: then there is no such path.
    downloads: Option<Downloads>,
}

impl OpampPort {
    pub(crate) fn new(opamp: OpampService, server: ServerHandle, downloads: Option<Downloads>) -> Self {
        OpampPort { opamp, server, downloads }
    }
}

impl Service<Request<Incoming>> for OpampPort {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        match &self.downloads {
            Some(downloads) if request.uri().path().starts_with(PREFIX) => {
                let downloads = downloads.clone();
                // Who is to wait with what it has to say waits with downloads too.
                if let Some(throttle) = self.server.throttled() {
                    return Box::pin(async move { Ok(downloads.later(throttle.retry_after)) });
                }
                Box::pin(async move { Ok(downloads.answer(request).await) })
            }
            _ => {
                let answer = self.opamp.call(request);
                Box::pin(async move { Ok(answer.await?.map(Either::Left)) })
            }
        }
    }
}
