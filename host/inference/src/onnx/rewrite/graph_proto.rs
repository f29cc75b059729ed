//! A graph as it stands in its file, and looking around in it.

use std::collections::{HashMap, HashSet};

use crate::onnx::protobuf::{Field, Fields, Value};

/// Kinds of tensors, as ONNX numbers them.
pub(super) const FLOAT: u64 = 1;
pub(super) const INT8: u64 = 3;
pub(super) const INT64: u64 = 7;
/// The fields of an attribute that hold graphs.
const GRAPH_ATTRIBUTES: [u64; 2] = [6, 11];

/// Names are those of the file: bytes.
pub(super) struct Node<'a> {
    pub(super) inputs: Vec<&'a [u8]>,
    pub(super) outputs: Vec<&'a [u8]>,
    /// Empty for one of another domain than ONNX's.
    pub(super) operator: &'a [u8],
    raw: &'a [u8],
}

pub(super) struct Tensor<'a> {
    pub(super) dims: Vec<u64>,
    pub(super) kind: u64,
    pub(super) data: &'a [u8],
}

#[derive(Default)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// What is stored in the file, by name.
    pub(super) tensors: HashMap<&'a [u8], Tensor<'a>>,
    /// The names of what the graph answers.
    pub(super) results: HashSet<&'a [u8]>,
    makers: HashMap<&'a [u8], usize>,
    readers: HashMap<&'a [u8], Vec<usize>>,
}

impl<'a> Graph<'a> {
    /// `None` for a graph with graphs in its nodes: what they read cannot be seen here. Errors are reasons.
    pub(super) fn read(message: &'a [u8]) -> Result<Option<Self>, String> {
        let mut graph = Self::default();
        for field in Fields(message) {
            let Field { number, value, .. } = field?;
            match (number, value) {
                (1, Value::Bytes(node)) => {
                    let Some(node) = read_node(node)? else { return Ok(None) };
                    graph.nodes.push(node);
                }
                (5, Value::Bytes(tensor)) => graph.tensors.extend(read_tensor(tensor)?),
                (12, Value::Bytes(output)) => graph.results.extend(text(output, 1)?),
                _ => {}
            }
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            graph.makers.extend(node.outputs.iter().map(|output| (*output, index)));
            for input in &node.inputs {
                graph.readers.entry(input).or_default().push(index);
            }
        }
        Ok(Some(graph))
    }

    /// The node that makes it, if it is one of this operator.
    pub(super) fn made_by(&self, name: &[u8], operator: &str) -> Option<&Node<'a>> {
        let node = &self.nodes[*self.makers.get(name)?];
        (node.operator == operator.as_bytes()).then_some(node)
    }

    /// The nodes that read it.
    pub(super) fn readers(&self, name: &[u8]) -> &[usize] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only node that reads it, if it is one of this operator, and nothing else knows it.
    pub(super) fn only_reader(&self, name: &[u8], operator: &str) -> Option<usize> {
        match self.readers(name) {
            [one] if !self.results.contains(name) => Some(*one),
            _ => None,
        }
        .filter(|reader| self.nodes[*reader].operator == operator.as_bytes())
    }

    /// A number that is stored in the file.
    pub(super) fn scalar(&self, name: &[u8]) -> Option<f32> {
        let tensor = self.tensors.get(name).filter(|tensor| tensor.kind == FLOAT)?;
        let bytes = tensor.data.try_into().ok()?;
        tensor
            .dims
            .iter()
            .all(|size| *size == 1)
            .then(|| f32::from_le_bytes(bytes))
    }

    /// Whole numbers that are stored in the file.
    pub(super) fn integers(&self, name: &[u8]) -> Option<Vec<i64>> {
        let tensor = self.tensors.get(name).filter(|tensor| tensor.kind == INT64)?;
        let (numbers, rest) = tensor.data.as_chunks::<8>();
        rest.is_empty()
            .then(|| numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }
}

