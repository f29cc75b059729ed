//! JSON Pointers (RFC 6901).

/// Whether a text is a JSON Pointer: empty, or segments that start with `/`, with `~` only as `~0` and `~1`.
pub fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && escapes
}

/// A member's name as one segment of a pointer, without its `/`.
pub fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
