//! Keys and requests for certificates, made apart from the driver.

use std::sync::Arc;

use opamp_proto::InstanceUid;

use super::{Lanes, Outcome};
use crate::config::Rejected;

impl Lanes {
    /// Has a request made. The session wants one at a time.
    pub(crate) fn request_certificate(&self, uid: InstanceUid) {
        let (common, told) = (Arc::clone(&self.common), self.told.clone());
        tokio::spawn(async move {
            let result = match common.handlers.certificates.clone() {
                Some(requester) => {
                    let requesting = async move { requester.request(uid).await };
                    let (ended, _) = common.run("certificate", common.handler_timeout, requesting).await;
                    ended.unwrap_or_else(|why| Err(Rejected::new(format!("the requester {why}"))))
                }
                None => Err(Rejected::new("nothing here makes requests")),
            };
            // The driver may have ended meanwhile.
            let _ = told.send(Outcome::Certificate(result));
        });
    }
}