impl Node<'_> {
    /// The whole numbers of an attribute; none without it.
    pub(super) fn attribute(&self, name: &str) -> Vec<i64> {
        let mut found = Vec::new();
        for field in self.attribute_fields(name) {
            match (field.number, field.value) {
                (3 | 8, Value::Varint(number)) => found.push(number.cast_signed()),
                (8, Value::Bytes(packed)) => {
                    let mut packed = Fields(packed);
                    while let Some(number) = (!packed.0.is_empty()).then(|| packed.varint().ok()).flatten() {
                        found.push(number.cast_signed());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The float of an attribute.
    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.attribute_fields(name)
            .find_map(|field| match (field.number, field.value) {
                (2, Value::Fixed) => field.raw.last_chunk().map(|bytes| f32::from_le_bytes(*bytes)),
                _ => None,
            })
    }

    fn attribute_fields(&self, name: &str) -> impl Iterator<Item = Field<'_>> {
        let attributes = Fields(self.raw).flatten().filter_map(|field| match field {
            Field {
                number: 5,
                value: Value::Bytes(attribute),
                ..
            } => Some(attribute),
            _ => None,
        });
        let named = |attribute: &&[u8]| text(attribute, 1) == Ok(Some(name.as_bytes()));
        let mut named = attributes.filter(named);
        named
            .next()
            .into_iter()
            .flat_map(|attribute| Fields(attribute).flatten())
    }
}

fn read_node(message: &[u8]) -> Result<Option<Node<'_>>, String> {
    let mut node = Node {
        inputs: Vec::new(),
        outputs: Vec::new(),
        operator: b"",
        raw: message,
    };
    let mut foreign = false;
    for field in Fields(message) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (1, Value::Bytes(name)) => node.inputs.push(name),
            (2, Value::Bytes(name)) => node.outputs.push(name),
            (4, Value::Bytes(name)) => node.operator = name,
            (5, Value::Bytes(attribute)) => {
                for part in Fields(attribute) {
                    if GRAPH_ATTRIBUTES.contains(&part?.number) {
                        return Ok(None);
                    }
                }
            }
            (7, Value::Bytes(domain)) => foreign = !domain.is_empty(),
            _ => {}
        }
    }
    if foreign {
        node.operator = b"";
    }
    Ok(Some(node))
}

/// A tensor with its bytes in the one place that exporters use for weights.
fn read_tensor(message: &[u8]) -> Result<Option<(&[u8], Tensor<'_>)>, String> {
    let (mut name, mut data) = (None, None);
    let mut tensor = Tensor {
        dims: Vec::new(),
        kind: 0,
        data: &[],
    };
    for field in Fields(message) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (1, Value::Varint(size)) => tensor.dims.push(size),
            (1, Value::Bytes(packed)) => {
                let mut sizes = Fields(packed);
                while !sizes.0.is_empty() {
                    tensor.dims.push(sizes.varint()?);
                }
            }
            (2, Value::Varint(kind)) => tensor.kind = kind,
            (8, Value::Bytes(text)) => name = Some(text),
            (9, Value::Bytes(bytes)) => data = Some(bytes),
            _ => {}
        }
    }
    Ok(name.zip(data).map(|(name, data)| (name, Tensor { data, ..tensor })))
}

/// The bytes of a message's field.
pub(super) fn text(message: &[u8], wanted: u64) -> Result<Option<&[u8]>, String> {
    last(message, wanted, |value| match value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    })
}

/// The number in a message's field; 0 without one.
pub(super) fn number(message: &[u8], wanted: u64) -> Result<u64, String> {
    let found = last(message, wanted, |value| match value {
        Value::Varint(number) => Some(number),
        _ => None,
    });
    found.map(Option::unwrap_or_default)
}

/// Of a field that comes several times, the last one counts.
fn last<'a, T>(message: &'a [u8], wanted: u64, pick: impl Fn(Value<'a>) -> Option<T>) -> Result<Option<T>, String> {
    let mut found = None;
    for field in Fields(message) {
        let field = field?;
        if field.number == wanted {
            found = pick(field.value).or(found);
        }
    }
    Ok(found)
}
