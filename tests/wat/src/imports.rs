//! Imports a guest may declare, by the name its code calls them.
//!
//! Parameters are those of the canonical ABI: a string or list is address and length, a result that does not fit one
//! value goes to the address in the last parameter.

/// `$log` (level, message, fields).
pub const LOG: &str = r#"(import "formwork:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#;

/// `$report` (done, total, message).
pub const PROGRESS: &str =
    r#"(import "formwork:plugin/progress@1.0.0" "report" (func $report (param i64 i64 i32 i32)))"#;

/// `$embed` (model, texts, result).
pub const EMBED: &str =
    r#"(import "formwork:plugin/embeddings@1.0.0" "embed" (func $embed (param i32 i32 i32 i32 i32)))"#;

/// `$start` (model, system, prompt, max-tokens, temperature, seed, stop, json-schema, result), `$next` and `$summary`
/// (completion, result), `$drop_completion`.
pub const GENERATION: &str = r#"
    (import "formwork:plugin/generation@1.0.0" "start" (func $start_generation
      (param i32 i32 i32 i32 i32 i32 i32 f32 i64 i32 i32 i32 i32 i32 i32)))
    (import "formwork:plugin/generation@1.0.0" "[method]completion.next" (func $next (param i32 i32)))
    (import "formwork:plugin/generation@1.0.0" "[method]completion.summary" (func $summary (param i32 i32)))
    (import "formwork:plugin/generation@1.0.0" "[resource-drop]completion" (func $drop_completion (param i32)))"#;

/// `$run` (model, inputs, result).
pub const TENSORS: &str = r#"(import "formwork:plugin/tensors@1.0.0" "run" (func $run (param i32 i32 i32 i32 i32)))"#;

/// `$write_sink` (sink, bytes, result), `$drop_sink`. Exporters only.
pub const SINK: &str = r#"
    (import "formwork:plugin/sinks@1.0.0" "[method]sink.write" (func $write_sink (param i32 i32 i32 i32)))
    (import "formwork:plugin/sinks@1.0.0" "[resource-drop]sink" (func $drop_sink (param i32)))"#;

/// `$random` (length, result).
pub const RANDOM: &str = r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))"#;

/// `$now` and `$subscribe` (nanoseconds).
pub const CLOCK: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))"#;

/// `$block` (pollable), `$poll` (pollables, result), `$drop_pollable`.
pub const POLL: &str = r#"
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))
    (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))"#;

/// `$stdout`, `$stdin`, `$exit` (0 for success).
pub const CLI: &str = r#"
    (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
    (import "wasi:cli/stdin@0.2.0" "get-stdin" (func $stdin (result i32)))
    (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#;

/// `$environment` and `$arguments` (result), `$preopens` (result).
pub const SURROUNDINGS: &str = r#"
    (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
    (import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
    (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $preopens (param i32)))"#;

/// Streams: `$check_write` (stream, result), `$write` and `$write_flush` (stream, bytes, result), `$write_zeroes`
/// (stream, length, result), `$splice` (stream, source, length, result), `$read` (stream, length, result).
pub const STREAMS: &str = r#"
    (import "wasi:io/streams@0.2.0" "[method]output-stream.check-write" (func $check_write (param i32 i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
      (func $write_flush (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.write-zeroes" (func $write_zeroes (param i32 i64 i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.splice" (func $splice (param i32 i32 i64 i32)))
    (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))"#;

/// What no plugin gets: `$outgoing`, `$socket`, `$shell`.
pub const FORBIDDEN: &str = r#"
    (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $outgoing))
    (import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $socket))
    (import "acme:shell/run@1.0.0" "run" (func $shell))"#;

/// The interfaces above that are not the contract's own: as much of each as the imports need.
pub(crate) const WIT: &str = r#"
    package formwork:guest;

    world surroundings {
        import wasi:random/random@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:io/poll@0.2.0;
        import wasi:io/streams@0.2.0;
        import wasi:cli/stdin@0.2.0;
        import wasi:cli/stdout@0.2.0;
        import wasi:cli/exit@0.2.0;
        import wasi:cli/environment@0.2.0;
        import wasi:filesystem/preopens@0.2.0;
        import wasi:http/outgoing-handler@0.2.0;
        import wasi:sockets/tcp-create-socket@0.2.0;
        import acme:shell/run@1.0.0;
    }
    world validator { include surroundings; include formwork:plugin/validator@1.0.0; }
    world classifier { include surroundings; include formwork:plugin/classifier@1.0.0; }
    world extractor { include surroundings; include formwork:plugin/extractor@1.0.0; }
    world exporter { include surroundings; include formwork:plugin/exporter@1.0.0; }

    package wasi:random@0.2.0 {
        interface random { get-random-bytes: func(len: u64) -> list<u8>; }
    }
    package wasi:io@0.2.0 {
        interface error { resource error; }
        interface poll {
            resource pollable { block: func(); }
            poll: func(in: list<borrow<pollable>>) -> list<u32>;
        }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
            resource output-stream {
                check-write: func() -> result<u64, stream-error>;
                write: func(contents: list<u8>) -> result<_, stream-error>;
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                write-zeroes: func(len: u64) -> result<_, stream-error>;
                splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>;
            }
        }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            now: func() -> u64;
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:cli@0.2.0 {
        interface stdin { use wasi:io/streams@0.2.0.{input-stream}; get-stdin: func() -> input-stream; }
        interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
        interface exit { exit: func(status: result); }
        interface environment {
            get-environment: func() -> list<tuple<string, string>>;
            get-arguments: func() -> list<string>;
        }
    }
    package wasi:filesystem@0.2.0 {
        interface types { resource descriptor; }
        interface preopens {
            use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>;
        }
    }
    package wasi:http@0.2.0 { interface outgoing-handler { handle: func(); } }
    package wasi:sockets@0.2.0 { interface tcp-create-socket { create-tcp-socket: func(); } }
    package acme:shell@1.0.0 { interface run { run: func(); } }
"#;
