//! Lets products whose weights are stored as int8 compute with int8.
//!
//! **Problem.** Exporters store int8 weights as `MatMul(x, Mul(Cast(q), scale))`. ONNX Runtime folds the right side into
//! float32 when it loads the graph: four times the memory of the file, and float arithmetic.
//!
//! **Promise.** Each row of `x` is rounded to 8 bits between its own least and largest number, multiplied with the int8 weights as
//! they are (`MatMulInteger`), and scaled back together with what follows: the bias, the GELU, or the sum with other rows and its
//! norm, and the rounding for the next product. A table is looked up before it is scaled.
//!
//! **Rejected.** `DynamicQuantizeMatMul`: it takes one scale for the whole batch: cosine 0.973 at worst, and a text's vector
//! would depend on its neighbours. A symmetric range for each row: as fast, 0.983 at worst. `MatMulNBits` with blocks of
//! 64: 0.998 at worst, but 1.25 times as fast as floats where this is more than twice as fast.

use std::collections::{HashMap, HashSet};

use super::attention::Attended;
use super::graph_proto::{FLOAT, Graph, INT8, Node};
use super::{Attribute, Edit, NewNode, part};
use crate::onnx::operators::{self, rows};
use crate::onnx::protobuf::Message;

/// What `LayerNormalization` adds to a variance where it does not say.
const DEFAULT_EPSILON: f32 = 1e-5;

/// int8 weights and their scales, by name.
#[derive(Clone, Copy)]
struct Weights<'a> {
    values: &'a [u8],
    scale: &'a [u8],
}

/// Replaces all such products and tables; answers whether there are any.
pub(super) fn replace<'a>(graph: &Graph<'a>, attended: &[Attended<'a>], edit: &mut Edit) -> bool {
    let mut rows = Rows::default();
    rows.made.extend(attended.iter().map(|attended| {
        let made = Made {
            of: attended.queries,
            width: None,
        };
        (attended.output, made)
    }));
    let mut prepared: HashSet<&[u8]> = HashSet::new();
    let mut found = false;
    for (index, node) in graph.nodes.iter().enumerate() {
        match (node.operator, node.inputs.as_slice(), node.outputs.as_slice()) {
            (b"MatMul", &[left, right], &[output]) => {
                let Some(weights) = dequantised(graph, right) else {
                    continue;
                };
                let Some([width, columns]) = sizes(graph, weights) else {
                    continue;
                };
                found = true;
                if prepared.insert(weights.values) {
                    edit.tensors.extend(prepare(graph, weights, columns));
                }
                rows.round(left, index, edit);
                let made = Made {
                    of: left,
                    width: Some(width),
                };
                rows.made.insert(output, made);
                let end = end(graph, &rows, index, output, columns);
                rows.made.insert(end.output, made);
                rows.ends.insert(end.output, end.node);
                edit.replaced.insert(end.node);
                edit.at
                    .entry(end.node)
                    .or_default()
                    .extend(product(left, weights, output, &end));
            }
            (b"Gather", &[table, indices], &[output]) if node.attribute("axis").iter().all(|axis| *axis == 0) => {
                if let Some(weights) = dequantised(graph, table)
                    && is_table(graph, weights)
                {
                    found = true;
                    edit.replaced.insert(index);
                    edit.at
                        .entry(index)
                        .or_default()
                        .extend(look_up(weights, indices, output));
                }
            }
            _ => {}
        }
    }
    found
}

/// What is known about tensors whose rows are worked on one by one.
#[derive(Default)]
struct Rows<'a> {
    made: HashMap<&'a [u8], Made<'a>>,
    /// Where the node stands that ends a product with this.
    ends: HashMap<&'a [u8], usize>,
    rounded: HashSet<&'a [u8]>,
}

/// Each row is made of the row in the same place of another tensor.
#[derive(Clone, Copy)]
struct Made<'a> {
    of: &'a [u8],
    /// Numbers in such a row, if known.
    width: Option<usize>,
}

