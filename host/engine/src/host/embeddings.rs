//! `embeddings`: the encoder.

use formwork_bindings::v1::host::embeddings::{Embedded, Host};
use formwork_bindings::v1::host::host_types::HostError;

use super::model_id;
use crate::limits::ELEMENT_BYTES;
use crate::state::State;

impl Host for State {
    async fn embed(&mut self, model: String, texts: Vec<String>) -> wasmtime::Result<Result<Embedded, HostError>> {
        self.enter(model.len() + texts.iter().map(|text| text.len() + ELEMENT_BYTES).sum::<usize>())?;
        Ok(match self.inference.embed(&model, texts, &self.inference_call).await {
            Ok(embeddings) => {
                self.meter.used_model(&embeddings.model);
                Ok(Embedded {
                    model: model_id(&embeddings.model),
                    dimensions: u32::try_from(embeddings.dimensions).unwrap_or(u32::MAX),
                    vectors: embeddings.vectors,
                })
            }
            Err(error) => Err(self.refused(&error)),
        })
    }
}
