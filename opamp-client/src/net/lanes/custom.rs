//! Custom messages on their way to the application: a bounded queue for each capability.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::{Common, Lanes};
use crate::custom::CustomMessage;
use crate::event::Event;
use crate::net::handler::CustomMessageHandler;

/// The queues, by capability.
pub(super) struct CustomLanes {
    kept: usize,
    queues: BTreeMap<String, mpsc::Sender<CustomMessage>>,
    dropped: AtomicU64,
}

impl CustomLanes {
    pub(super) fn new(kept: usize) -> Self {
        Self { kept: kept.max(1), queues: BTreeMap::new(), dropped: AtomicU64::new(0) }
    }
}

impl Lanes {
    /// Installs the handler of a capability, in place of one of the same name; or takes it away. What waits for one that is
    /// taken away is still handed to it.
    pub(crate) fn install_custom(&mut self, name: String, handler: Option<Arc<dyn CustomMessageHandler>>) {
        let Some(handler) = handler else {
            self.custom.queues.remove(&name);
            return;
        };
        let (sender, messages) = mpsc::channel(self.custom.kept);
        self.custom.queues.insert(name, sender);
        tokio::spawn(Arc::clone(&self.common).converse(handler, messages));
    }

    /// The capabilities that have a handler.
    pub(crate) fn custom_capabilities(&self) -> Vec<String> {
        self.custom.queues.keys().cloned().collect()
    }

    /// Hands a message over, unless its handler is too slow.
    pub(crate) fn custom(&self, message: CustomMessage) {
        let Some(queue) = self.custom.queues.get(&message.capability) else { return };
        if let Err(TrySendError::Full(message)) = queue.try_send(message) {
            self.custom.dropped.fetch_add(1, Ordering::Relaxed);
            let why = "their handler is too slow";
            self.common.event(Event::CustomDropped { capability: message.capability, why });
        }
    }

    pub(crate) fn custom_dropped(&self) -> u64 {
        self.custom.dropped.load(Ordering::Relaxed)
    }
}

impl Common {
    async fn converse(
        self: Arc<Self>,
        handler: Arc<dyn CustomMessageHandler>,
        mut messages: mpsc::Receiver<CustomMessage>,
    ) {
        while let Some(message) = messages.recv().await {
            let (handler, client) = (Arc::clone(&handler), self.shared.client());
            let taking = async move { handler.message(message, client).await };
            // How it ended is told already, if it was not as it should.
            let (_, left) = self.run("custom message", self.handler_timeout, taking).await;
            if let Some(left) = left {
                // It blocks; the next one beside it would be out of order.
                let _ = left.await;
            }
        }
    }
}
