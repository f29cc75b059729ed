//! Headers of model files.
//!
//! The first byte says what the others are: a GGUF file, an ONNX file, or instructions by which an ONNX model is built that
//! has a tensor in another file, or has none. What the check lets pass is held against a reader that shares no code with it.

use std::cell::RefCell;
use std::io::{Seek, SeekFrom, Write};

use formwork_inference::{Error, Header};

use super::{EMPTY, OK};

const GGUF: u8 = 0;
const ONNX: u8 = 1;
const BUILT: u8 = 2;
const WAYS: u8 = 3;

const REFUSED: &str = "refused";
const ELSEWHERE: &str = "tensor-elsewhere";

/// Deepest nesting of built graphs; the check allows twice that.
const DEPTH: u8 = 8;

pub(super) fn run(input: &[u8]) -> &'static str {
    let Some((way, bytes)) = input.split_first() else {
        return EMPTY;
    };
    match way % WAYS {
        GGUF => {
            let file = [b"GGUF", bytes].concat();
            match check(&file) {
                Ok(Header::Gguf { .. }) => {
                    assert!(
                        gguf_is_within(&file, file.len() as u64),
                        "something lies outside of the file"
                    );
                    OK
                }
                Ok(other) => panic!("a GGUF file was taken for {other}"),
                Err(_) => REFUSED,
            }
        }
        ONNX => check(bytes).map_or(REFUSED, |_| OK),
        _ => {
            let mut builder = Builder {
                instructions: bytes,
                elsewhere: false,
            };
            let graph = builder.graph(DEPTH);
            // ir_version and an opset.
            let mut model = vec![0x08, 8];
            field(&mut model, 8, &[0x10, 17]);
            field(&mut model, 7, &graph);
            if builder.chance() {
                let node = builder.node(DEPTH);
                let mut function = Vec::new();
                field(&mut function, 7, &node);
                field(&mut model, 25, &function);
            }
            match (check(&model), builder.elsewhere) {
                (Ok(_), false) => OK,
                (Err(_), true) => ELSEWHERE,
                (Ok(_), true) => panic!("a tensor in another file was let pass"),
                (Err(error), false) => panic!("a model that is whole was refused: {error}"),
            }
        }
    }
}

fn check(file: &[u8]) -> Result<Header, Error> {
    // One file for each thread, written anew for each input.
    thread_local!(static FILE: RefCell<tempfile::NamedTempFile> =
        RefCell::new(tempfile::NamedTempFile::new().expect("a temporary file")));
    FILE.with_borrow_mut(|temporary| {
        let target = temporary.as_file_mut();
        target.set_len(0).expect("it can be cut");
        target.seek(SeekFrom::Start(0)).expect("it has a beginning");
        target.write_all(file).expect("it can be written");
        Header::read(temporary.path())
    })
}

/// Whether every string, array and tensor that a GGUF header announces lies within `size` bytes, of which `header` holds the
/// beginning; the rest is zeros. Written for plainness: it knows no limits.
#[must_use]
pub fn gguf_is_within(header: &[u8], size: u64) -> bool {
    Reader { header, at: 0, size }.file().is_some()
}

struct Reader<'a> {
    header: &'a [u8],
    at: u64,
    size: u64,
}

