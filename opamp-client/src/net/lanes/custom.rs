//! Custom messages on their way to the application: a bounded queue for each capability.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::{Common, Lanes};
use crate::custom::CustomMessage;
use crate::event::Event;
use crate::net::handler::CustomMessageHandler;

/// The queues, by capability.
pub(super) struct CustomLanes {
    kept: usize,
    kept_bytes: usize,
    queues: BTreeMap<String, Queue>,
    dropped: AtomicU64,
}

/// What waits for one handler.
struct Queue {
    messages: mpsc::Sender<CustomMessage>,
    /// The memory that it takes: added to by who hands over, subtracted from by who takes.
    bytes: Arc<AtomicUsize>,
}

impl CustomLanes {
    pub(super) fn new(kept: usize, kept_bytes: usize) -> Self {
        Self { kept: kept.max(1), kept_bytes, queues: BTreeMap::new(), dropped: AtomicU64::new(0) }
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
        let bytes = Arc::new(AtomicUsize::new(0));
        self.custom.queues.insert(name, Queue { messages: sender, bytes: Arc::clone(&bytes) });
        tokio::spawn(Arc::clone(&self.common).converse(handler, messages, bytes));
    }

    /// The capabilities that have a handler.
    pub(crate) fn custom_capabilities(&self) -> Vec<String> {
        self.custom.queues.keys().cloned().collect()
    }

    /// Hands a message over, unless its handler is too slow.
    pub(crate) fn custom(&self, message: CustomMessage) {
        let Some(queue) = self.custom.queues.get(&message.capability) else { return };
        let size = size(&message);
        let why = if size > self.custom.kept_bytes {
            "one is larger than what may wait for a handler"
        } else {
            "their handler is too slow"
        };
        // Added before it can be taken, and by nobody else meanwhile.
        let waiting = queue.bytes.fetch_add(size, Ordering::AcqRel);
        let refused = if waiting.saturating_add(size) > self.custom.kept_bytes {
            Err(TrySendError::Full(message))
        } else {
            queue.messages.try_send(message)
        };
        let Err(refused) = refused else { return };
        queue.bytes.fetch_sub(size, Ordering::AcqRel);
        if let TrySendError::Full(message) = refused {
            self.custom.dropped.fetch_add(1, Ordering::Relaxed);
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
        bytes: Arc<AtomicUsize>,
    ) {
        while let Some(message) = messages.recv().await {
            bytes.fetch_sub(size(&message), Ordering::AcqRel);
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

/// What a message takes of memory while it waits.
fn size(message: &CustomMessage) -> usize {
    message.capability.len() + message.kind.len() + message.data.len()
}
