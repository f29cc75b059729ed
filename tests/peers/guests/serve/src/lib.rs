//! The peer for `wasmtime serve`: reads the body, validates it, answers JSON.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::StreamError;

/// Bytes asked for at once; the bench submission has 1 kB.
const READ_BYTES: u64 = 64 << 10;

/// Most bytes a stream takes in one write that waits.
const WRITE_BYTES: usize = 4096;

struct Serve;

impl Guest for Serve {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let (status, text) = match read(&request) {
            Some(body) => (200, formwork_peer_logic::answer(&body)),
            None => (400, r#"{"error":"the body could not be read"}"#.to_owned()),
        };
        send(answer, status, &text);
    }
}

fn read(request: &IncomingRequest) -> Option<Vec<u8>> {
    let body = request.consume().ok()?;
    let stream = body.stream().ok()?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(part) => bytes.extend(part),
            Err(StreamError::Closed) => return Some(bytes),
            Err(StreamError::LastOperationFailed(_)) => return None,
        }
    }
}

fn send(answer: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    // Neither can fail: the names are valid and the headers fresh. If they did, the client would see it.
    let _ = headers.set("content-type", &[b"application/json".to_vec()]);
    let _ = headers.set("content-length", &[text.len().to_string().into_bytes()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response.body();
    ResponseOutparam::set(answer, Ok(response));
    let Ok(body) = body else { return };
    if let Ok(stream) = body.write() {
        for part in text.as_bytes().chunks(WRITE_BYTES) {
            if stream.blocking_write_and_flush(part).is_err() {
                break;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

/// Called by Wizer before it saves the memory; nobody calls it in a component that was not pre-initialised.
#[unsafe(export_name = "wizer-initialize")]
pub extern "C" fn initialise() {
    formwork_peer_logic::initialise();
}

wasip2::http::proxy::export!(Serve);
