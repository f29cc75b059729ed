//! Walks the outer protobuf of an ONNX file before ONNX Runtime parses it.
//!
//! Promise: it is a `ModelProto` with a graph whose parts lie within the file, and it pulls in no
//! other file (external tensor data would escape the checksum). Cost: milliseconds. Rejected: a full
//! protobuf schema; ONNX Runtime validates the graph itself.

use super::protobuf::{Field, Fields, Value};

/// `Ok` if the bytes look like a self-contained ONNX model.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut ir_version = 0;
    let mut graph = None;
    let mut opsets = 0;
    for field in Fields(bytes) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (1, Value::Varint(version)) => ir_version = version,
            (7, Value::Bytes(message)) => graph = Some(message),
            (8, Value::Bytes(_)) => opsets += 1,
            _ => {}
        }
    }
    if ir_version == 0 || opsets == 0 {
        return Err("no ir_version or no opset: not an ONNX model".to_owned());
    }
    check_graph(graph.ok_or("the model has no graph")?)
}

fn check_graph(graph: &[u8]) -> Result<(), String> {
    let (mut nodes, mut outputs) = (0, 0);
    for field in Fields(graph) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (1, Value::Bytes(_)) => nodes += 1,
            (12, Value::Bytes(_)) => outputs += 1,
            (5, Value::Bytes(tensor)) => check_tensor(tensor)?,
            _ => {}
        }
    }
    if nodes == 0 || outputs == 0 {
        return Err("the graph has no nodes or no outputs".to_owned());
    }
    Ok(())
}

fn check_tensor(tensor: &[u8]) -> Result<(), String> {
    for field in Fields(tensor) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (13, _) | (14, Value::Varint(1)) => {
                return Err("a tensor lies in another file, which no checksum covers".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}
