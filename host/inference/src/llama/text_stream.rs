//! Turns token bytes into text that can be sent: never half a character, never beyond a stop string.
//!
//! Cost: text that may be the start of a stop string is held back until that is known. Rejected:
//! sending lossy text per token, which shows replacement characters for every split emoji.

#[derive(Debug)]
pub(crate) struct TextStream {
    stops: Vec<String>,
    /// Bytes of a character that is not complete yet.
    partial: Vec<u8>,
    /// Text that may be the start of a stop string.
    held: String,
}

impl TextStream {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            partial: Vec::new(),
            held: String::new(),
        }
    }

    /// Takes the bytes of one token; answers the text that is safe to send, and whether a stop
    /// string was met (then that is all the text there is).
    pub(crate) fn push(&mut self, piece: &[u8]) -> (String, bool) {
        self.partial.extend_from_slice(piece);
        self.decode();
        let stop = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = stop {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.possible_stop();
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text held back at the end of a generation. An incomplete character is dropped.
    pub(crate) fn rest(&self) -> &str {
        &self.held
    }

    fn decode(&mut self) {
        loop {
            match std::str::from_utf8(&self.partial) {
                Ok(text) => {
                    self.held.push_str(text);
                    self.partial.clear();
                    return;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    self.held.push_str(&String::from_utf8_lossy(&self.partial[..valid]));
                    match error.error_len() {
                        None => {
                            self.partial.drain(..valid);
                            return;
                        }
                        Some(invalid) => {
                            self.held.push(char::REPLACEMENT_CHARACTER);
                            self.partial.drain(..valid + invalid);
                        }
                    }
                }
            }
        }
    }

    /// Length of the longest tail that a stop string starts with.
    fn possible_stop(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| stop.char_indices().map(move |(at, _)| &stop[..at]))
            .filter(|start| self.held.ends_with(start))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::TextStream;

    #[test]
    fn a_character_is_sent_whole() {
        let mut stream = TextStream::new(Vec::new());
        let bytes = "é🙂".as_bytes();
        let sent: Vec<String> = bytes.iter().map(|byte| stream.push(&[*byte]).0).collect();
        assert_eq!(sent, ["", "é", "", "", "", "🙂"]);
    }

    #[test]
    fn text_before_a_split_stop_string_is_sent_and_nothing_after() {
        let mut stream = TextStream::new(vec!["END".to_owned()]);
        assert_eq!(stream.push(b"one E"), ("one ".to_owned(), false));
        assert_eq!(stream.push(b"N"), (String::new(), false));
        assert_eq!(stream.push(b"D two"), (String::new(), true));
    }

    #[test]
    fn held_text_that_is_no_stop_string_comes_out() {
        let mut stream = TextStream::new(vec!["END".to_owned()]);
        assert_eq!(stream.push(b"EN"), (String::new(), false));
        assert_eq!(stream.push(b"GINE E"), ("ENGINE ".to_owned(), false));
        assert_eq!(stream.rest(), "E");
    }

    #[test]
    fn invalid_bytes_become_replacement_characters() {
        let mut stream = TextStream::new(Vec::new());
        assert_eq!(stream.push(b"a\xffb"), ("a\u{fffd}b".to_owned(), false));
    }
}
