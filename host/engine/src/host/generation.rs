//! `generation`: the instruct model, streamed.

use formwork_bindings::v1::host::generation::{
    Chunk, Completion, FinishReason, Host, HostCompletion, Request, Summary,
};
use formwork_bindings::v1::host::host_types::HostError;
use formwork_inference::GenerationRequest;
use wasmtime::component::Resource;

use super::model_id;
use crate::limits::ELEMENT_BYTES;
use crate::state::State;

type Running = formwork_inference::Completion;

/// The contract's handle as the table's.
fn running(handle: &Resource<Completion>) -> Resource<Running> {
    Resource::new_borrow(handle.rep())
}

impl Host for State {
    async fn start(
        &mut self,
        model: String,
        request: Request,
    ) -> wasmtime::Result<Result<Resource<Completion>, HostError>> {
        let schema_bytes = request.json_schema.as_ref().map_or(0, String::len);
        let stop_bytes: usize = request.stop.iter().map(|text| text.len() + ELEMENT_BYTES).sum();
        self.enter(model.len() + request.system.len() + request.prompt.len() + schema_bytes + stop_bytes)?;
        let request = GenerationRequest {
            system: request.system,
            prompt: request.prompt,
            max_tokens: request.max_tokens,
            temperature: request.temperature,
            seed: request.seed,
            stop: request.stop,
            json_schema: request.json_schema,
        };
        match self.inference.generate(&model, request, &self.inference_call).await {
            Ok(completion) => {
                let handle = self.open(completion)?;
                Ok(Ok(Resource::new_own(handle.rep())))
            }
            Err(error) => Ok(Err(self.refused(&error))),
        }
    }
}

impl HostCompletion for State {
    async fn next(&mut self, handle: Resource<Completion>) -> wasmtime::Result<Result<Option<Chunk>, HostError>> {
        self.enter(0)?;
        let completion = self.table.get_mut(&running(&handle))?;
        let chunk = match completion.next().await {
            Ok(chunk) => chunk,
            Err(error) => return Ok(Err(self.refused(&error))),
        };
        if let Some(summary) = completion.summary() {
            self.meter.used_model(&summary.model);
        }
        Ok(Ok(chunk.map(|chunk| Chunk {
            text: chunk.text,
            tokens: chunk.tokens,
            logprob: chunk.logprob,
        })))
    }

    fn summary(&mut self, handle: Resource<Completion>) -> wasmtime::Result<Option<Summary>> {
        self.enter(0)?;
        let completion = self.table.get(&running(&handle))?;
        Ok(completion.summary().map(|summary| Summary {
            model: model_id(&summary.model),
            reason: match summary.reason {
                formwork_inference::FinishReason::Stop => FinishReason::Stop,
                _ => FinishReason::Length,
            },
            prompt_tokens: summary.prompt_tokens,
            cached_tokens: summary.cached_tokens,
            output_tokens: summary.output_tokens,
        }))
    }

    fn drop(&mut self, handle: Resource<Completion>) -> wasmtime::Result<()> {
        self.close(Resource::<Running>::new_own(handle.rep()))?;
        Ok(())
    }
}
