//! Lets a graph whose weights are stored as int8 compute with int8.
//!
//! **Problem.** Exporters store int8 weights as `MatMul(x, Mul(Cast(q), scale))`. ONNX Runtime folds the right side into
//! float32 when it loads the graph: four times the memory of the file, and float arithmetic.
//!
//! **Promise.** Such a product becomes `MatMulNBits` over the same int8 weights (blocks of 64 along the sum, activations
//! rounded to int8 block by block within a row), such a table is looked up before it is scaled. Everything else in the file
//! is copied byte by byte. A row's result never depends on the other rows of a batch. A graph in which the pattern does not
//! occur, or that holds subgraphs, is left alone.
//!
//! **Cost.** Vectors differ a little from float arithmetic over the same weights (all-MiniLM-L6-v2: cosine 0.999 in the
//! mean, 0.998 at worst); so only `inference.integer_arithmetic = true` asks for it: labels near a threshold change.
//!
//! **Rejected.** `DynamicQuantizeMatMul`: 1.7 times faster still, but it takes one scale for the whole batch: cosine 0.978
//! at worst, and a text's vector would depend on its neighbours.

use std::collections::{HashMap, HashSet};

use super::protobuf::{Field, Fields, Message, Value};

/// Numbers of the sum that share a scale; ONNX Runtime takes 16 to 256. Larger is faster and coarser (128: 7 % faster,
/// cosine 0.996 at worst), and above 64 the kernels for one row and for many round differently: a text alone would have
/// another vector than in a batch.
const BLOCK: usize = 64;
/// ONNX Runtime's level for int8 activations.
const INT8_ACCURACY: u64 = 4;
/// What int8 -128..127 is stored as: 0..255.
const OFFSET: u8 = 128;
/// The domain of ONNX Runtime's own operators.
const DOMAIN: &[u8] = b"com.microsoft";

const FLOAT: u64 = 1;
const INT8: u64 = 3;
const INT_ATTRIBUTE: u64 = 2;
const GRAPH_ATTRIBUTES: [u64; 2] = [6, 11];

struct Node<'a> {
    inputs: Vec<&'a [u8]>,
    outputs: Vec<&'a [u8]>,
    operator: &'a [u8],
    raw: &'a [u8],
    /// A node of another domain, or one that holds a graph.
    foreign: bool,
    holds_graph: bool,
}

struct Tensor<'a> {
    dims: Vec<u64>,
    kind: u64,
    data: &'a [u8],
}

/// int8 weights and their scales, by name.
#[derive(Clone, Copy)]
struct Weights<'a> {
    values: &'a [u8],
    scale: &'a [u8],
}

/// The file with the pattern replaced, or `None` if it does not occur. Errors are reasons.
pub(crate) fn rewrite(model: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut graph = None;
    let mut has_domain = false;
    for field in Fields(model) {
        match field? {
            Field {
                number: 7,
                value: Value::Bytes(bytes),
                ..
            } => graph = Some(bytes),
            Field {
                number: 8,
                value: Value::Bytes(opset),
                ..
            } => has_domain |= text(opset, 1)? == Some(DOMAIN),
            _ => {}
        }
    }
    let Some(graph) = graph.map(rewrite_graph).transpose()?.flatten() else {
        return Ok(None);
    };
    let mut out = Message(Vec::with_capacity(model.len() + model.len() / 8));
    for field in Fields(model) {
        let field = field?;
        if field.number == 7 {
            out.bytes(7, &graph);
        } else {
            out.0.extend_from_slice(field.raw);
        }
    }
    if !has_domain {
        let mut opset = Message::default();
        opset.bytes(1, DOMAIN).number(2, 1);
        out.bytes(8, &opset.0);
    }
    Ok(Some(out.0))
}