impl Reader<'_> {
    fn file(&mut self) -> Option<()> {
        self.skip(8)?;
        let (tensors, keys) = (self.number(8)?, self.number(8)?);
        let mut alignment = 32;
        for _ in 0..keys {
            let key = self.text()?;
            let kind = self.number(4)?;
            if key == b"general.alignment" {
                alignment = self.number(4)?;
            } else {
                self.value(kind)?;
            }
        }
        let mut ends = Vec::new();
        for _ in 0..tensors {
            self.text()?;
            let dimensions = self.number(4)?;
            let mut elements = 1_u64;
            for _ in 0..dimensions {
                elements = elements.checked_mul(self.number(8)?)?;
            }
            let (kind, offset) = (self.number(4)?, self.number(8)?);
            // A type takes a bit an element at the very least; those of whole bytes are known to everybody.
            let least = match kind {
                0 | 26 => elements.checked_mul(4)?,
                1 | 25 | 30 => elements.checked_mul(2)?,
                27 | 28 => elements.checked_mul(8)?,
                8 | 24 => elements,
                2 | 3 | 12 | 20 => elements / 2,
                _ => elements / 8,
            };
            ends.push(offset.checked_add(least)?);
        }
        let data = self.at.div_ceil(alignment).checked_mul(alignment)?;
        let fits = |end: &u64| data.checked_add(*end).is_some_and(|end| end <= self.size);
        ends.iter().all(fits).then_some(())
    }

    fn value(&mut self, kind: u64) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.skip(1),
            2 | 3 => self.skip(2),
            4..=6 => self.skip(4),
            10..=12 => self.skip(8),
            8 => self.text().map(drop),
            9 => {
                let (inner, count) = (self.number(4)?, self.number(8)?);
                (0..count).try_for_each(|_| self.value(inner))
            }
            _ => None,
        }
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = self.number(8)?;
        self.bytes(length)
    }

    fn number(&mut self, bytes: u64) -> Option<u64> {
        let bytes = self.bytes(bytes)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |number, byte| (number << 8) | u64::from(*byte)),
        )
    }

    /// The next bytes; those behind the part of the file that is at hand are zeros.
    fn bytes(&mut self, count: u64) -> Option<Vec<u8>> {
        let from = usize::try_from(self.at).ok()?;
        self.skip(count)?;
        let to = usize::try_from(self.at).ok()?;
        let held = self
            .header
            .get(from.min(self.header.len())..to.min(self.header.len()))?;
        let mut bytes = held.to_vec();
        bytes.resize(to - from, 0);
        Some(bytes)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(bytes).filter(|at| *at <= self.size)?;
        Some(())
    }
}

/// Builds a model by instructions; when there are none left, nothing more is added.
struct Builder<'a> {
    instructions: &'a [u8],
    /// A tensor was put into another file.
    elsewhere: bool,
}

impl Builder<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.instructions.split_first() else {
            return 0;
        };
        self.instructions = rest;
        *first
    }

    fn chance(&mut self) -> bool {
        self.next() % 2 == 1
    }

    fn graph(&mut self, depth: u8) -> Vec<u8> {
        let mut graph = Vec::new();
        for _ in 0..=self.next() % 3 {
            let node = self.node(depth);
            field(&mut graph, 1, &node);
        }
        for _ in 0..self.next() % 3 {
            let tensor = self.tensor();
            field(&mut graph, 5, &tensor);
        }
        if self.chance() {
            let sparse = self.sparse();
            field(&mut graph, 15, &sparse);
        }
        field(&mut graph, 12, b"\x0a\x01y");
        graph
    }

    fn node(&mut self, depth: u8) -> Vec<u8> {
        let mut node = Vec::new();
        field(&mut node, 4, b"Add");
        for _ in 0..self.next() % 3 {
            let mut attribute = Vec::new();
            field(&mut attribute, 1, b"a");
            let (number, value) = match self.next() % 6 {
                0 => (5, self.tensor()),
                1 => (10, self.tensor()),
                2 => (22, self.sparse()),
                3 if depth > 0 => (6, self.graph(depth - 1)),
                4 if depth > 0 => (11, self.graph(depth - 1)),
                // A text that looks like a tensor in another file is none.
                _ => (4, vec![0x70, 1]),
            };
            field(&mut attribute, number, &value);
            field(&mut node, 5, &attribute);
        }
        node
    }

    fn sparse(&mut self) -> Vec<u8> {
        let mut sparse = Vec::new();
        let number = 1 + u64::from(self.next() % 2);
        let tensor = self.tensor();
        field(&mut sparse, number, &tensor);
        sparse
    }

    fn tensor(&mut self) -> Vec<u8> {
        // One dimension of 1, float.
        let mut tensor = vec![0x08, 1, 0x10, 1];
        match self.next() {
            250 => {
                self.elsewhere = true;
                field(&mut tensor, 13, b"\x0a\x08location\x12\x06/other");
            }
            251 => {
                self.elsewhere = true;
                tensor.extend([0x70, 1]);
            }
            // The same number with a high bit that readers of an enum drop.
            252 => {
                self.elsewhere = true;
                tensor.extend([0x70, 0x81, 0x80, 0x80, 0x80, 0x10]);
            }
            253 => tensor.extend([0x70, 0]),
            _ => field(&mut tensor, 9, &[0, 0, 0x80, 0x3f]),
        }
        tensor
    }
}

