//! Headers of real model files with something changed in them: refused or sound, never a panic, never much memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]
#![allow(
    unsafe_code,
    reason = "an allocator that keeps account is the only way to see what is allocated"
)]

mod with_models;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use formwork_inference::{Error, Header};
use formwork_tests::fuzzing::model_file::gguf_is_within;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use with_models::{encoder, generator};

/// Remembers the largest piece of memory that anybody asked for.
struct Accountant;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Accountant {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ACCOUNTANT: Accountant = Accountant;

/// One test at a time: the account is one.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of the GGUF file that hold its header, and some of what follows.
const GGUF_HEADER: usize = 2 << 20;

/// Numbers that stand at edges.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0xffff,
    0xffff_ffff,
    1 << 31,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// The same cases in every run.
fn runner(cases: u32) -> TestRunner {
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(ProptestConfig::with_cases(cases), chance)
}

/// A place, the number that is written there, and how many of its bytes.
fn changes(within: usize) -> impl Strategy<Value = Vec<(usize, u64, usize)>> {
    let number = prop_oneof![prop::sample::select(EDGES.to_vec()), any::<u64>()];
    let width = prop::sample::select(vec![1_usize, 4, 8]);
    // Half of them near the beginning, where keys and counts are.
    let place = prop_oneof![0..within, 4..4096_usize.min(within)];
    prop::collection::vec((place, number, width), 1..4)
}

/// The header with changes in it, its file as long as before; what the check said and the largest allocation it made.
fn checked(
    file: &mut File,
    original: &[u8],
    changes: &[(usize, u64, usize)],
) -> (Vec<u8>, Result<Header, Error>, usize) {
    let mut header = original.to_vec();
    for (at, number, width) in changes {
        let end = (at + width).min(header.len());
        header[*at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
    }
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&header).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    LARGEST.store(0, Ordering::Relaxed);
    let result = Header::read(path.as_ref());
    (header, result, LARGEST.load(Ordering::Relaxed))
}

#[test]
fn a_changed_gguf_header_is_sound_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let source = generator().file.path;
    let size = source.metadata().unwrap().len();
    let mut original = vec![0; GGUF_HEADER];
    File::open(source).unwrap().read_exact(&mut original).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    // The weights are a hole.
    file.set_len(size).unwrap();
    let (_, whole, _) = checked(&mut file, &original, &[]);
    assert!(matches!(whole, Ok(Header::Gguf { .. })), "{whole:?}");
    let mut runner = runner(300);
    let file = std::cell::RefCell::new(file);
    runner
        .run(&changes(GGUF_HEADER), |changes| {
            let (header, result, largest) = checked(&mut file.borrow_mut(), &original, &changes);
            prop_assert!(largest < 2 << 20, "{largest} bytes at once");
            if let Ok(Header::Gguf { .. }) = result {
                prop_assert!(gguf_is_within(&header, size), "something lies outside of the file");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_changed_onnx_file_is_sound_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let original = std::fs::read(encoder().file.path).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let (_, whole, _) = checked(&mut file, &original, &[]);
    assert!(matches!(whole, Ok(Header::Onnx { .. })), "{whole:?}");
    let mut runner = runner(60);
    let (length, file) = (original.len(), std::cell::RefCell::new(file));
    runner
        .run(&changes(64 << 10), |changes| {
            let (_, _, largest) = checked(&mut file.borrow_mut(), &original, &changes);
            // The file itself is read into memory, and the vector that takes it may double.
            prop_assert!(largest <= 2 * length + (1 << 20), "{largest} bytes at once");
            Ok(())
        })
        .unwrap();
}