fn rewrite_graph(graph: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut nodes = Vec::new();
    let mut tensors: HashMap<&[u8], Tensor<'_>> = HashMap::new();
    let mut results: HashSet<&[u8]> = HashSet::new();
    for field in Fields(graph) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (1, Value::Bytes(node)) => nodes.push(read_node(node)?),
            (5, Value::Bytes(tensor)) => {
                if let Some((name, tensor)) = read_tensor(tensor)? {
                    tensors.insert(name, tensor);
                }
            }
            (12, Value::Bytes(output)) => results.extend(text(output, 1)?),
            _ => {}
        }
    }
    if nodes.iter().any(|node| node.holds_graph) {
        return Ok(None);
    }
    let dequantised = find_dequantised(&nodes, &tensors);
    let mut replaced: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut added: HashMap<&[u8], [Vec<u8>; 2]> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        match (
            node.foreign,
            node.operator,
            node.inputs.as_slice(),
            node.outputs.as_slice(),
        ) {
            (false, b"MatMul", [left, right], [output]) => {
                let Some(weights) = dequantised.get(right) else {
                    continue;
                };
                let Some([rows, columns]) = product_shape(weights, &tensors) else {
                    continue;
                };
                if !added.contains_key(weights.values) {
                    added.insert(weights.values, pack(weights, &tensors, rows, columns));
                }
                replaced.insert(index, product(left, weights, output, rows, columns));
            }
            (false, b"Gather", [table, _], [_]) => {
                let Some(weights) = dequantised.get(table) else {
                    continue;
                };
                if is_table(weights, &tensors) && has_default_axis(node.raw)? {
                    replaced.insert(index, look_up(node, weights));
                }
            }
            _ => {}
        }
    }
    if replaced.is_empty() {
        return Ok(None);
    }
    let dead = dead_nodes(&nodes, &replaced, &dequantised, &results);
    Ok(Some(write(graph, &nodes, &replaced, &added, &dead, &dequantised)?))
}

/// The tensors that are int8 weights times their scales, by name.
fn find_dequantised<'a>(nodes: &[Node<'a>], tensors: &HashMap<&'a [u8], Tensor<'a>>) -> HashMap<&'a [u8], Weights<'a>> {
    let kind = |name: &[u8]| tensors.get(name).map(|tensor| tensor.kind);
    let mut casts: HashMap<&[u8], &[u8]> = HashMap::new();
    let mut found = HashMap::new();
    for node in nodes.iter().filter(|node| !node.foreign) {
        match (node.operator, node.inputs.as_slice(), node.outputs.as_slice()) {
            (b"Cast", [from], [to]) if kind(from) == Some(INT8) => {
                casts.insert(to, from);
            }
            (b"Mul", [a, b], [product]) => {
                let pair = [(a, b), (b, a)]
                    .into_iter()
                    .find_map(|(cast, scale)| Some((*casts.get(cast)?, *scale)).filter(|_| kind(scale) == Some(FLOAT)));
                if let Some((values, scale)) = pair {
                    found.insert(*product, Weights { values, scale });
                }
            }
            _ => {}
        }
    }
    found
}

/// `[summed, columns]` if these are a product's weights with one scale a column.
fn product_shape(weights: &Weights<'_>, tensors: &HashMap<&[u8], Tensor<'_>>) -> Option<[usize; 2]> {
    let (values, scale) = (tensors.get(weights.values)?, tensors.get(weights.scale)?);
    let &[rows, columns] = values.dims.as_slice() else {
        return None;
    };
    let scaled = matches!(scale.dims.as_slice(), [1, n] | [n] if *n == columns);
    let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
    let whole = values.data.len() == rows.checked_mul(columns)? && scale.data.len() == columns.checked_mul(4)?;
    (scaled && whole && rows > 0 && rows % BLOCK == 0).then_some([rows, columns])
}

/// Whether this is a table with one scale a row.
fn is_table(weights: &Weights<'_>, tensors: &HashMap<&[u8], Tensor<'_>>) -> bool {
    let (Some(values), Some(scale)) = (tensors.get(weights.values), tensors.get(weights.scale)) else {
        return false;
    };
    matches!((values.dims.as_slice(), scale.dims.as_slice()), ([rows, _], [scales, 1]) if rows == scales)
}

