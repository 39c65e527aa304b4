//! The template environment against transformers' own, and its limits.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{load, with_config, word_level};
use tokenizer::{Message, TemplateOptions, TokenizerError};

/// Renders one template without messages.
fn render(template: &str, options: &TemplateOptions) -> Result<String, TokenizerError> {
    with_config(&json!({"bos_token": "<s>", "chat_template": template})).apply_chat_template(&[], options)
}

fn plain(template: &str) -> Result<String, TokenizerError> {
    render(template, &TemplateOptions::default())
}

/// `data/jinja_cases.json` was rendered by transformers; `data/make_jinja_cases.py` makes it.
#[test]
fn same_as_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/jinja_cases.json");
    let data: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut options = TemplateOptions::default();
    options.extra.insert("x".into(), data["x"].clone());
    for case in data["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        let got = render(template, &options);
        match case["output"].as_str() {
            Some(expected) => assert_eq!(got.unwrap(), expected, "{template}"),
            None => assert!(got.is_err(), "{template}: {got:?}, expected {}", case["error"]),
        }
    }
}

/// What is refused although Jinja2 has a text for it. docs/templates.md says why.
const REFUSED: [&str; 21] = [
    "| pprint",
    "| urlize",
    "| random",
    "| xmlattr",
    " is filter",
    " is test",
    "| wordwrap(4)",
    "-7 ** x.f",
    "range(5)[",
    "self",
    "lipsum",
    "{{ namespace() }}",
    "attr('",
    "map('attr'",
    "[x.html | e]",
    "in ['xy'",
    "a, b = 'xy'",
    "namespace({",
    "{{ m }}",
    "x.l[]",
    "{#",
];
/// What is different: objects that no prompt shows.
const DIFFERENT: [&str; 2] = ["{{ m.arguments }}", "{{ namespace(a=1) == namespace(a=1) }}"];

