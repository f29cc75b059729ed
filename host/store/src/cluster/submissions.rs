//! Recording submissions.

use super::{
    database::{Abort, Operation},
    documents::{DataDocument, IdempotencyDocument, IdempotencyKey, SubmissionDocument},
    unit::Unit,
};
use crate::{Error, NewSubmission, Result, SubmissionId, Submit};
use async_trait::async_trait;
use formwork_tasks::SubmissionStatus;
use mongodb::bson::{Bson, doc};
use std::collections::HashMap;

/// Records submissions with their first tasks, all or none.
pub(super) struct Record {
    pub(super) submissions: Vec<NewSubmission>,
}

#[async_trait]
impl Operation for Record {
    type Output = Vec<Submit>;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Vec<Submit>, Abort> {
        let mut used = self.used_keys(unit).await?;
        let mut outcomes = Vec::with_capacity(self.submissions.len());
        let (mut recorded, mut data, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for new in &self.submissions {
            if let Some(idempotency) = &new.idempotency {
                let key = IdempotencyKey {
                    form: new.form.clone(),
                    key: idempotency.key.clone(),
                };
                if let Some((fingerprint, id)) = used.get(&key) {
                    let same = *fingerprint == idempotency.fingerprint;
                    let id = *id;
                    outcomes.push(if same {
                        Submit::Replayed { id }
                    } else {
                        Submit::KeyReused { id }
                    });
                    continue;
                }
                used.insert(key.clone(), (idempotency.fingerprint.clone(), new.id));
                keys.push(IdempotencyDocument {
                    key,
                    fingerprint: idempotency.fingerprint.clone(),
                    submission: new.id.to_string(),
                    created_at: unit.now.0,
                });
            }
            let document = SubmissionDocument {
                id: new.id.to_string(),
                form: new.form.clone(),
                form_version: new.form_version.into(),
                status: SubmissionStatus::Processing,
                priority: new.priority.map(|priority| priority.level().into()),
                correlation_id: new.correlation_id.clone(),
                submitted_at: unit.now.0,
                settled_at: None,
                revision: 0,
            };
            unit.begin(new.id, document).await?;
            recorded.push(new.id);
            data.push(DataDocument {
                submission: new.id.to_string(),
                data: new.data.clone(),
            });
            outcomes.push(Submit::Created);
        }
        let database = unit.database;
        unit.insert_new(&database.data, &recorded, &data).await?;
        unit.insert(&database.idempotency, &keys).await?;
        Ok(outcomes)
    }
}

impl Record {
    /// The keys that were used before, with the request's fingerprint and submission.
    async fn used_keys(&self, unit: &mut Unit<'_>) -> Result<HashMap<IdempotencyKey, (String, SubmissionId)>, Abort> {
        let keys: Vec<Bson> = self
            .submissions
            .iter()
            .filter_map(|new| Some((new, new.idempotency.as_ref()?)))
            .map(|(new, idempotency)| doc! { "form": &new.form, "key": &idempotency.key }.into())
            .collect();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let database = unit.database;
        let found = unit
            .find(&database.idempotency, doc! { "_id": { "$in": keys } })
            .await?;
        let mut used = HashMap::with_capacity(found.len());
        for document in found {
            let id = document.submission.parse();
            let id = id.map_err(|error| Error::backend("read idempotency key", error))?;
            used.insert(document.key, (document.fingerprint, id));
        }
        Ok(used)
    }
}
