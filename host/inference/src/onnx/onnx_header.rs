//! Walks the protobuf of an ONNX file before ONNX Runtime parses it.
//!
//! Promise: it is a `ModelProto` with a graph whose parts lie within the file, and it pulls in no
//! other file: no tensor in it, wherever it lies (initialisers, attributes of nodes, graphs within them, functions,
//! training graphs), has external data, which would escape the checksum. Cost: milliseconds. Rejected: a full
//! protobuf schema; ONNX Runtime validates the graph itself.

use super::protobuf::{Field, Fields, Value};

/// Deepest nesting of graphs within nodes: loops within loops. Real models have two or three.
const MAX_DEPTH: usize = 16;

/// What a sound file says.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) ir_version: u64,
    pub(crate) nodes: u64,
    pub(crate) initialisers: u64,
}

/// The messages that can hold tensors.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Function,
    Training,
    Tensor,
}

impl Message {
    /// What lies in a field of it; nothing for what holds no tensor.
    fn within(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            _ => return None,
        })
    }
}

/// What the bytes say, if they look like a self-contained ONNX model.
pub(crate) fn check(bytes: &[u8]) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let (mut graph, mut opsets, mut outputs) = (false, false, false);
    for field in Fields(bytes) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (1, Value::Varint(version)) => summary.ir_version = version,
            // Protobuf merges a message that comes twice.
            (7, Value::Bytes(message)) => {
                graph = true;
                for field in Fields(message) {
                    let field = field?;
                    summary.nodes += u64::from(field.number == 1);
                    summary.initialisers += u64::from(field.number == 5);
                    outputs |= field.number == 12;
                }
            }
            (8, Value::Bytes(_)) => opsets = true,
            _ => {}
        }
    }
    if summary.ir_version == 0 || !opsets {
        return Err("no ir_version or no opset: not an ONNX model".to_owned());
    }
    if !graph {
        return Err("the model has no graph".to_owned());
    }
    if summary.nodes == 0 || !outputs {
        return Err("the graph has no nodes or no outputs".to_owned());
    }
    no_other_file(Message::Model, bytes, MAX_DEPTH)?;
    Ok(summary)
}

/// Every tensor lies in these bytes.
fn no_other_file(message: Message, bytes: &[u8], depth: usize) -> Result<(), String> {
    for field in Fields(bytes) {
        let Field { number, value, .. } = field?;
        match (message, number, value) {
            (Message::Tensor, 13, _) => return Err(elsewhere()),
            // An enum: a reader takes the low 32 bits, and whatever is not 0 is no place in this file.
            (Message::Tensor, 14, Value::Varint(place)) if place & 0xffff_ffff != 0 => return Err(elsewhere()),
            (_, _, Value::Bytes(inner)) => {
                let Some(within) = message.within(number) else { continue };
                let left = match within {
                    Message::Graph => depth
                        .checked_sub(1)
                        .ok_or_else(|| format!("graphs within graphs are more than {MAX_DEPTH} deep"))?,
                    _ => depth,
                };
                no_other_file(within, inner, left)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn elsewhere() -> String {
    "a tensor lies in another file, which no checksum covers".to_owned()
}
