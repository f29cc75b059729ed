//! Ends the transactions of nodes that are gone.
//!
//! **Problem.** A node that is killed within a transaction leaves what it had written locked until MongoDB ends that
//! transaction by itself, a minute later by default: its tasks cannot be taken back, whatever their lease. **Promise.**
//! Every node says that it lives and which sessions its transactions have. The sessions of a node that has been silent
//! for [`limits::NODE_SILENT_MS`] are ended by whoever sees it. A node that was only slow or cut off loses nothing: a
//! transaction that was ended is run again. **Cost.** A write of one document a second for each node. **Rejected.**
//! `$currentOp`, which would need no records: it may need a privilege, and shows a router's sessions only.

use super::database::{Database, failed};
use crate::{Result, limits};
use formwork_tasks::Millis;
use futures::TryStreamExt as _;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, doc},
};
use std::sync::{Mutex, PoisonError};

/// Who this node is, and the sessions it has used.
pub(super) struct Presence {
    node: String,
    sessions: Mutex<Vec<Bson>>,
}

impl Presence {
    pub(super) fn of(node: String) -> Self {
        let sessions = Mutex::default();
        Self { node, sessions }
    }

    /// Makes a session known before its first transaction; drivers use few of them, again and again.
    pub(super) async fn announce(
        &self,
        database: &Database,
        session: &ClientSession,
        now: Millis,
    ) -> mongodb::error::Result<()> {
        let Some(id) = session.id().get("id") else {
            return Ok(());
        };
        {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            if sessions.contains(id) {
                return Ok(());
            }
            // Those that are forgotten are old and idle; if not, MongoDB's own limit ends their transactions.
            if sessions.len() >= limits::NODE_SESSIONS {
                sessions.clear();
            }
            sessions.push(id.clone());
        }
        self.tell(database, now).await
    }

    /// Says that this node lives.
    pub(super) async fn tell(&self, database: &Database, now: Millis) -> mongodb::error::Result<()> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let update = doc! { "$set": { "sessions": sessions, "at": now.0 } };
        let told = database.nodes.update_one(doc! { "_id": &self.node }, update);
        told.upsert(true).await.map(drop)
    }

    /// Ends the sessions of nodes that have been silent for too long, and forgets them; how many nodes there were.
    pub(super) async fn end_silent(&self, database: &Database, now: Millis) -> Result<usize> {
        let since = now.0.saturating_sub(limits::NODE_SILENT_MS);
        let silent = doc! { "_id": { "$ne": &self.node }, "at": { "$lt": since } };
        let found = database.nodes.find(silent).await.map_err(failed("find silent nodes"))?;
        let nodes: Vec<Document> = found.try_collect().await.map_err(failed("find silent nodes"))?;
        for node in &nodes {
            let sessions = node.get_array("sessions").map(Vec::as_slice).unwrap_or_default();
            let sessions: Vec<Document> = sessions.iter().map(|id| doc! { "id": id }).collect();
            if !sessions.is_empty() {
                let kill = doc! { "killSessions": sessions };
                let killed = database.alive.client().database("admin").run_command(kill).await;
                killed.map_err(failed("end the sessions of a silent node"))?;
            }
            // One that came back meanwhile has another time.
            let seen = doc! { "_id": node.get("_id"), "at": node.get("at") };
            let forget = database.nodes.delete_one(seen).await;
            forget.map_err(failed("forget a silent node"))?;
        }
        Ok(nodes.len())
    }
}