/// The weights as `MatMulNBits` wants them: `[columns, blocks, BLOCK]` bytes, and a scale for each block.
fn pack(weights: &Weights<'_>, tensors: &HashMap<&[u8], Tensor<'_>>, rows: usize, columns: usize) -> [Vec<u8>; 2] {
    let data = |name: &[u8]| tensors.get(name).map_or(&[][..], |tensor| tensor.data);
    let (values, scales) = (data(weights.values), data(weights.scale));
    let blocks = rows / BLOCK;
    let mut packed = vec![0_u8; rows * columns];
    for (row, line) in values.chunks_exact(columns).enumerate() {
        for (column, value) in line.iter().enumerate() {
            packed[column * rows + row] = value.wrapping_add(OFFSET);
        }
    }
    let mut repeated = Vec::with_capacity(columns * blocks * 4);
    for scale in scales.chunks_exact(4) {
        for _ in 0..blocks {
            repeated.extend_from_slice(scale);
        }
    }
    let tensor = |kind, dims: &[usize], name: &[u8], data: &[u8]| {
        let mut message = Message::default();
        for size in dims {
            message.number(1, *size as u64);
        }
        message.number(2, kind).bytes(8, name).bytes(9, data);
        message.0
    };
    const UINT8: u64 = 2;
    let [packed_name, scales_name] = packed_names(weights);
    [
        tensor(UINT8, &[columns, blocks, BLOCK], &packed_name, &packed),
        tensor(FLOAT, &[columns, blocks], &scales_name, &repeated),
    ]
}

fn packed_names(weights: &Weights<'_>) -> [Vec<u8>; 2] {
    ["packed", "scales"].map(|part| [weights.values, b"/formwork/", part.as_bytes()].concat())
}

fn node(operator: &[u8], domain: &[u8], inputs: &[&[u8]], output: &[u8], numbers: &[(&str, u64)]) -> Vec<u8> {
    let mut node = Message::default();
    for input in inputs {
        node.bytes(1, input);
    }
    node.bytes(2, output)
        .bytes(3, &[output, b"/formwork"].concat())
        .bytes(4, operator);
    for (name, value) in numbers {
        let mut attribute = Message::default();
        attribute
            .bytes(1, name.as_bytes())
            .number(3, *value)
            .number(20, INT_ATTRIBUTE);
        node.bytes(5, &attribute.0);
    }
    node.bytes(7, domain);
    let mut field = Message::default();
    field.bytes(1, &node.0);
    field.0
}

fn product(left: &[u8], weights: &Weights<'_>, output: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let [packed, scales] = packed_names(weights);
    let numbers = [
        ("K", rows as u64),
        ("N", columns as u64),
        ("bits", 8),
        ("block_size", BLOCK as u64),
        ("accuracy_level", INT8_ACCURACY),
    ];
    node(b"MatMulNBits", DOMAIN, &[left, &packed, &scales], output, &numbers)
}

/// Rows of the int8 table times their scales.
fn look_up(gather: &Node<'_>, weights: &Weights<'_>) -> Vec<u8> {
    let (indices, output) = (gather.inputs[1], gather.outputs[0]);
    let part = |name: &str| [output, b"/formwork/", name.as_bytes()].concat();
    let (rows, scales, floats) = (part("rows"), part("row_scales"), part("floats"));
    [
        node(b"Gather", b"", &[weights.values, indices], &rows, &[]),
        node(b"Gather", b"", &[weights.scale, indices], &scales, &[]),
        node(b"Cast", b"", &[&rows], &floats, &[("to", FLOAT)]),
        node(b"Mul", b"", &[&floats, &scales], output, &[]),
    ]
    .concat()
}

