//! Makes graphs with int8 weights faster, before ONNX Runtime loads them.
//!
//! **Promise.** Products of int8 weights become products of integers together with the bias, GELU or norm that follows them
//! ([`integer_weights`]), and attention becomes one operator ([`attention`]). What nothing reads any more is left out;
//! everything else in the file is copied byte by byte. A row's result never depends on the other rows of a batch. A graph
//! without such weights, or with graphs in its nodes, is left alone, and so is every graph on a CPU without instructions for it
//! ([`pays`]).
//!
//! **Cost.** Vectors differ a little from float arithmetic over the same weights: cosine 0.999 in the mean, 0.994 at worst
//! of 500 texts for all-MiniLM-L6-v2, a half as much again as the int8 weights themselves differ from the original ones.
//! Rounding makes large what is small: CPUs whose float kernels differ in the last digit have vectors that differ as much.

mod attention;
mod graph_proto;
mod integer_weights;

use std::collections::{BTreeMap, HashSet};

use super::operators;
use super::protobuf::{Field, Fields, Message, Value};
use graph_proto::{Graph, number, text};

/// The first version of ONNX's operators with which all that is looked for means what is written here.
const FIRST_OPSET: u64 = 13;

/// How protobuf numbers the kinds of attributes.
const FLOAT_ATTRIBUTE: u64 = 1;
const INT_ATTRIBUTE: u64 = 2;

/// What becomes of a graph.
#[derive(Default)]
struct Edit {
    /// Nodes to be put where one of the file's stands.
    at: BTreeMap<usize, Vec<NewNode>>,
    /// Nodes of the file whose results others make now.
    replaced: HashSet<usize>,
    /// Tensors to be stored, encoded.
    tensors: Vec<Vec<u8>>,
}

struct NewNode {
    domain: &'static str,
    operator: &'static str,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    attributes: Vec<(&'static str, Attribute)>,
}

enum Attribute {
    Int(i64),
    Float(f32),
}

/// The file with all that was found replaced, or `None` if there was nothing. Errors are reasons.
pub(crate) fn rewrite(model: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut graph = None;
    let mut version = 0;
    for field in Fields(model) {
        let Field {
            number: field, value, ..
        } = field?;
        match (field, value) {
            (7, Value::Bytes(bytes)) => graph = Some(bytes),
            (8, Value::Bytes(opset)) if text(opset, 1)?.unwrap_or_default().is_empty() => version = number(opset, 2)?,
            _ => {}
        }
    }
    if version < FIRST_OPSET {
        return Ok(None);
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
    let mut opset = Message::default();
    opset.bytes(1, operators::DOMAIN.as_bytes()).number(2, 1);
    out.bytes(8, &opset.0);
    Ok(Some(out.0))
}

fn rewrite_graph(message: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let Some(graph) = Graph::read(message)? else {
        return Ok(None);
    };
    let mut edit = Edit::default();
    let attended = attention::replace(&graph, &mut edit);
    if !integer_weights::replace(&graph, &attended, &mut edit) {
        return Ok(None);
    }
    write(message, &graph, &edit).map(Some)
}

fn write(message: &[u8], graph: &Graph<'_>, edit: &Edit) -> Result<Vec<u8>, String> {
    let (live, read) = live(graph, edit);
    let mut out = Message(Vec::with_capacity(message.len() + message.len() / 8));
    let mut index = 0;
    for field in Fields(message) {
        let Field { number, value, raw } = field?;
        match (number, value) {
            (1, Value::Bytes(_)) => {
                for node in edit.at.get(&index).into_iter().flatten() {
                    out.bytes(1, &node.encoded(&read));
                }
                if live.contains(&index) {
                    out.0.extend_from_slice(raw);
                }
                index += 1;
            }
            (5, Value::Bytes(tensor)) => {
                if read.contains(text(tensor, 8)?.unwrap_or_default()) {
                    out.0.extend_from_slice(raw);
                }
            }
            _ => out.0.extend_from_slice(raw),
        }
    }
    for tensor in &edit.tensors {
        out.bytes(5, tensor);
    }
    Ok(out.0)
}

/// The nodes of the file whose results are read in the end, and the names of all that is read.
fn live<'a>(graph: &'a Graph<'_>, edit: &'a Edit) -> (HashSet<usize>, HashSet<&'a [u8]>) {
    let mut live = HashSet::new();
    let mut read: HashSet<&[u8]> = graph.results.iter().copied().collect();
    // Nodes stand behind those that they read.
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if !edit.replaced.contains(&index) && node.outputs.iter().any(|output| read.contains(output)) {
            live.insert(index);
            read.extend(node.inputs.iter().copied());
        }
        let new = edit.at.get(&index).into_iter().flatten();
        read.extend(new.flat_map(|node| node.inputs.iter().map(Vec::as_slice)));
    }
    (live, read)
}

