//! `tensors`: any ONNX graph.

use formwork_bindings::v1::host::host_types::HostError;
use formwork_bindings::v1::host::tensors::{self, Host, TensorData};
use formwork_inference as inference;

use crate::limits::ELEMENT_BYTES;
use crate::state::State;

impl Host for State {
    async fn run(
        &mut self,
        model: String,
        inputs: Vec<(String, tensors::Tensor)>,
    ) -> wasmtime::Result<Result<Vec<(String, tensors::Tensor)>, HostError>> {
        self.enter(
            model.len()
                + inputs
                    .iter()
                    .map(|(name, tensor)| name.len() + bytes(&tensor.data) + tensor.shape.len() * 4 + 2 * ELEMENT_BYTES)
                    .sum::<usize>(),
        )?;
        let inputs = inputs
            .into_iter()
            .map(|(name, tensor)| (name, from_guest(tensor)))
            .collect();
        Ok(match self.inference.run(&model, inputs, &self.inference_call).await {
            Ok((model, outputs)) => {
                self.meter.used_model(&model);
                outputs
                    .into_iter()
                    .map(|(name, tensor)| Ok((name, to_guest(tensor)?)))
                    .collect()
            }
            Err(error) => Err(self.refused(&error)),
        })
    }
}

fn bytes(data: &TensorData) -> usize {
    match data {
        TensorData::F32s(numbers) => numbers.len() * 4,
        TensorData::I64s(numbers) => numbers.len() * 8,
        TensorData::I32s(numbers) => numbers.len() * 4,
        TensorData::U8s(numbers) => numbers.len(),
    }
}

fn from_guest(tensor: tensors::Tensor) -> inference::Tensor {
    let data = match tensor.data {
        TensorData::F32s(numbers) => inference::TensorData::F32(numbers),
        TensorData::I64s(numbers) => inference::TensorData::I64(numbers),
        TensorData::I32s(numbers) => inference::TensorData::I32(numbers),
        TensorData::U8s(numbers) => inference::TensorData::U8(numbers),
    };
    inference::Tensor {
        shape: tensor.shape,
        data,
    }
}

fn to_guest(tensor: inference::Tensor) -> Result<tensors::Tensor, HostError> {
    let data = match tensor.data {
        inference::TensorData::F32(numbers) => TensorData::F32s(numbers),
        inference::TensorData::I64(numbers) => TensorData::I64s(numbers),
        inference::TensorData::I32(numbers) => TensorData::I32s(numbers),
        inference::TensorData::U8(numbers) => TensorData::U8s(numbers),
        _ => {
            return Err(HostError::Internal(
                "the graph answered numbers of a type the contract has not".into(),
            ));
        }
    };
    Ok(tensors::Tensor {
        shape: tensor.shape,
        data,
    })
}
