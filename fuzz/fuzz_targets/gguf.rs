//! Any bytes as a GGUF file: no panic, and every tensor that is accepted lies inside the file.
#![no_main]

use std::path::Path;

use checkpoint::gguf::parse_bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((gguf, tensors)) = parse_bytes(Path::new("fuzz.gguf"), bytes) else { return };
    for tensor in &tensors {
        let end = tensor.extent.offset.checked_add(tensor.extent.bytes).expect("an end");
        assert!(end <= bytes.len() as u64, "{tensor:?}");
        assert!(tensor.weight_count().is_some(), "{tensor:?}");
    }
    for (_, value) in gguf.metadata().iter() {
        let _ = value.to_string();
        if let Some(array) = value.as_array() {
            assert_eq!(array.values().count(), array.len());
            assert_eq!(array.text(array.len()), None);
        }
    }
});
