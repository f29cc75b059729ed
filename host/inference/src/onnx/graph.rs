//! Runs a graph on a caller's tensors.
//!
//! Promise: names, element types, ranks and fixed dimensions are compared with the graph before the
//! library sees them, and input and output sizes are bounded. Not bounded: what the graph allocates in
//! between; an operator who offers a graph with free dimensions should know its appetite.

use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor as Native, TensorElementType, ValueType};

use crate::error::Error;
use crate::limits;
use crate::tensor::{Tensor, TensorData};

/// One run; names of the outputs are the graph's.
pub(crate) fn run(
    session: &mut Session,
    inputs: Vec<(String, Tensor)>,
    options: &RunOptions,
    byte_limit: usize,
) -> Result<Vec<(String, Tensor)>, Error> {
    check_inputs(session.inputs(), &inputs)?;
    let inputs = inputs
        .into_iter()
        .map(|(name, tensor)| Ok((name, into_native(tensor)?)))
        .collect::<Result<Vec<(String, SessionInputValue<'_>)>, Error>>()?;
    let outputs = session.run_with_options(inputs, options).map_err(native)?;
    let mut left = byte_limit;
    let mut tensors = Vec::new();
    for (name, value) in &outputs {
        let tensor = from_native(name, &value)?;
        left = left.checked_sub(tensor.data.bytes()).ok_or(Error::TooLarge {
            what: "bytes of the output tensors",
            limit: byte_limit as u64,
            got: (byte_limit - left + tensor.data.bytes()) as u64,
        })?;
        tensors.push((name.to_owned(), tensor));
    }
    Ok(tensors)
}

/// Limits that need no graph.
pub(crate) fn check_sizes(inputs: &[(String, Tensor)], byte_limit: usize) -> Result<(), Error> {
    if inputs.len() > limits::MAX_TENSORS {
        return Err(Error::TooLarge {
            what: "input tensors",
            limit: limits::MAX_TENSORS as u64,
            got: inputs.len() as u64,
        });
    }
    let bytes: usize = inputs.iter().map(|(_, tensor)| tensor.data.bytes()).sum();
    if bytes > byte_limit {
        return Err(Error::TooLarge {
            what: "bytes of the input tensors",
            limit: byte_limit as u64,
            got: bytes as u64,
        });
    }
    inputs.iter().try_for_each(|(name, tensor)| tensor.validate(name))
}

fn check_inputs(declared: &[Outlet], inputs: &[(String, Tensor)]) -> Result<(), Error> {
    let names = || declared.iter().map(Outlet::name).collect::<Vec<_>>().join(", ");
    for (index, (name, tensor)) in inputs.iter().enumerate() {
        if inputs[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(Error::InvalidArgument(format!("tensor {name} is given twice")));
        }
        let outlet = declared
            .iter()
            .find(|outlet| outlet.name() == name)
            .ok_or_else(|| Error::InvalidArgument(format!("the graph has no input {name} (it has: {})", names())))?;
        check_input(outlet, tensor)?;
    }
    for outlet in declared {
        if !inputs.iter().any(|(name, _)| name == outlet.name()) {
            return Err(Error::InvalidArgument(format!(
                "input {} is missing (needed: {})",
                outlet.name(),
                names()
            )));
        }
    }
    Ok(())
}

fn check_input(outlet: &Outlet, tensor: &Tensor) -> Result<(), Error> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(Error::InvalidArgument(format!(
            "input {name} is not a tensor, which is not supported"
        )));
    };
    let given = match &tensor.data {
        TensorData::F32(_) => TensorElementType::Float32,
        TensorData::I64(_) => TensorElementType::Int64,
        TensorData::I32(_) => TensorElementType::Int32,
        TensorData::U8(_) => TensorElementType::Uint8,
    };
    if *ty != given {
        return Err(Error::InvalidArgument(format!(
            "input {name} holds {ty} elements, got {}",
            tensor.data.type_name()
        )));
    }
    let fits = shape.len() == tensor.shape.len()
        && shape
            .iter()
            .zip(&tensor.shape)
            .all(|(wanted, got)| *wanted < 0 || *wanted == i64::from(*got));
    if fits {
        return Ok(());
    }
    let wanted: Vec<String> = shape
        .iter()
        .map(|size| if *size < 0 { "any".to_owned() } else { size.to_string() })
        .collect();
    Err(Error::InvalidArgument(format!(
        "input {name} has the shape [{}], got {:?}",
        wanted.join(", "),
        tensor.shape
    )))
}

fn into_native(tensor: Tensor) -> Result<SessionInputValue<'static>, Error> {
    let shape: Vec<i64> = tensor.shape.iter().map(|size| i64::from(*size)).collect();
    Ok(match tensor.data {
        TensorData::F32(data) => Native::from_array((shape, data)).map_err(native)?.into(),
        TensorData::I64(data) => Native::from_array((shape, data)).map_err(native)?.into(),
        TensorData::I32(data) => Native::from_array((shape, data)).map_err(native)?.into(),
        TensorData::U8(data) => Native::from_array((shape, data)).map_err(native)?.into(),
    })
}

fn from_native(name: &str, value: &DynValue) -> Result<Tensor, Error> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(Error::Native(format!("output {name} is not a tensor")));
    };
    let data = match ty {
        TensorElementType::Float32 => TensorData::F32(value.try_extract_tensor().map_err(native)?.1.to_vec()),
        TensorElementType::Int64 => TensorData::I64(value.try_extract_tensor().map_err(native)?.1.to_vec()),
        TensorElementType::Int32 => TensorData::I32(value.try_extract_tensor().map_err(native)?.1.to_vec()),
        TensorElementType::Uint8 => TensorData::U8(value.try_extract_tensor().map_err(native)?.1.to_vec()),
        other => {
            return Err(Error::Native(format!(
                "output {name} holds {other} elements, which are not supported"
            )));
        }
    };
    let shape = shape
        .iter()
        .map(|size| u32::try_from(*size).map_err(|error| Error::Native(format!("output {name}: {error}"))))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor { shape, data })
}

/// ONNX Runtime says which of its errors are about the input.
pub(crate) fn native(error: ort::Error) -> Error {
    match error.code() {
        ort::ErrorCode::InvalidArgument => Error::InvalidArgument(error.message().to_owned()),
        _ => Error::Native(error.message().to_owned()),
    }
}