/// Nodes that only made what nobody reads any more.
fn dead_nodes(
    nodes: &[Node<'_>],
    replaced: &HashMap<usize, Vec<u8>>,
    dequantised: &HashMap<&[u8], Weights<'_>>,
    results: &HashSet<&[u8]>,
) -> HashSet<usize> {
    let mut dead: HashSet<usize> = HashSet::new();
    // The product first, then the cast that it was made of.
    for _ in 0..2 {
        let read: HashSet<&[u8]> = nodes
            .iter()
            .enumerate()
            .filter(|(index, _)| !replaced.contains_key(index) && !dead.contains(index))
            .flat_map(|(_, node)| node.inputs.iter().copied())
            .collect();
        // What a replaced node still reads of the old graph is never one of these.
        let made: HashSet<&[u8]> = nodes
            .iter()
            .filter(|node| {
                node.outputs
                    .first()
                    .is_some_and(|output| dequantised.contains_key(output))
            })
            .flat_map(|node| node.inputs.iter().copied().chain(node.outputs.iter().copied()))
            .collect();
        for (index, node) in nodes.iter().enumerate() {
            let candidate = matches!(node.operator, b"Mul" | b"Cast")
                && node
                    .outputs
                    .iter()
                    .all(|output| made.contains(output) && !read.contains(output) && !results.contains(output));
            if candidate && !node.outputs.is_empty() {
                dead.insert(index);
            }
        }
    }
    dead
}

fn write(
    graph: &[u8],
    nodes: &[Node<'_>],
    replaced: &HashMap<usize, Vec<u8>>,
    added: &HashMap<&[u8], [Vec<u8>; 2]>,
    dead: &HashSet<usize>,
    dequantised: &HashMap<&[u8], Weights<'_>>,
) -> Result<Vec<u8>, String> {
    // Tensors of the pattern are copied only if something still reads them.
    let of_pattern: HashSet<&[u8]> = dequantised
        .values()
        .flat_map(|weights| [weights.values, weights.scale])
        .collect();
    let mut read: HashSet<&[u8]> = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        match (dead.contains(&index), replaced.contains_key(&index)) {
            (true, _) => {}
            (false, false) => read.extend(node.inputs.iter().copied()),
            (false, true) if node.operator == b"Gather" => {
                if let Some(weights) = node.inputs.first().and_then(|table| dequantised.get(table)) {
                    read.extend([weights.values, weights.scale]);
                }
            }
            (false, true) => {}
        }
    }
    let mut out = Message(Vec::with_capacity(graph.len() + graph.len() / 8));
    let mut index = 0;
    for field in Fields(graph) {
        let Field { number, value, raw } = field?;
        match (number, value) {
            (1, Value::Bytes(_)) => {
                match replaced.get(&index) {
                    Some(node) => out.0.extend_from_slice(node),
                    None if dead.contains(&index) => {}
                    None => out.0.extend_from_slice(raw),
                }
                index += 1;
            }
            (5, Value::Bytes(tensor)) => {
                let name = text(tensor, 8)?.unwrap_or_default();
                if !of_pattern.contains(name) || read.contains(name) {
                    out.0.extend_from_slice(raw);
                }
                for tensor in added.get(name).into_iter().flatten() {
                    out.bytes(5, tensor);
                }
            }
            _ => out.0.extend_from_slice(raw),
        }
    }
    Ok(out.0)
}

fn read_node(message: &[u8]) -> Result<Node<'_>, String> {
    let mut node = Node {
        inputs: Vec::new(),
        outputs: Vec::new(),
        operator: b"",
        raw: message,
        foreign: false,
        holds_graph: false,
    };
    for field in Fields(message) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (1, Value::Bytes(name)) => node.inputs.push(name),
            (2, Value::Bytes(name)) => node.outputs.push(name),
            (4, Value::Bytes(name)) => node.operator = name,
            (5, Value::Bytes(attribute)) => {
                for part in Fields(attribute) {
                    node.holds_graph |= GRAPH_ATTRIBUTES.contains(&part?.number);
                }
            }
            (7, Value::Bytes(domain)) => node.foreign = !domain.is_empty(),
            _ => {}
        }
    }
    Ok(node)
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

/// Whether a `Gather` looks up along the first axis.
fn has_default_axis(node: &[u8]) -> Result<bool, String> {
    for field in Fields(node) {
        let Field {
            number: 5,
            value: Value::Bytes(attribute),
            ..
        } = field?
        else {
            continue;
        };
        for part in Fields(attribute) {
            if let Field {
                number: 3,
                value: Value::Varint(axis),
                ..
            } = part?
                && axis != 0
            {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The bytes of a message's field.
fn text(message: &[u8], wanted: u64) -> Result<Option<&[u8]>, String> {
    let mut found = None;
    for field in Fields(message) {
        if let Field {
            number,
            value: Value::Bytes(bytes),
            ..
        } = field?
            && number == wanted
        {
            found = Some(bytes);
        }
    }
    Ok(found)
}