impl NewNode {
    /// Without a name for an output that nobody reads: it is not made then.
    fn encoded(&self, read: &HashSet<&[u8]>) -> Vec<u8> {
        let mut node = Message::default();
        for input in &self.inputs {
            node.bytes(1, input);
        }
        for output in &self.outputs {
            node.bytes(2, if read.contains(output.as_slice()) { output } else { b"" });
        }
        let name = self.outputs.first().map_or(&[][..], Vec::as_slice);
        node.bytes(3, &part(name, "node")).bytes(4, self.operator.as_bytes());
        for (name, value) in &self.attributes {
            let mut attribute = Message::default();
            attribute.bytes(1, name.as_bytes());
            match value {
                Attribute::Int(value) => attribute.number(3, value.cast_unsigned()).number(20, INT_ATTRIBUTE),
                Attribute::Float(value) => attribute.float(2, *value).number(20, FLOAT_ATTRIBUTE),
            };
            node.bytes(5, &attribute.0);
        }
        node.bytes(7, self.domain.as_bytes());
        node.0
    }
}

/// The name of what stands for `name` in the rewritten graph.
fn part(name: &[u8], part: &str) -> Vec<u8> {
    [name, b"/formwork/", part.as_bytes()].concat()
}

/// Whether this CPU multiplies 8-bit numbers and adds up the products in one instruction. Without, ONNX Runtime's kernels
/// for signed weights add pairs in 16 bits, which overflow, and gain little.
pub(crate) fn pays() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("dotprod")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test that cannot go on says where"
    )]

    use super::graph_proto::{FLOAT, INT8, INT64};
    use super::integer_weights::tensor;
    use super::{Field, Fields, Message, Value, rewrite, text};
    use crate::onnx::test_files;

    /// The operators of a model, with what else becomes of the rows of a product.
    fn operators(model: &[u8]) -> Vec<String> {
        let graph = within(model, 7).pop().unwrap();
        let named = within(graph, 1).into_iter().map(|node| {
            let attributes = within(node, 5);
            let attributes = attributes.iter().map(|attribute| text(attribute, 1).unwrap().unwrap());
            let extras = attributes.filter(|name| [&b"gelu"[..], b"epsilon", b"round"].contains(name));
            let parts = [text(node, 4).unwrap().unwrap()].into_iter().chain(extras);
            String::from_utf8(parts.collect::<Vec<_>>().join(&b' ')).unwrap()
        });
        let mut named: Vec<String> = named.collect();
        named.sort_unstable();
        named
    }

    fn within(message: &[u8], wanted: u64) -> Vec<&[u8]> {
        let fields = Fields(message).map(|field| field.unwrap());
        fields
            .filter_map(|field| match field {
                Field {
                    number,
                    value: Value::Bytes(bytes),
                    ..
                } if number == wanted => Some(bytes),
                _ => None,
            })
            .collect()
    }

    fn node(operator: &str, inputs: &[&str], output: &str, perm: &[u64]) -> Vec<u8> {
        let mut node = Message::default();
        for input in inputs {
            node.bytes(1, input.as_bytes());
        }
        node.bytes(2, output.as_bytes()).bytes(4, operator.as_bytes());
        if !perm.is_empty() {
            let mut attribute = Message::default();
            attribute.bytes(1, b"perm").number(20, 7);
            for axis in perm {
                attribute.number(8, *axis);
            }
            node.bytes(5, &attribute.0);
        }
        node.0
    }

    /// A layer as `scripts/converter` writes it; what begins with `w` is read from int8 weights.
    fn plain_layer(edit: impl Fn(&mut Vec<Vec<u8>>)) -> Vec<u8> {
        let mut graph = Message::default();
        let mut nodes = Vec::new();
        for weights in ["wq", "wk", "wv", "wa", "wi", "wo"] {
            let [values, wide, scale] = ["int8", "wide", "scale"].map(|part| format!("{weights}/{part}"));
            graph.bytes(5, &tensor(INT8, &[4, 4], values.as_bytes(), &[1; 16]));
            graph.bytes(5, &tensor(FLOAT, &[1, 4], scale.as_bytes(), &[0; 16]));
            nodes.push(node("Cast", &[&values], &wide, &[]));
            nodes.push(node("Mul", &[&wide, &scale], weights, &[]));
        }
        let integers = |numbers: &[i64]| {
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        for line in ["bias", "gain", "offset"] {
            graph.bytes(5, &tensor(FLOAT, &[4], line.as_bytes(), &[0; 16]));
        }
        graph.bytes(5, &tensor(INT64, &[4], b"split", &integers(&[0, 0, 2, 2])));
        graph.bytes(5, &tensor(INT64, &[3], b"joined", &integers(&[0, 0, 4])));
        for (name, number) in [
            ("half", 0.5),
            ("one", 1.0),
            ("root", std::f32::consts::FRAC_1_SQRT_2),
            ("scale", 0.7),
        ] {
            graph.bytes(5, &tensor(FLOAT, &[], name.as_bytes(), &f32::to_le_bytes(number)));
        }
        for (part, perm) in [("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])] {
            let [matmul, linear, heads, turned] =
                ["matmul", "linear", "heads", "turned"].map(|step| format!("{part}/{step}"));
            nodes.push(node("MatMul", &["x", &format!("w{part}")], &matmul, &[]));
            nodes.push(node("Add", &[&matmul, "bias"], &linear, &[]));
            nodes.push(node("Reshape", &[&linear, "split"], &heads, &[]));
            nodes.push(node("Transpose", &[&heads], &turned, &perm));
        }
        nodes.extend([
            node("MatMul", &["q/turned", "k/turned"], "scores", &[]),
            node("Mul", &["scores", "scale"], "scaled", &[]),
            node("Add", &["scaled", "mask"], "masked", &[]),
            node("Softmax", &["masked"], "shares", &[]),
            node("MatMul", &["shares", "v/turned"], "seen", &[]),
            node("Transpose", &["seen"], "back", &[0, 2, 1, 3]),
            node("Reshape", &["back", "joined"], "attended", &[]),
            node("MatMul", &["attended", "wa"], "out/matmul", &[]),
            node("Add", &["out/matmul", "bias"], "out", &[]),
            node("Add", &["x", "out"], "sum", &[]),
            node("LayerNormalization", &["sum", "gain", "offset"], "normed", &[]),
            node("MatMul", &["normed", "wi"], "inner/matmul", &[]),
            node("Add", &["inner/matmul", "bias"], "inner", &[]),
            node("Mul", &["inner", "root"], "in", &[]),
            node("Erf", &["in"], "erf", &[]),
            node("Add", &["erf", "one"], "up", &[]),
            node("Mul", &["inner", "up"], "twice", &[]),
            node("Mul", &["twice", "half"], "bent", &[]),
            node("MatMul", &["bent", "wo"], "outer/matmul", &[]),
            node("Add", &["outer/matmul", "bias"], "outer", &[]),
            node("Add", &["outer", "normed"], "outer/sum", &[]),
            node("LayerNormalization", &["outer/sum", "gain", "offset"], "y", &[]),
        ]);
        edit(&mut nodes);
        for node in nodes {
            graph.bytes(1, &node);
        }
        let mut output = Message::default();
        output.bytes(1, b"y");
        graph.bytes(12, &output.0);
        let mut opset = Message::default();
        opset.bytes(1, b"").number(2, 17);
        let mut model = Message::default();
        model.bytes(8, &opset.0).bytes(7, &graph.0);
        model.0
    }

    #[test]
    fn a_plain_layer_becomes_products_of_integers_around_one_attention() {
        let written = rewrite(&plain_layer(|_| {})).unwrap().expect("it is rewritten");
        let mut wanted = [
            &["Attend"][..],
            &["MatMulInteger"; 6],
            // Of what comes in, and of what was attended.
            &["RoundRows"; 2],
            &["ScaleRows"; 3],
            &["ScaleRows epsilon round", "ScaleRows gelu round", "ScaleRows epsilon"],
        ]
        .concat();
        wanted.sort_unstable();
        assert_eq!(operators(&written), wanted);
    }

    #[test]
    fn what_is_not_quite_the_pattern_stays() {
        let replaced = |from: &[u8], to: &[u8]| {
            let written = rewrite(&plain_layer(|nodes| {
                let old = nodes.iter_mut().find(|node| *node == from).expect("it is there");
                *old = to.to_vec();
            }));
            operators(&written.unwrap().expect("it is rewritten"))
        };
        let count = |operators: &[String], name: &str| operators.iter().filter(|operator| *operator == name).count();
        let turned = node("Transpose", &["seen"], "back", &[0, 1, 2, 3]);
        let other = replaced(&node("Transpose", &["seen"], "back", &[0, 2, 1, 3]), &turned);
        assert_eq!((count(&other, "Attend"), count(&other, "Softmax")), (0, 1));
        let other = replaced(
            &node("Mul", &["twice", "half"], "bent", &[]),
            &node("Mul", &["twice", "scale"], "bent", &[]),
        );
        assert_eq!((count(&other, "ScaleRows gelu round"), count(&other, "Erf")), (0, 1));
        // Somebody else reads the product, so the bias is added by itself.
        let other = replaced(
            &node("MatMul", &["bent", "wo"], "outer/matmul", &[]),
            &node("Add", &["bent", "inner/matmul"], "outer/matmul", &[]),
        );
        assert_eq!((count(&other, "ScaleRows gelu"), count(&other, "Erf")), (0, 1));
        // What is added may be of another shape: nothing says that the product stems from it.
        let other = replaced(
            &node("Add", &["x", "out"], "sum", &[]),
            &node("Add", &["mask", "out"], "sum", &[]),
        );
        let norms = ["ScaleRows epsilon round", "ScaleRows epsilon", "LayerNormalization"];
        assert_eq!(norms.map(|name| count(&other, name)), [0, 1, 1]);
    }

    #[test]
    fn the_encoder_of_the_demo_is_rewritten_as_a_whole() {
        let model = test_files::model("all-MiniLM-L6-v2-int8.onnx");
        let written = operators(&rewrite(&model).unwrap().expect("it is rewritten"));
        let count = |name: &str| written.iter().filter(|operator| *operator == name).count();
        let kinds = [
            "Attend",
            "MatMulInteger",
            "RoundRows",
            "ScaleRows",
            "ScaleRows gelu round",
            "ScaleRows epsilon round",
            "ScaleRows epsilon",
            "LayerNormalization epsilon",
        ];
        // The first norm follows the tables, the last rows are not rounded.
        assert_eq!(kinds.map(count), [6, 36, 7, 18, 6, 11, 1, 1]);
        assert_eq!(["MatMul", "Softmax", "Erf", "Transpose"].map(count), [0; 4]);
    }
}