impl<'a> Rows<'a> {
    /// Sees to it that there is `left` as bytes before the node at `index`: made by the product that it comes from, if any.
    fn round(&mut self, left: &'a [u8], index: usize, edit: &mut Edit) {
        if !self.rounded.insert(left) {
            return;
        }
        let ends_with = |node: &&mut NewNode| node.operator == rows::SCALE_ROWS && node.outputs[0] == left;
        let maker = self.ends.get(left).and_then(|place| edit.at.get_mut(place));
        match maker.and_then(|nodes| nodes.iter_mut().find(ends_with)) {
            Some(maker) => {
                maker.outputs.extend(rounded_names(left));
                maker.attributes.push((rows::ROUND, Attribute::Int(1)));
            }
            None => edit.at.entry(index).or_default().push(round(left)),
        }
    }

    /// Whether a tensor of `width` columns that stems from `other`, row by row, has its shape.
    fn same_shape(&self, mut name: &'a [u8], other: &[u8], width: usize) -> bool {
        // In a file that is not in order they may go round in circles.
        for _ in 0..=self.made.len() {
            let Some(made) = self.made.get(name) else { break };
            if made.of == other {
                return made.width == Some(width);
            }
            name = made.of;
        }
        false
    }
}

/// What this is made of, if it is int8 weights times their scales.
fn dequantised<'a>(graph: &Graph<'a>, name: &[u8]) -> Option<Weights<'a>> {
    let stored = |name: &[u8], kind| graph.tensors.get(name).is_some_and(|tensor| tensor.kind == kind);
    let &[a, b] = graph.made_by(name, "Mul")?.inputs.as_slice() else {
        return None;
    };
    [(a, b), (b, a)].into_iter().find_map(|(cast, scale)| {
        let &[values] = graph.made_by(cast, "Cast")?.inputs.as_slice() else {
            return None;
        };
        (stored(values, INT8) && stored(scale, FLOAT)).then_some(Weights { values, scale })
    })
}

/// Rows and columns, if these are a product's weights with one scale a column.
fn sizes(graph: &Graph<'_>, weights: Weights<'_>) -> Option<[usize; 2]> {
    let (values, scale) = (graph.tensors.get(weights.values)?, graph.tensors.get(weights.scale)?);
    let &[rows, columns] = values.dims.as_slice() else {
        return None;
    };
    let scaled = matches!(scale.dims.as_slice(), [1, n] | [n] if *n == columns);
    let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
    let whole = values.data.len() == rows.checked_mul(columns)? && scale.data.len() == columns.checked_mul(4)?;
    (scaled && whole && rows > 0 && columns > 0).then_some([rows, columns])
}

/// Whether this is a table with one scale a row.
fn is_table(graph: &Graph<'_>, weights: Weights<'_>) -> bool {
    let dims = |name| graph.tensors.get(name).map(|tensor| tensor.dims.as_slice());
    matches!((dims(weights.values), dims(weights.scale)), (Some([rows, _]), Some([scales, 1])) if rows == scales)
}

/// The scales of the columns as a list, and the sum of each column: what a row's least number contributes.
fn prepare(graph: &Graph<'_>, weights: Weights<'_>, columns: usize) -> [Vec<u8>; 2] {
    let data = |name: &[u8]| graph.tensors.get(name).map_or(&[][..], |tensor| tensor.data);
    let (values, scales) = (data(weights.values), data(weights.scale));
    let mut sums = vec![0_i64; columns];
    for line in values.chunks_exact(columns) {
        for (sum, value) in sums.iter_mut().zip(line) {
            *sum += i64::from(value.cast_signed());
        }
    }
    let sums: Vec<u8> = sums
        .iter()
        .zip(scales.as_chunks::<4>().0)
        .flat_map(|(sum, scale)| (*sum as f32 * f32::from_le_bytes(*scale)).to_le_bytes())
        .collect();
    let [scales_name, sums_name] = prepared_names(weights);
    [
        tensor(FLOAT, &[columns], &scales_name, scales),
        tensor(FLOAT, &[columns], &sums_name, &sums),
    ]
}

fn prepared_names(weights: Weights<'_>) -> [Vec<u8>; 2] {
    ["scales", "sums"].map(|name| part(weights.values, name))
}

