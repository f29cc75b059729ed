//! Walks the outer protobuf of an ONNX file before ONNX Runtime parses it.
//!
//! Promise: it is a `ModelProto` with a graph whose parts lie within the file, and it pulls in no
//! other file (external tensor data would escape the checksum). Cost: milliseconds. Rejected: a full
//! protobuf schema; ONNX Runtime validates the graph itself.

/// `Ok` if the bytes look like a self-contained ONNX model.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut ir_version = 0;
    let mut graph = None;
    let mut opsets = 0;
    for field in Fields(bytes) {
        match field? {
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
        match field? {
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
        match field? {
            (13, _) | (14, Value::Varint(1)) => {
                return Err("a tensor lies in another file, which no checksum covers".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of one protobuf message; ends at the first malformed one, with an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            other => return Err(format!("protobuf wire type {other} is not used by ONNX")),
        };
        if key >> 3 == 0 {
            return Err("protobuf field number 0".to_owned());
        }
        Ok((key >> 3, value))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("the protobuf ends within a number")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a protobuf number has more than 10 bytes".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.0.len() {
            return Err(format!(
                "a protobuf field announces {length} bytes, {} are left",
                self.0.len()
            ));
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }
}
