//! `generation_config.json` as models have it, and as they should not.

#![allow(clippy::unwrap_used)]

use sampling::{GENERATION_CONFIG_BYTES_MAX, GenerationDefaults, SamplingError, SamplingParams};

#[test]
fn a_sampling_model() {
    let json = br#"{"bos_token_id": 248044, "do_sample": true, "eos_token_id": [248046, 248044],
        "pad_token_id": 248044, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0,
        "transformers_version": "5.0.0"}"#;
    let defaults = GenerationDefaults::parse(json).unwrap();
    let expected = SamplingParams::greedy().with_temperature(0.6).with_top_k(20).with_top_p(0.95);
    assert_eq!(defaults.params, expected);
    assert_eq!(defaults.eos_token_ids, [248046, 248044]);
    assert!(defaults.is_eos(248044) && !defaults.is_eos(1));
}

#[test]
fn without_do_sample_it_is_greedy_and_keeps_the_filters() {
    let defaults =
        GenerationDefaults::parse(br#"{"temperature": 0.6, "top_k": 20, "eos_token_id": 2}"#).unwrap();
    assert!(defaults.params.is_greedy());
    assert_eq!(defaults.params.top_k, 20);
    assert_eq!(defaults.eos_token_ids, [2]);
    assert_eq!(GenerationDefaults::parse(b"{}").unwrap(), GenerationDefaults::default());
}

#[test]
fn a_model_that_says_nothing_is_sampled_in_the_usual_way() {
    for json in ["{}", r#"{"eos_token_id": 2, "temperature": null}"#] {
        let defaults = GenerationDefaults::parse(json.as_bytes()).unwrap();
        let usual = defaults.for_people();
        assert!(!defaults.says_how && defaults.params.is_greedy());
        assert_eq!((usual.temperature, usual.top_k, usual.top_p, usual.min_p), (0.8, 40, 0.95, 0.05));
    }
    // One that says anything is taken at its word, also if that is to be greedy.
    for json in [r#"{"do_sample": false}"#, r#"{"top_k": 20}"#] {
        let defaults = GenerationDefaults::parse(json.as_bytes()).unwrap();
        assert_eq!(defaults.for_people(), defaults.params);
        assert!(defaults.says_how && defaults.params.is_greedy());
    }
}

#[test]
fn nulls_and_minus_one_are_off() {
    let json = br#"{"do_sample": true, "temperature": null, "top_k": -1, "top_p": null,
        "eos_token_id": null, "repetition_penalty": 1.1}"#;
    let defaults = GenerationDefaults::parse(json).unwrap();
    let expected = SamplingParams::greedy().with_temperature(1.0).with_repetition_penalty(1.1);
    assert_eq!(defaults.params, expected);
    assert!(defaults.eos_token_ids.is_empty());
}

#[test]
fn end_tokens_are_the_union_of_both_files() {
    let mut defaults = GenerationDefaults::parse(br#"{"eos_token_id": [7, 5, 7]}"#).unwrap();
    let config = serde_json::json!({"eos_token_id": 5, "text_config": {"eos_token_id": [9]}});
    defaults.add_config_eos(&config).unwrap();
    assert_eq!(defaults.eos_token_ids, [7, 5, 9]);
    defaults.add_config_eos(&serde_json::json!([])).unwrap();
    assert!(defaults.add_config_eos(&serde_json::json!({"eos_token_id": "x"})).is_err());
}

#[test]
fn wrong_entries_are_named() {
    let long = format!(r#"{{"eos_token_id": [{}]}}"#, vec!["1"; 300].join(","));
    for (json, named) in [
        ("", "JSON"),
        ("[]", "top level"),
        (r#"{"temperature": "hot"}"#, "temperature is \"hot\""),
        (r#"{"do_sample": true, "temperature": -1}"#, "temperature is -1"),
        (r#"{"do_sample": 1}"#, "do_sample"),
        (r#"{"top_k": 1.5}"#, "top_k is 1.5"),
        (r#"{"top_k": -2}"#, "top_k is -2"),
        (r#"{"top_k": 4294967296}"#, "top_k"),
        (r#"{"top_p": 95}"#, "top_p is 95"),
        (r#"{"eos_token_id": -1}"#, "eos_token_id contains -1"),
        (r#"{"eos_token_id": [1, "two"]}"#, "eos_token_id contains \"two\""),
        (r#"{"eos_token_id": 4294967296}"#, "eos_token_id"),
        (&long, "300 entries"),
    ] {
        let message = GenerationDefaults::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(message.contains(named), "{json}: {message}");
        assert!(message.contains("generation_config.json") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn files_are_read_up_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("generation_config.json");
    assert!(matches!(GenerationDefaults::read(&path), Err(SamplingError::Io { .. })));
    std::fs::write(&path, r#"{"eos_token_id": 3}"#).unwrap();
    assert_eq!(GenerationDefaults::read(&path).unwrap().eos_token_ids, [3]);
    std::fs::write(&path, vec![b' '; GENERATION_CONFIG_BYTES_MAX as usize + 1]).unwrap();
    assert!(matches!(GenerationDefaults::read(&path), Err(SamplingError::TooLarge { .. })));
}
