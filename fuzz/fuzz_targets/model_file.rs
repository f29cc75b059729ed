#![no_main]

use formwork_tests::fuzzing::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    Target::ModelFile.run(input);
});