/// Appends a field of bytes.
fn field(message: &mut Vec<u8>, number: u64, value: &[u8]) {
    varint(message, (number << 3) | 2);
    varint(message, value.len() as u64);
    message.extend(value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    message.push(value.to_le_bytes()[0]);
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |number: u32| number.to_le_bytes();
    let long = |number: u64| number.to_le_bytes();
    // Every kind of value, two tensors of which one is quantised.
    let keys = [
        [text("general.architecture"), number(8).to_vec(), text("llama")].concat(),
        [text("general.alignment"), number(4).to_vec(), number(32).to_vec()].concat(),
        [
            text("a"),
            number(9).to_vec(),
            number(8).to_vec(),
            long(2).to_vec(),
            text("x"),
            text("yz"),
        ]
        .concat(),
        [
            text("b"),
            number(9).to_vec(),
            number(5).to_vec(),
            long(3).to_vec(),
            vec![0; 12],
        ]
        .concat(),
        [text("c"), number(7).to_vec(), vec![1]].concat(),
        [text("d"), number(12).to_vec(), vec![0; 8]].concat(),
        [text("e"), number(3).to_vec(), vec![0; 2]].concat(),
    ];
    let tensor = |name: &str, sizes: &[u64], kind: u32, offset: u64| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| long(*size)).collect();
        let dimensions = u32::try_from(sizes.len() / 8).unwrap_or(0);
        [
            text(name),
            number(dimensions).to_vec(),
            sizes,
            number(kind).to_vec(),
            long(offset).to_vec(),
        ]
        .concat()
    };
    let tensors = [tensor("t", &[4, 2], 0, 0), tensor("q", &[64], 3, 32)];
    let gguf = |version: u32| {
        [
            vec![GGUF],
            number(version).to_vec(),
            long(tensors.len() as u64).to_vec(),
            long(keys.len() as u64).to_vec(),
            keys.concat(),
            tensors.concat(),
            // What is left to the next multiple of 32, both tensors, and a little more.
            vec![0; 31 + 32 + 40 + 8],
        ]
        .concat()
    };
    let mut model = vec![ONNX, 0x08, 8];
    field(&mut model, 8, &[0x10, 17]);
    let whole = Builder {
        instructions: &[2, 1, 0, 5, 2, 1, 9, 1, 1, 7, 0],
        elsewhere: false,
    }
    .graph(DEPTH);
    field(&mut model, 7, &whole);
    let mut seeds = vec![gguf(3), gguf(2), model];
    // Every place for a tensor, in this file and in another.
    for place in 0..6 {
        for tensor in [0, 250, 251, 252, 253] {
            seeds.push(vec![
                BUILT, 0, 1, place, tensor, tensor, 2, tensor, tensor, 1, 0, tensor,
            ]);
            seeds.push(vec![
                BUILT, 0, 1, 3, 0, 1, place, tensor, tensor, 1, tensor, 1, 1, 1, place, tensor,
            ]);
        }
    }
    seeds
}
