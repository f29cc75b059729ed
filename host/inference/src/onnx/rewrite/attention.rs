//! Makes attention one operator.
//!
//! **Problem.** Exporters write it as some twenty operators: heads are split off and turned, scores are computed, scaled, masked and
//! softened, sometimes guarded against NaN, and heads are joined again; each writes a matrix. **Promise.** Two ways of writing it are
//! known: that of `torch.onnx` with dynamo, and the plain one (keys turned at once, scores scaled before or after their product).
//! What else reads a part of it goes on reading it. **Rejected.** `MultiHeadAttention` of ONNX Runtime: it wants masks of another
//! shape.

use super::graph_proto::{Graph, Node};
use super::{Attribute, Edit, NewNode};
use crate::onnx::operators::{self, attention};

/// Where the heads' size and the tokens change places.
const HEADS_FIRST: &[i64] = &[0, 2, 1, 3];
const HEADS_FIRST_TURNED: &[i64] = &[0, 2, 3, 1];
const TURNED: &[i64] = &[0, 2, 1];

/// The names of an attention's result and queries, which are of one shape.
pub(super) struct Attended<'a> {
    pub(super) output: &'a [u8],
    pub(super) queries: &'a [u8],
}

/// Replaces all that is found; answers it.
pub(super) fn replace<'a>(graph: &Graph<'a>, edit: &mut Edit) -> Vec<Attended<'a>> {
    let mut attended = Vec::new();
    for softmax in graph.nodes.iter().filter(|node| node.operator == b"Softmax") {
        if let Some((end, node, names)) = find(graph, softmax) {
            edit.replaced.insert(end);
            edit.at.entry(end).or_default().push(node);
            attended.push(names);
        }
    }
    attended
}

/// Attention around its softmax: the node that ends it, what takes its place, and and their names.
fn find<'a>(graph: &Graph<'a>, softmax: &Node<'_>) -> Option<(usize, NewNode, Attended<'a>)> {
    if !matches!(softmax.attribute("axis").as_slice(), [] | [-1 | 3]) {
        return None;
    }
    let &[a, b] = graph.made_by(softmax.inputs.first()?, "Add")?.inputs.as_slice() else {
        return None;
    };
    let (scores, mask) = [(a, b), (b, a)]
        .into_iter()
        .find_map(|(scores, mask)| Some((Scores::find(graph, scores)?, mask)))?;
    let shares = *softmax.outputs.first()?;
    let (shares, guarded) = match guarded(graph, shares) {
        Some(guarded) => (guarded, true),
        None => (shares, false),
    };
    let seen = &graph.nodes[graph.only_reader(shares, "MatMul")?];
    let &[left, right] = seen.inputs.as_slice() else {
        return None;
    };
    let (value, value_size) = split(graph, right, HEADS_FIRST)?;
    let back = &graph.nodes[graph.only_reader(seen.outputs.first()?, "Transpose")?];
    let end = graph.only_reader(back.outputs.first()?, "Reshape")?;
    let joined = &graph.nodes[end];
    let fits = left == shares
        && value_size == scores.head_size
        && back.attribute("perm") == HEADS_FIRST
        && shape_length(graph, joined.inputs.get(1)?)? == 3;
    let output = *joined.outputs.first()?;
    let node = NewNode {
        domain: operators::DOMAIN,
        operator: attention::ATTEND,
        inputs: [scores.query, scores.key, value, mask].map(<[u8]>::to_vec).to_vec(),
        outputs: vec![output.to_vec()],
        attributes: vec![
            (attention::HEAD_SIZE, Attribute::Int(scores.head_size)),
            (attention::FACTOR, Attribute::Float(scores.factor)),
            (attention::GUARDED, Attribute::Int(guarded.into())),
        ],
    };
    let attended = Attended {
        output,
        queries: scores.query,
    };
    fits.then_some((end, node, attended))
}

/// A product of queries and keys.
struct Scores<'a> {
    query: &'a [u8],
    key: &'a [u8],
    head_size: i64,
    factor: f32,
}

