//! Clients that never stop submitting, and the ledger of what was acknowledged to them.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::api;

/// How long a client waits before it asks a server again that did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A submission that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) id: String,
}

/// What was acknowledged, in memory and in a file that outlives the campaign.
pub(crate) struct Ledger {
    lines: Mutex<(Vec<Line>, File)>,
}

impl Ledger {
    pub(crate) fn new(file: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            lines: Mutex::new((Vec::new(), File::create(file)?)),
        })
    }

    fn add(&self, line: Line) -> anyhow::Result<()> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(lines.1, "{} {}", line.number, line.id)?;
        lines.0.push(line);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// The lines from index `first` on.
    pub(crate) fn since(&self, first: usize) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0[first..].to_vec()
    }
}

/// What the clients share.
pub(crate) struct Clients {
    pub(crate) ledger: Ledger,
    /// Requests that were not answered, by a kill or after one.
    pub(crate) unanswered: AtomicU64,
    /// Of those, requests that had been recorded although they were not answered: the kill fell between the two.
    pub(crate) recorded_unanswered: AtomicU64,
    endpoints: Vec<String>,
    next: AtomicU64,
    stop: AtomicBool,
}

impl Clients {
    pub(crate) fn new(endpoints: Vec<String>, ledger: Ledger) -> Self {
        Self {
            ledger,
            unanswered: AtomicU64::new(0),
            recorded_unanswered: AtomicU64::new(0),
            endpoints,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// After the answer to what is under way no client sends any more.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Submits number after number until told to stop, each until it is acknowledged.
    pub(crate) async fn submit(self: Arc<Self>, pause: Duration) -> anyhow::Result<()> {
        let client = api::client()?;
        while !self.stop.load(Ordering::Acquire) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let mut asked = 0_usize;
            loop {
                let endpoint = &self.endpoints[(number as usize + asked) % self.endpoints.len()];
                asked += 1;
                match api::submit(&client, endpoint, number).await {
                    Ok(acknowledged) => {
                        if acknowledged.replayed {
                            self.recorded_unanswered.fetch_add(1, Ordering::Relaxed);
                        }
                        let id = acknowledged.id;
                        self.ledger.add(Line { number, id })?;
                        break;
                    }
                    Err(_) => {
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}
