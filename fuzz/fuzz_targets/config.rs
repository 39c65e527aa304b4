//! Any bytes as a config.json: no panic and no overflow from there to the list of tensors and the memory plan.
#![no_main]

use std::path::Path;

use engine::KvFormat;
use engine::plan::{MemoryPlan, ModelSizes, PlanInput};
use libfuzzer_sys::fuzz_target;

/// An ordinary machine's memory.
const BUDGET_BYTES: u64 = 16 << 30;
/// Layers beyond which the list of tensors only gets longer.
const LAYERS_MAX: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let spec = match models::read_config(Path::new("config.json"), &json) {
        Ok(spec) => spec,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 4096 && !text.contains('\n'), "{text}");
            return;
        }
    };
    if spec.num_layers() <= LAYERS_MAX {
        let tensors = models::layout::published_dense(&spec);
        assert!(!tensors.is_empty());
    }
    for kv in [KvFormat::F16, KvFormat::Q8_0] {
        let sizes = ModelSizes {
            dense_bytes: 1 << 30,
            tokenizer_json_bytes: 1 << 20,
            slot_bytes: 1 << 20,
            expert_count: spec.experts_max().saturating_mul(spec.moe_layers()),
        };
        let input = PlanInput {
            config: &spec,
            budget_bytes: BUDGET_BYTES,
            sizes,
            ctx: 4096,
            kv,
            parallel: 1,
            kv_tokens: 4096,
            snapshots: None,
            session_cache: false,
            threads: 2,
            isa: None,
            slots: None,
            chunk_tokens: None,
        };
        if let Ok(plan) = MemoryPlan::new(&input) {
            assert!(plan.total_bytes() <= BUDGET_BYTES, "{plan:?}");
        }
    }
});