impl<'a> Scores<'a> {
    fn find(graph: &Graph<'a>, name: &'a [u8]) -> Option<Self> {
        let (product, of_product) = unscaled(graph, name);
        let &[left, right] = graph.made_by(product, "MatMul")?.inputs.as_slice() else {
            return None;
        };
        let (left, of_left) = unscaled(graph, left);
        let (right, of_right) = unscaled(graph, right);
        let (query, head_size) = split(graph, left, HEADS_FIRST)?;
        let (key, key_size) = split(graph, right, HEADS_FIRST_TURNED).or_else(|| split_then_turned(graph, right))?;
        (head_size == key_size).then_some(Self {
            query,
            key,
            head_size,
            factor: of_product * of_left * of_right,
        })
    }
}

/// What is multiplied with numbers, and their product.
fn unscaled<'a>(graph: &Graph<'a>, mut name: &'a [u8]) -> (&'a [u8], f32) {
    let mut factor = 1.0;
    loop {
        let scaled = ["Mul", "Div"].into_iter().find_map(|operator| {
            let &[a, b] = graph.made_by(name, operator)?.inputs.as_slice() else {
                return None;
            };
            match (graph.scalar(a), graph.scalar(b)) {
                (None, Some(number)) if operator == "Div" => Some((a, 1.0 / number)),
                (None, Some(number)) => Some((a, number)),
                (Some(number), None) if operator == "Mul" => Some((b, number)),
                _ => None,
            }
        });
        let Some((inner, number)) = scaled else {
            return (name, factor);
        };
        (name, factor) = (inner, factor * number);
    }
}

/// What was split into heads of the last axis and turned in this order, and the size of a head.
fn split<'a>(graph: &Graph<'a>, name: &[u8], order: &[i64]) -> Option<(&'a [u8], i64)> {
    let turned = graph.made_by(name, "Transpose")?;
    if turned.attribute("perm") != order {
        return None;
    }
    let &[whole, shape] = graph.made_by(turned.inputs.first()?, "Reshape")?.inputs.as_slice() else {
        return None;
    };
    let last = match graph.made_by(shape, "Concat") {
        Some(concat) => graph.integers(concat.inputs.last()?)?,
        None => graph.integers(shape)?,
    };
    let size = *last.last()?;
    (shape_length(graph, shape)? == 4 && size > 0).then_some((whole, size))
}

/// The same for keys that are split first, and turned as matrices: three axes for that moment.
fn split_then_turned<'a>(graph: &Graph<'a>, name: &[u8]) -> Option<(&'a [u8], i64)> {
    let &[turned, _] = graph.made_by(name, "Reshape")?.inputs.as_slice() else {
        return None;
    };
    let turned = graph.made_by(turned, "Transpose")?;
    if turned.attribute("perm") != TURNED {
        return None;
    }
    let &[heads, _] = graph.made_by(turned.inputs.first()?, "Reshape")?.inputs.as_slice() else {
        return None;
    };
    split(graph, heads, HEADS_FIRST)
}

/// How many axes a shape has.
fn shape_length(graph: &Graph<'_>, shape: &[u8]) -> Option<usize> {
    match graph.made_by(shape, "Concat") {
        Some(concat) => Some(concat.inputs.len()),
        None => graph.integers(shape).map(|sizes| sizes.len()),
    }
}

/// Shares with zeros where they were NaN, if that is what is read of them.
fn guarded<'a>(graph: &Graph<'a>, shares: &[u8]) -> Option<&'a [u8]> {
    let guard = graph.readers(shares).iter().map(|index| &graph.nodes[*index]);
    let guard = guard.into_iter().find(|node| node.operator == b"Where")?;
    let &[condition, zero, otherwise] = guard.inputs.as_slice() else {
        return None;
    };
    let asked = graph.made_by(condition, "IsNaN")?;
    let fits = asked.inputs.first() == Some(&shares) && otherwise == shares && graph.scalar(zero) == Some(0.0);
    fits.then(|| guard.outputs.first().copied()).flatten()
}
