//! Files with a JSON document a line.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::exit::Failure;

/// A line of the input.
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u64,
    /// Bytes of the file it took.
    pub(crate) bytes_read: u64,
    /// Its text without the line break, or why it is not one.
    pub(crate) content: Content,
}

/// The text of a line, or why it is not one.
pub(crate) type Content = Result<Vec<u8>, String>;

/// Lines with a bound on each; empty ones are passed over.
pub(crate) struct Lines {
    input: BufReader<Box<dyn Read>>,
    limit: usize,
    number: u64,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(input: Box<dyn Read>, limit: usize) -> Self {
        Self {
            input: BufReader::new(input),
            limit,
            number: 0,
            ended: false,
        }
    }

    /// Reads one line; what is over the limit is passed over, not kept.
    fn read(&mut self) -> std::io::Result<Option<(u64, Content)>> {
        use std::io::BufRead;
        let mut text = Vec::new();
        let mut read = 0_u64;
        let mut too_long = false;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            too_long = too_long || text.len() + part.len() > self.limit;
            if too_long {
                text.clear();
            } else {
                text.extend_from_slice(part);
            }
            let consumed = part.len() + usize::from(end.is_some());
            read += consumed as u64;
            self.input.consume(consumed);
            if end.is_some() {
                break;
            }
        }
        if read == 0 {
            return Ok(None);
        }
        let content = if too_long {
            Err(format!("longer than the limit of {} bytes", self.limit))
        } else {
            Ok(text)
        };
        Ok(Some((read, content)))
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        while !self.ended {
            self.number += 1;
            match self.read() {
                Ok(None) => self.ended = true,
                Ok(Some((_, Ok(text)))) if text.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Some((bytes_read, content))) => {
                    return Some(Line {
                        number: self.number,
                        bytes_read,
                        content,
                    });
                }
                Err(error) => {
                    self.ended = true;
                    let content = Err(format!("reading the input: {error}"));
                    return Some(Line {
                        number: self.number,
                        bytes_read: 0,
                        content,
                    });
                }
            }
        }
        None
    }
}

/// The file, or standard input for `-`; and its size, where it has one.
pub(crate) fn open_input(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = File::open(path).map_err(|error| not_readable(path, error))?;
    let bytes = file.metadata()?.len();
    Ok((Box::new(file), Some(bytes)))
}

/// Why an input cannot be read.
pub(crate) fn not_readable(path: &Path, error: std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound => Failure::NotFound(format!("no such file: {}", path.display())),
        _ => Failure::failed(anyhow::Error::new(error).context(path.display().to_string())),
    }
}