/// `data/expressions.json` was rendered by transformers; `data/make_expressions.py` makes it.
#[test]
fn expressions_mean_what_jinja2_means() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/expressions.json");
    let data: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = data["cases"].as_array().unwrap();
    let mut options = TemplateOptions { now_s: data["now"].as_i64(), ..Default::default() };
    options.extra.insert("x".into(), data["x"].clone());
    let (mut equal, mut refused, mut wrong) = (0, 0, Vec::new());
    // As many templates as one model may have.
    for cases in cases.chunks(tokenizer::TEMPLATES_MAX) {
        let named = |(index, case): (usize, &Value)| json!({"name": index.to_string(), "template": case[0]});
        let list: Vec<Value> = cases.iter().enumerate().map(named).collect();
        let tokenizer = with_config(&json!({"bos_token": "<s>", "chat_template": list}));
        for (index, case) in cases.iter().enumerate() {
            let (template, expected) = (case[0].as_str().unwrap(), case[1].as_str());
            options.template = Some(index.to_string());
            let got = tokenizer.apply_chat_template(&[], &options);
            let is = |list: &[&str]| list.iter().any(|part| template.contains(part));
            match (&got, expected) {
                (Ok(got), Some(expected)) if got == expected => equal += 1,
                (Err(_), None) => equal += 1,
                (Err(_), Some(_)) if is(&REFUSED) => refused += 1,
                _ if is(&DIFFERENT) => refused += 1,
                _ => wrong.push(format!("{template:?}: {got:?}, Jinja2 {expected:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal > 4000 && refused < 130, "{equal} are equal, {refused} are refused");
}

#[test]
fn variables_reach_the_template() {
    let tokenizer = with_config(&json!({
        "eos_token": {"content": "</s>"},
        "chat_template": "{{ eos_token }}|{{ tools }}|{{ enable_thinking is defined }}|\
                          {{ add_generation_prompt }}|{{ effort }}|{{ messages[0].content }}",
    }));
    let messages = [Message::user("hi")];
    let mut options = TemplateOptions::default();
    let rendered = tokenizer.apply_chat_template(&messages, &options).unwrap();
    assert_eq!(rendered, "</s>|None|False|False||hi");
    options.add_generation_prompt = true;
    options.enable_thinking = Some(false);
    options.tools = Some(json!([1]));
    options.extra.insert("effort".into(), "high".into());
    options.extra.insert("messages".into(), "no".into());
    let rendered = tokenizer.apply_chat_template(&messages, &options).unwrap();
    assert_eq!(rendered, "</s>|[1]|True|True|high|hi");
}

#[test]
fn reasoning_is_there_under_every_name() {
    let template = "{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}";
    let tokenizer = with_config(&json!({"chat_template": template}));
    for name in ["reasoning_content", "thinking", "reasoning"] {
        let mut message = Message::assistant("4");
        message.fields.insert(name.into(), "hm".into());
        let rendered = tokenizer.apply_chat_template(&[message], &TemplateOptions::default());
        assert_eq!(rendered.unwrap(), "hm|hm");
    }
}

#[test]
fn the_clock_is_a_parameter() {
    let options = TemplateOptions { now_s: Some(1_754_028_305), ..Default::default() };
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}", &options).unwrap(), "01 Aug 2025");
    assert!(plain("{{ strftime_now('%Y') }}").unwrap().as_str() >= "2025");
}

#[test]
fn named_templates() {
    let list = json!([{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"},
                      {"name": "rag", "template": "R"}]);
    let tokenizer = with_config(&json!({"chat_template": list}));
    let mut options = TemplateOptions::default();
    assert_eq!(tokenizer.apply_chat_template(&[], &options).unwrap(), "D");
    options.tools = Some(json!([]));
    assert_eq!(tokenizer.apply_chat_template(&[], &options).unwrap(), "T");
    options.template = Some("rag".into());
    assert_eq!(tokenizer.apply_chat_template(&[], &options).unwrap(), "R");
    options.template = Some("nope".into());
    let error = tokenizer.apply_chat_template(&[], &options).unwrap_err().to_string();
    assert!(error.contains("\"nope\"") && error.contains("default, tool_use, rag"), "{error}");
}

#[test]
fn the_jinja_file_takes_the_place_of_the_default() {
    let config = json!({"eos_token": "E", "chat_template": "config"});
    let tokenizer = load(&word_level(), Some(&config), Some("file {{ eos_token }}\n")).unwrap();
    let rendered = tokenizer.apply_chat_template(&[], &TemplateOptions::default());
    assert_eq!(rendered.unwrap(), "file E");

    let tokenizer = load(&word_level(), None, None).unwrap();
    assert!(!tokenizer.has_chat_template());
    let error = tokenizer.apply_chat_template(&[], &TemplateOptions::default()).unwrap_err();
    assert!(matches!(error, TokenizerError::NoChatTemplate), "{error}");
}

#[test]
fn errors_teach() {
    for (template, expected) in [
        ("a\nb\n{{ x.y.z }}", "line 3: undefined value"),
        ("\n{% if %}", "line 2: syntax error"),
        ("{{ 1 | nope }}", "filter nope is unknown"),
        ("{{ messages.append(1) }}", "line 1: unknown method"),
        ("{{ raise_exception('Only\n two roles.') }}", "refuses these messages: Only two roles"),
    ] {
        let error = plain(template).unwrap_err().to_string();
        assert!(error.contains(expected), "{template}: {error}");
        assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
    }
}

#[test]
fn hostile_templates_are_stopped() {
    let fuel = |template: &str| {
        let error = plain(template).unwrap_err();
        assert!(matches!(error, TokenizerError::TemplateFuel { .. }), "{template}: {error}");
    };
    fuel("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
    fuel("{{ 'x' * 100000000000 }}");
    fuel(
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    );
    // Shared parts make a value that is small in memory and huge as text.
    fuel(
        "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}\
         {% endfor %}{{ ns.l | tojson }}",
    );
    for template in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}\
         {% endfor %}{{ ns.l | tojson }}",
        "{% include 'default' %}",
        "{% import '/etc/passwd' as p %}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{{ ''.__class__.__mro__ }}",
    ] {
        let error = plain(template).unwrap_err();
        assert!(matches!(error, TokenizerError::Template { .. }), "{template}: {error}");
    }
}

/// Whatever nests as deep as source and fuel allow ends in an error or a text, not in a stack
/// overflow, which would end the process.
#[test]
fn nothing_overflows_the_stack() {
    let nest = |count: usize, tail: &str| {
        let (open, close) = ("[".repeat(30), "]".repeat(30));
        format!(
            "{{% set ns = namespace(l=1, m=1) %}}{{% for i in range({count}) %}}\
             {{% set ns.l = {open}ns.l{close} %}}{{% set ns.m = {open}ns.m{close} %}}{{% endfor %}}\
             {tail}"
        )
    };
    // All the fuel goes into depth, and the drop is deep.
    let error = plain(&nest(90_000, "")).unwrap_err();
    assert!(matches!(error, TokenizerError::TemplateFuel { .. }), "{error}");
    for tail in
        ["{{ ns.l }}", "{{ ns.l == ns.m }}", "{{ [ns.l, ns.m] | sort | length }}", "{{ {ns.l: 1}[ns.m] }}"]
    {
        let _ = plain(&nest(5000, tail));
    }
    let long = 250 << 10;
    for (head, piece, tail) in [
        ("{{ ", "(", ""),
        ("{{ ", "1+", "1 }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ a", ".a", " }}"),
        ("{{ a", "[0]", " }}"),
        ("{{ a", "|e", " }}"),
        ("{{ a", "()", " }}"),
        ("{{ 1", " if 1 else 1", " }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ 1", "<1", " }}"),
        ("{{ 1", " is odd", " }}"),
        ("", "{% if 1 %}", ""),
        ("{% if 0 %}", "{% elif 0 %}", "{% endif %}"),
        ("", "{% for a in [1] %}", ""),
        ("", "{% macro m() %}", ""),
    ] {
        let count = (long - head.len() - tail.len()) / piece.len();
        let _ = plain(&format!("{head}{}{tail}", piece.repeat(count)));
    }
}

#[test]
fn a_long_conversation_fits() {
    let template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}{{ '\\n' }}{% endfor %}";
    let tokenizer = with_config(&json!({"chat_template": template}));
    let messages: Vec<Message> = (0..5000).map(|i| Message::user("word ".repeat(i % 500))).collect();
    let text = tokenizer.apply_chat_template(&messages, &TemplateOptions::default()).unwrap();
    assert!(text.len() > 5_000_000);
}

#[test]
fn broken_files_are_named() {
    let named = |error: TokenizerError, what: &str| {
        let message = error.to_string();
        assert!(message.contains(what) && !message.contains('\n'), "{message}");
    };
    named(load(&json!({"model": 1}), None, None).unwrap_err(), "tokenizer.json");
    for decoder in ["1e999", "\"\\ud800\"", "{\"type\"", "3", "{\"type\": \"Nope\"}", "[[]]"] {
        let text =
            word_level().to_string().replacen("\"decoder\":null", &format!("\"decoder\":{decoder}"), 1);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, text).unwrap();
        named(tokenizer::Tokenizer::from_files(&path, None, None).unwrap_err(), "tokenizer.json");
    }
    let config = |value: Value| load(&word_level(), Some(&value), None).unwrap_err();
    named(config(json!({"chat_template": 3})), "tokenizer_config.json: chat_template is neither");
    named(config(json!({"chat_template": [{"name": "a"}]})), "lacks the texts");
    named(config(json!({"chat_template": vec![json!({}); 65]})), "65 entries");
    named(config(json!({"chat_template": "x".repeat(300 << 10)})), "larger than 262144 bytes");
    let jinja = "x".repeat((256 << 10) + 1);
    named(load(&word_level(), None, Some(&jinja)).unwrap_err(), "chat_template.jinja");
    let missing = tokenizer::Tokenizer::from_directory(std::path::Path::new("no-such-model"));
    named(missing.unwrap_err(), "cannot read");
}

#[test]
fn line_ends_of_a_source_are_jinjas() {
    let lf = "{% if true %}\na{% endif %}\nb{{ '\\r\\n' }}{{ x }}";
    let mut options = TemplateOptions::default();
    options.extra.insert("x".into(), "c\r\nd".into());
    for source in [lf.to_owned(), lf.replace('\n', "\r\n"), lf.replace('\n', "\r")] {
        assert_eq!(render(&source, &options).unwrap(), "ab\r\nc\r\nd", "{source:?}");
    }
}

#[test]
fn an_empty_template_is_none() {
    for source in ["", " \r\n"] {
        let tokenizer = with_config(&json!({"chat_template": source}));
        assert!(!tokenizer.has_chat_template(), "{source:?}");
    }
    let tokenizer = with_config(&json!({"chat_template": "{% if false %}x{% endif %}"}));
    let error = tokenizer.encode_chat(&[Message::user("hi")], &TemplateOptions::default()).unwrap_err();
    assert!(error.to_string().contains("chat template makes an empty prompt"), "{error}");
}

#[test]
fn none_and_namespaces_are_not_iterable() {
    let source = "{% for v in [none, 'a', [1], [], {'a': 1}, 3, true, namespace(a=1), 1.5, (1,)] %}\
                  {{ v is iterable }} {% endfor %}{{ nope is iterable }} {{ range(2) is iterable }} \
                  {{ [none, [1]] | select('iterable') | list }}";
    let expected = "False True True True True False False False False True True True [[1]]";
    assert_eq!(plain(source).unwrap(), expected);
    assert_eq!(plain("{% if tools is iterable and tools | length > 0 %}a{% endif %}b").unwrap(), "b");
}