pub(super) fn tensor(kind: u64, dims: &[usize], name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut message = Message::default();
    for size in dims {
        message.number(1, *size as u64);
    }
    message.number(2, kind).bytes(8, name).bytes(9, data);
    message.0
}

/// Where a product ends: with itself, the bias that is added to it, or what becomes of the sum.
struct End<'a> {
    node: usize,
    output: &'a [u8],
    bias: Option<&'a [u8]>,
    then: Then<'a>,
}

/// What a product's rows become at last.
enum Then<'a> {
    Themselves,
    Gelu,
    /// They are added to others, and the sum is normalised.
    Norm {
        added: &'a [u8],
        gain: &'a [u8],
        offset: &'a [u8],
        epsilon: f32,
    },
}

fn end<'a>(graph: &Graph<'a>, rows: &Rows<'a>, product: usize, output: &'a [u8], columns: usize) -> End<'a> {
    let bias = graph.only_reader(output, "Add").and_then(|index| {
        let node = &graph.nodes[index];
        let bias = other_input(node, output)?;
        is_line(graph, bias, columns).then_some((index, bias, *node.outputs.first()?))
    });
    let (node, bias, biased) = match bias {
        Some((node, bias, biased)) => (node, Some(bias), biased),
        None => (product, None, output),
    };
    let gelu = || gelu(graph, biased).map(|(node, output)| (node, output, Then::Gelu));
    // An operator's inputs can be left out from the end only.
    let norm = || bias.and_then(|_| norm(graph, rows, output, biased, columns));
    let (node, output, then) = gelu().or_else(norm).unwrap_or((node, biased, Then::Themselves));
    End {
        node,
        output,
        bias,
        then,
    }
}

/// Whether the file stores one float a column under this name.
fn is_line(graph: &Graph<'_>, name: &[u8], columns: usize) -> bool {
    let tensor = graph.tensors.get(name);
    tensor.is_some_and(|tensor| tensor.kind == FLOAT && tensor.dims == [columns as u64])
}

/// The node that ends the sum of `x`, which stems from `product`, with rows of the same shape, and its `LayerNormalization`, if
/// nothing else reads what lies between; and its output.
fn norm<'a>(
    graph: &Graph<'a>,
    rows: &Rows<'a>,
    product: &'a [u8],
    x: &[u8],
    columns: usize,
) -> Option<(usize, &'a [u8], Then<'a>)> {
    let sum = &graph.nodes[graph.only_reader(x, "Add")?];
    let end = graph.only_reader(sum.outputs.first()?, "LayerNormalization")?;
    let node = &graph.nodes[end];
    let (&[_, gain, offset], &[output]) = (node.inputs.as_slice(), node.outputs.as_slice()) else {
        return None;
    };
    let added = other_input(sum, x)?;
    let fits = rows.same_shape(product, added, columns)
        && matches!(node.attribute("axis").as_slice(), [] | [-1])
        && is_line(graph, gain, columns)
        && is_line(graph, offset, columns);
    let then = Then::Norm {
        added,
        gain,
        offset,
        epsilon: node.float("epsilon").unwrap_or(DEFAULT_EPSILON),
    };
    fits.then_some((end, output, then))
}

