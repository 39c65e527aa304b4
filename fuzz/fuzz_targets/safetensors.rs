//! Any bytes as a safetensors file: no panic, and the accepted tensors fill the file without a gap or an overlap.
#![no_main]

use std::path::Path;

use checkpoint::parse_safetensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = parse_safetensors(Path::new("fuzz.safetensors"), bytes) else { return };
    let mut names = std::collections::BTreeSet::new();
    let mut next = None;
    for tensor in &tensors {
        let weights = tensor.weight_count().expect("a count") as u64;
        assert_eq!(weights * tensor.format.block_bytes() as u64, tensor.extent.bytes, "{tensor:?}");
        assert_eq!(*next.get_or_insert(tensor.extent.offset), tensor.extent.offset, "{tensor:?}");
        next = Some(tensor.extent.offset + tensor.extent.bytes);
        assert!(names.insert(&tensor.name), "{tensor:?} twice");
    }
    assert!(
        next.is_none_or(|end| end == bytes.len() as u64),
        "the tensors end at {next:?} of {}",
        bytes.len()
    );
});
