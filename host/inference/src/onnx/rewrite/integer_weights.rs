//! Lets products whose weights are stored as int8 compute with int8.
//!
//! **Problem.** Exporters store int8 weights as `MatMul(x, Mul(Cast(q), scale))`. ONNX Runtime folds the right side into
//! float32 when it loads the graph: four times the memory of the file, and float arithmetic.
//!
//! **Promise.** Each row of `x` is rounded to 8 bits between its own least and largest number, multiplied with the int8 weights as
//! they are (`MatMulIntegerToFloat`), and scaled back together with the bias and the GELU that follow; a table is looked up before
//! it is scaled.
//!
//! **Rejected.** `DynamicQuantizeMatMul`: it takes one scale for the whole batch: cosine 0.973 at worst, and a text's vector
//! would depend on its neighbours. A symmetric range for each row: as fast, 0.983 at worst. `MatMulNBits` with blocks of
//! 64: 0.998 at worst, but 1.25 times as fast as floats where this is more than twice as fast.

use std::collections::HashSet;

use super::graph_proto::{FLOAT, Graph, INT8, Node, UINT8};
use super::{Attribute, Edit, NewNode, RUNTIME, part};
use crate::onnx::operators::{self, rows};
use crate::onnx::protobuf::Message;

/// Constants that all products share.
const ONE: &[u8] = b"formwork/one";
const ZERO: &[u8] = b"formwork/zero";

/// int8 weights and their scales, by name.
#[derive(Clone, Copy)]
struct Weights<'a> {
    values: &'a [u8],
    scale: &'a [u8],
}

/// Replaces all such products and tables.
pub(super) fn replace(graph: &Graph<'_>, edit: &mut Edit) {
    let mut rounded: HashSet<&[u8]> = HashSet::new();
    let mut prepared: HashSet<&[u8]> = HashSet::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        match (node.operator, node.inputs.as_slice(), node.outputs.as_slice()) {
            (b"MatMul", &[left, right], &[output]) => {
                let Some(weights) = dequantised(graph, right) else {
                    continue;
                };
                let Some(columns) = columns(graph, weights) else {
                    continue;
                };
                if prepared.is_empty() {
                    edit.tensors.push(tensor(FLOAT, &[], ONE, &1.0_f32.to_le_bytes()));
                    edit.tensors.push(tensor(UINT8, &[], ZERO, &[0]));
                }
                if prepared.insert(weights.values) {
                    edit.tensors.extend(summed(graph, weights, columns));
                }
                if rounded.insert(left) {
                    edit.at.entry(index).or_default().push(round(left));
                }
                let end = end(graph, index, output, columns);
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

/// How many there are, if these are a product's weights with one scale a column.
fn columns(graph: &Graph<'_>, weights: Weights<'_>) -> Option<usize> {
    let (values, scale) = (graph.tensors.get(weights.values)?, graph.tensors.get(weights.scale)?);
    let &[rows, columns] = values.dims.as_slice() else {
        return None;
    };
    let scaled = matches!(scale.dims.as_slice(), [1, n] | [n] if *n == columns);
    let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
    let whole = values.data.len() == rows.checked_mul(columns)? && scale.data.len() == columns.checked_mul(4)?;
    (scaled && whole && rows > 0 && columns > 0).then_some(columns)
}

/// Whether this is a table with one scale a row.
fn is_table(graph: &Graph<'_>, weights: Weights<'_>) -> bool {
    let dims = |name| graph.tensors.get(name).map(|tensor| tensor.dims.as_slice());
    matches!((dims(weights.values), dims(weights.scale)), (Some([rows, _]), Some([scales, 1])) if rows == scales)
}

/// The scales of the columns as a list, and the sum of each column: what a row's least number contributes.
fn summed(graph: &Graph<'_>, weights: Weights<'_>, columns: usize) -> [Vec<u8>; 2] {
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

/// Where a product ends: with itself, the bias that is added to it, or the GELU of the sum.
struct End<'a> {
    node: usize,
    output: &'a [u8],
    bias: Option<&'a [u8]>,
    gelu: bool,
}

fn end<'a>(graph: &Graph<'a>, product: usize, output: &'a [u8], columns: usize) -> End<'a> {
    let bias = graph.only_reader(output, "Add").and_then(|index| {
        let node = &graph.nodes[index];
        let bias = other_input(node, output)?;
        let tensor = graph.tensors.get(bias)?;
        (tensor.kind == FLOAT && tensor.dims == [columns as u64]).then_some((index, bias, *node.outputs.first()?))
    });
    let (node, bias, output) = match bias {
        Some((node, bias, output)) => (node, Some(bias), output),
        None => (product, None, output),
    };
    match gelu(graph, output) {
        Some((node, output)) => End {
            node,
            output,
            bias,
            gelu: true,
        },
        None => End {
            node,
            output,
            bias,
            gelu: false,
        },
    }
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

/// Steps times weights, then as large as the rows' steps, with what the rows' least numbers add, and all up to the end.
fn product(left: &[u8], weights: Weights<'_>, output: &[u8], end: &End<'_>) -> [NewNode; 2] {
    let [scales, sums] = prepared_names(weights);
    let [rounded, least, step] = rounded_names(left);
    let whole = part(output, "whole");
    let mut parts = vec![whole.clone(), step, least, sums];
    parts.extend(end.bias.map(<[u8]>::to_vec));
    let multiplied = NewNode {
        domain: RUNTIME,
        operator: "MatMulIntegerToFloat",
        inputs: vec![rounded, weights.values.to_vec(), ONE.to_vec(), scales, ZERO.to_vec()],
        outputs: vec![whole],
        attributes: Vec::new(),
    };
    let scaled = NewNode {
        domain: operators::DOMAIN,
        operator: rows::SCALE_ROWS,
        inputs: parts,
        outputs: vec![end.output.to_vec()],
        attributes: vec![(rows::GELU, Attribute::Int(end.gelu.into()))],
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