/// The node that ends `x/2 (1 + erf(x/√2))`, in the ways in which exporters write it, if nothing else reads `x`; and its output.
fn gelu<'a>(graph: &Graph<'a>, x: &[u8]) -> Option<(usize, &'a [u8])> {
    const NEAR: f32 = 1e-4;
    let near = |name: &[u8], wanted: f32| {
        graph
            .scalar(name)
            .is_some_and(|number| (number / wanted - 1.0).abs() < NEAR)
    };
    let &[first, last] = graph.readers(x) else {
        return None;
    };
    if graph.results.contains(x) {
        return None;
    }
    let scaled = [first, last].into_iter().find_map(|index| {
        let node = &graph.nodes[index];
        let factor = other_input(node, x)?;
        let is_scaled = match node.operator {
            b"Div" => node.inputs.first() == Some(&x) && near(factor, std::f32::consts::SQRT_2),
            b"Mul" => near(factor, std::f32::consts::FRAC_1_SQRT_2),
            _ => false,
        };
        is_scaled.then(|| node.outputs.first().copied()).flatten()
    })?;
    let next = |name: &[u8], operator| {
        let index = graph.only_reader(name, operator)?;
        Some((index, *graph.nodes[index].outputs.first()?))
    };
    let (_, erf) = next(scaled, "Erf")?;
    let (plus, sum) = next(erf, "Add")?;
    if !near(other_input(&graph.nodes[plus], erf)?, 1.0) {
        return None;
    }
    // (sum * x) / 2, or (sum / 2) * x.
    let (one, product) = next(sum, "Mul")?;
    let (two, end) = next(product, "Mul")?;
    let factors = [
        other_input(&graph.nodes[one], sum)?,
        other_input(&graph.nodes[two], product)?,
    ];
    let halved = factors.iter().any(|factor| near(factor, 0.5)) && factors.contains(&x);
    halved.then_some((two, end))
}

/// The input of two that is not this one.
fn other_input<'a>(node: &Node<'a>, input: &[u8]) -> Option<&'a [u8]> {
    match *node.inputs.as_slice() {
        [a, b] if a == input => Some(b),
        [a, b] if b == input => Some(a),
        _ => None,
    }
}

/// Names of the rounded rows, their least numbers and their steps.
fn rounded_names(left: &[u8]) -> [Vec<u8>; 3] {
    ["rounded", "least", "step"].map(|name| part(left, name))
}

fn round(left: &[u8]) -> NewNode {
    NewNode {
        domain: operators::DOMAIN,
        operator: rows::ROUND_ROWS,
        inputs: vec![left.to_vec()],
        outputs: rounded_names(left).to_vec(),
        attributes: Vec::new(),
    }
}

/// Steps times weights, then all up to the end.
fn product(left: &[u8], weights: Weights<'_>, output: &[u8], end: &End<'_>) -> [NewNode; 2] {
    let [scales, sums] = prepared_names(weights);
    let [rounded, least, step] = rounded_names(left);
    let whole = part(output, "whole");
    let mut parts = vec![whole.clone(), step, least, scales, sums];
    parts.extend(end.bias.map(<[u8]>::to_vec));
    let attributes = match end.then {
        Then::Themselves => Vec::new(),
        Then::Gelu => vec![(rows::GELU, Attribute::Int(1))],
        Then::Norm {
            added,
            gain,
            offset,
            epsilon,
        } => {
            parts.extend([added, gain, offset].map(<[u8]>::to_vec));
            vec![(rows::EPSILON, Attribute::Float(epsilon))]
        }
    };
    let multiplied = NewNode {
        domain: "",
        operator: "MatMulInteger",
        inputs: vec![rounded, weights.values.to_vec()],
        outputs: vec![whole],
        attributes: Vec::new(),
    };
    let scaled = NewNode {
        domain: operators::DOMAIN,
        operator: rows::SCALE_ROWS,
        inputs: parts,
        outputs: vec![end.output.to_vec()],
        attributes,
    };
    [multiplied, scaled]
}

/// Rows of the int8 table times their scales.
fn look_up(weights: Weights<'_>, indices: &[u8], output: &[u8]) -> [NewNode; 4] {
    let [rows, scales, floats] = ["rows", "row_scales", "floats"].map(|name| part(output, name));
    let node = |operator, inputs: [&[u8]; 2], output: &[u8]| NewNode {
        domain: "",
        operator,
        inputs: inputs
            .iter()
            .filter(|input| !input.is_empty())
            .map(|input| input.to_vec())
            .collect(),
        outputs: vec![output.to_vec()],
        attributes: Vec::new(),
    };
    let mut cast = node("Cast", [&rows, &[]], &floats);
    cast.attributes.push(("to", Attribute::Int(FLOAT.cast_signed())));
    [
        node("Gather", [weights.values, indices], &rows),
        node("Gather", [weights.scale, indices], &scales),
        cast,
        node("Mul", [&floats, &scales], output),
    ]
}
