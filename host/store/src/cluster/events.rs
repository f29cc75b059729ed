//! Events between nodes: told to this node's subscribers at once, and to other nodes over a Redis channel.
//!
//! Events are hints, so nothing is acknowledged or stored. A node that was cut off from the channel has missed
//! some; its subscribers are made to lag, which tells each of them to look at the store itself.

use super::index::Index;
use crate::{StoreEvent, limits};
use formwork_tasks::Pool;
use futures::StreamExt as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::{broadcast, mpsc};

/// The telling end.
pub(super) struct Events {
    local: broadcast::Sender<StoreEvent>,
    outbox: mpsc::Sender<StoreEvent>,
}

impl Events {
    /// The telling end, and what is left to be sent to other nodes.
    pub(super) fn new() -> (Self, mpsc::Receiver<StoreEvent>) {
        let (local, _) = broadcast::channel(limits::EVENT_BACKLOG);
        let (outbox, unsent) = mpsc::channel(limits::EVENT_BACKLOG);
        (Self { local, outbox }, unsent)
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        self.local.subscribe()
    }

    /// Tells this node at once, and the others soon.
    pub(super) fn tell(&self, events: Vec<StoreEvent>) {
        for event in events {
            // Nobody may be listening, and a full outbox drops hints rather than hold up who was answered.
            let _ = self.local.send(event);
            let _ = self.outbox.try_send(event);
        }
    }

    /// Makes every subscriber lag: more events than the backlog holds, each harmless by itself.
    fn tell_missed(&self) {
        for pool in Pool::ALL
            .into_iter()
            .cycle()
            .take(limits::EVENT_BACKLOG + Pool::ALL.len())
        {
            let _ = self.local.send(StoreEvent::TasksAvailable { pool });
        }
    }
}

/// Sends events to the other nodes until the store is gone.
pub(super) async fn send(index: Arc<Index>, mut unsent: mpsc::Receiver<StoreEvent>) {
    let mut events = Vec::new();
    while unsent.recv_many(&mut events, limits::INDEX_BATCH).await > 0 {
        events.sort_unstable_by_key(|event| format!("{event:?}"));
        events.dedup();
        let message = encode(&index.node, &events);
        events.clear();
        if let Err(error) = index.publish(&message).await {
            tracing::debug!(%error, "events did not reach the other nodes");
        }
    }
}

/// Hears the events of other nodes, for ever.
pub(super) async fn listen(index: Arc<Index>, events: Arc<Events>) {
    let mut was_connected = false;
    loop {
        match connect(&index).await {
            Ok(channel) => {
                if std::mem::replace(&mut was_connected, true) {
                    events.tell_missed();
                }
                hear(&index, &events, channel).await;
            }
            Err(error) => tracing::debug!(%error, "the event channel cannot be reached"),
        }
        tokio::time::sleep(Duration::from_millis(limits::EVENTS_RECONNECT_MS)).await;
    }
}

async fn connect(index: &Index) -> Result<redis::aio::PubSub, Box<dyn std::error::Error + Send + Sync>> {
    let connecting = async {
        let mut channel = index.client.get_async_pubsub().await?;
        channel.subscribe(index.channel()).await?;
        Ok(channel)
    };
    tokio::time::timeout(Duration::from_millis(limits::REDIS_CONNECT_MS), connecting).await?
}

/// Until the channel breaks, or does not answer.
async fn hear(index: &Index, events: &Events, channel: redis::aio::PubSub) {
    let (mut sink, mut messages) = channel.split();
    let every = Duration::from_millis(limits::EVENTS_PING_MS);
    loop {
        match tokio::time::timeout(every, messages.next()).await {
            Ok(Some(message)) => {
                if let Ok(text) = message.get_payload::<String>() {
                    for event in decode(&index.node, &text) {
                        let _ = events.local.send(event);
                    }
                }
            }
            Ok(None) => return,
            Err(_) => {
                // A peer that vanished without a word is only found by asking.
                let answer = Duration::from_millis(limits::REDIS_ANSWER_MS);
                if !matches!(
                    tokio::time::timeout(answer, sink.ping::<redis::Value>()).await,
                    Ok(Ok(_))
                ) {
                    return;
                }
            }
        }
    }
}

fn encode(node: &str, events: &[StoreEvent]) -> String {
    let mut text = node.to_owned();
    for event in events {
        let word = match event {
            StoreEvent::TasksAvailable { pool } => format!(" available:{pool}"),
            StoreEvent::SubmissionSettled { id } => format!(" settled:{id}"),
            StoreEvent::CancelRequested { task } => format!(" cancel:{task}"),
            StoreEvent::TaskChanged { task } => format!(" task:{task}"),
            StoreEvent::ControlsChanged => " controls:".to_owned(),
            StoreEvent::PluginsChanged => " plugins:".to_owned(),
        };
        text.push_str(&word);
    }
    text
}

/// The events of a message from another node; kinds that a newer node sends are passed over.
fn decode(node: &str, text: &str) -> Vec<StoreEvent> {
    let mut words = text.split(' ');
    if words.next() == Some(node) {
        return Vec::new();
    }
    words
        .filter_map(|word| match word.split_once(':')? {
            ("available", pool) => Some(StoreEvent::TasksAvailable {
                pool: pool.parse().ok()?,
            }),
            ("settled", id) => Some(StoreEvent::SubmissionSettled { id: id.parse().ok()? }),
            ("cancel", task) => Some(StoreEvent::CancelRequested {
                task: task.parse().ok()?,
            }),
            ("task", task) => Some(StoreEvent::TaskChanged {
                task: task.parse().ok()?,
            }),
            ("controls", _) => Some(StoreEvent::ControlsChanged),
            ("plugins", _) => Some(StoreEvent::PluginsChanged),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SubmissionId, TaskId};
    use tokio::sync::broadcast::error::TryRecvError;
    use ulid::Ulid;

    #[test]
    fn messages_come_back_as_they_were_except_ones_own() {
        let id = SubmissionId(Ulid::from_parts(1, 2));
        let events = [
            StoreEvent::TasksAvailable { pool: Pool::Batched },
            StoreEvent::SubmissionSettled { id },
            StoreEvent::CancelRequested {
                task: TaskId::new(id, 3),
            },
            StoreEvent::TaskChanged {
                task: TaskId::new(id, 4),
            },
            StoreEvent::ControlsChanged,
            StoreEvent::PluginsChanged,
        ];
        let text = encode("node-a", &events);
        assert_eq!(decode("node-b", &text), events);
        assert!(decode("node-a", &text).is_empty());
        assert_eq!(decode("node-b", &format!("{text} newer:1 settled:x")), events);
    }

    #[test]
    fn a_missed_stretch_makes_every_subscriber_lag() {
        let (events, _unsent) = Events::new();
        let mut subscriber = events.subscribe();
        events.tell_missed();
        assert!(matches!(subscriber.try_recv(), Err(TryRecvError::Lagged(_))));
    }
}
