;; The plugin of `formwork model bench`: asks a model for what the submission says, so that a call takes the way that every
;; plugin's call takes. The submission's id, which nobody reads as anything, is parts with the byte 31 between them:
;;   embed:    "e", model, text, text, ...
;;   generate: "g", model, system, prompt, schema or nothing, most tokens in decimal
;; A generation reports progress twice: (0, 0) when its first piece is there, (output tokens, cached tokens) at its end.
;; An error of the host's is a trap: a bench that goes on without its model would print figures of nothing.
(module
  (import "formwork:plugin/progress@1.0.0" "report" (func $report (param i64 i64 i32 i32)))
  (import "formwork:plugin/embeddings@1.0.0" "embed" (func $embed (param i32 i32 i32 i32 i32)))
  (import "formwork:plugin/generation@1.0.0" "start" (func $start
    (param i32 i32 i32 i32 i32 i32 i32 f32 i64 i32 i32 i32 i32 i32 i32)))
  (import "formwork:plugin/generation@1.0.0" "[method]completion.next" (func $next (param i32 i32)))
  (import "formwork:plugin/generation@1.0.0" "[method]completion.summary" (func $summary (param i32 i32)))
  (import "formwork:plugin/generation@1.0.0" "[resource-drop]completion" (func $drop (param i32)))
  (memory (export "memory") 1)
  ;; 1024: an empty answer, all zeros. 2048: where the host puts its answers.
  (global $heap (mut i32) (i32.const 4096))
  (global $parts (mut i32) (i32.const 0))

  (func $realloc (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
      (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (i32.const -1)
          (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $size) (i32.const 65536)))))
        (then (unreachable)))))
    (local.get $at))

  ;; Writes address and length of each part to a list at $parts; answers how many there are.
  (func $split (param $at i32) (param $length i32) (result i32)
      (local $end i32) (local $scan i32) (local $count i32)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (local.set $count (i32.const 1))
    (local.set $scan (local.get $at))
    (block $counted (loop $each
      (br_if $counted (i32.eq (local.get $scan) (local.get $end)))
      (local.set $count (i32.add (local.get $count) (i32.eq (i32.load8_u (local.get $scan)) (i32.const 31))))
      (local.set $scan (i32.add (local.get $scan) (i32.const 1)))
      (br $each)))
    (global.set $parts
      (call $realloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $count) (i32.const 8))))
    (local.set $count (i32.const 0))
    (local.set $scan (local.get $at))
    (loop $each
      (if (i32.eq (local.get $scan) (local.get $end))
        (then (call $note (local.get $count) (local.get $at) (local.get $scan))
              (return (i32.add (local.get $count) (i32.const 1)))))
      (if (i32.eq (i32.load8_u (local.get $scan)) (i32.const 31))
        (then (call $note (local.get $count) (local.get $at) (local.get $scan))
              (local.set $count (i32.add (local.get $count) (i32.const 1)))
              (local.set $at (i32.add (local.get $scan) (i32.const 1)))))
      (local.set $scan (i32.add (local.get $scan) (i32.const 1)))
      (br $each))
    (unreachable))

  (func $note (param $index i32) (param $from i32) (param $to i32)
    (i32.store (call $part (local.get $index)) (local.get $from))
    (i32.store offset=4 (call $part (local.get $index)) (i32.sub (local.get $to) (local.get $from))))

  (func $part (param $index i32) (result i32)
    (i32.add (global.get $parts) (i32.mul (local.get $index) (i32.const 8))))
  (func $at (param $index i32) (result i32) (i32.load (call $part (local.get $index))))
  (func $length (param $index i32) (result i32) (i32.load offset=4 (call $part (local.get $index))))

  (func $decimal (param $index i32) (result i32) (local $scan i32) (local $end i32) (local $number i32)
    (local.set $scan (call $at (local.get $index)))
    (local.set $end (i32.add (local.get $scan) (call $length (local.get $index))))
    (block $done (loop $each
      (br_if $done (i32.eq (local.get $scan) (local.get $end)))
      (local.set $number (i32.add (i32.mul (local.get $number) (i32.const 10))
        (i32.sub (i32.load8_u (local.get $scan)) (i32.const 48))))
      (local.set $scan (i32.add (local.get $scan) (i32.const 1)))
      (br $each)))
    (local.get $number))

  ;; The host's answer at 2048 must be `ok`.
  (func $ok (if (i32.load8_u (i32.const 2048)) (then (unreachable))))

  (func $generate (local $completion i32) (local $begun i32)
    (call $start (call $at (i32.const 1)) (call $length (i32.const 1)) (call $at (i32.const 2)) (call $length (i32.const 2))
      (call $at (i32.const 3)) (call $length (i32.const 3)) (call $decimal (i32.const 5)) (f32.const 0) (i64.const 0)
      (i32.const 0) (i32.const 0) (i32.ne (call $length (i32.const 4)) (i32.const 0))
      (call $at (i32.const 4)) (call $length (i32.const 4)) (i32.const 2048))
    (call $ok)
    (local.set $completion (i32.load offset=8 (i32.const 2048)))
    (block $ended (loop $each
      (call $next (local.get $completion) (i32.const 2048))
      (call $ok)
      (br_if $ended (i32.eqz (i32.load8_u offset=8 (i32.const 2048))))
      (if (i32.eqz (local.get $begun))
        (then (call $report (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)) (local.set $begun (i32.const 1))))
      (br $each)))
    (call $summary (local.get $completion) (i32.const 2048))
    (call $report (i64.load32_u offset=40 (i32.const 2048)) (i64.load32_u offset=36 (i32.const 2048))
      (i32.const 0) (i32.const 0))
    (call $drop (local.get $completion)))

  (func (export "prepare") (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 1024))

  (func (export "formwork:plugin/extracting@1.0.0#extract")
      (param $id i32) (param $id_length i32) (param i32 i32 i32 i32 i32 i32) (result i32) (local $count i32)
    (local.set $count (call $split (local.get $id) (local.get $id_length)))
    (if (i32.eq (i32.load8_u (local.get $id)) (i32.const 101))
      (then
        (call $embed (call $at (i32.const 1)) (call $length (i32.const 1)) (call $part (i32.const 2))
          (i32.sub (local.get $count) (i32.const 2)) (i32.const 2048))
        (call $ok))
      (else (call $generate)))
    (i32.const 1024)))
