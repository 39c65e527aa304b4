//! `chat` with its turns on standard input: what is answered, what is computed for it, and its commands.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "what other tests use")]
mod common;

use common::{Dir, copy_fixture, fails, ok, piped};

const CHAT: [&str; 7] = ["chat", "demo", "--temp", "0", "-n", "12", "--lookahead=off"];

/// Answers (a line each, as the tests keep them short) and what is said beside them.
fn chat(extra: &[&str], input: &str) -> (String, String) {
    let output = piped(&[&CHAT[..], extra].concat(), input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    (String::from_utf8(output.stdout).unwrap(), errors)
}

/// (newly computed, all) tokens of each turn's prompt.
fn prompts(errors: &str) -> Vec<(usize, usize)> {
    let figures = errors.lines().filter(|line| line.contains("prompt tokens at"));
    let numbers = figures.map(|line| {
        let mut words = line.split(' ').filter_map(|word| word.parse().ok());
        (words.next().unwrap(), words.next().unwrap())
    });
    numbers.collect()
}

#[test]
fn a_turn_is_answered_as_run_answers_it_and_the_next_computes_only_what_is_new() {
    let question = "Tell me about a little dog.";
    let alone = ok(&["run", "demo", question, "--temp", "0", "-n", "12", "--lookahead=off"]);
    let (text, errors) = chat(&[], &format!("{question}\nAnd then?\n\nWhy?\n"));
    assert!(text.starts_with(alone.trim_end()), "{text}\n{alone}");
    let prompts = prompts(&errors);
    assert_eq!(prompts.len(), 3, "{errors}");
    assert_eq!(prompts[0].0, prompts[0].1);
    for pair in prompts.windows(2) {
        let ((_, before), (new, all)) = (pair[0], pair[1]);
        // What was generated is seen but for its last token.
        assert!(new < all - before && all > before, "{errors}");
    }
    assert!(errors.contains("stopped by -n"), "{errors}");
}

#[test]
fn commands_start_over_and_end() {
    let turn = "Tell me about a cat.";
    let (text, errors) =
        chat(&[], &format!("{turn}\n/reset\n{turn}\n/nonsense\n/help\n/stats\n/quit\nnever\n"));
    let half = text.len() / 2;
    assert_eq!(text[..half], text[half..], "the same question of a new conversation");
    for part in ["a new conversation", "no command /nonsense", "/system TEXT", "peak memory"] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    assert_eq!(prompts(&errors).len(), 2, "{errors}");
    let (_, errors) = chat(&[], &format!("/stats\n/system Be brief.\n{turn}\n/system\n{turn}\n//odd\n"));
    assert!(errors.contains("nothing was answered yet") && errors.contains("system: Be brief."), "{errors}");
    let prompts = prompts(&errors);
    assert!(prompts[0].1 > prompts[1].1 && prompts[2].1 > prompts[1].1, "{errors}");
}

#[test]
fn what_cannot_go_on_says_why() {
    let long = "word ".repeat(60);
    let output = piped(&[&CHAT[..], &["--ctx", "64"]].concat(), &format!("{long}\n"));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("error: the conversation is too long; /reset starts a new one"), "{errors}");
    let dir = Dir::new();
    let model = copy_fixture("flat", dir.path());
    fails(&["chat", model.to_str().unwrap()], &["tokenizer"]);
}

/// Like [`chat`], and how many tokens were computed for each turn.
fn with_sessions(dir: &Dir, extra: &[&str], input: &str) -> (String, Vec<usize>) {
    let kept = ["--session-cache", dir.path().to_str().unwrap()];
    let (text, errors) = chat(&[&kept[..], extra].concat(), input);
    (text, prompts(&errors).into_iter().map(|(new, _)| new).collect())
}

#[test]
fn a_restart_goes_on_from_what_is_on_disk() {
    let dir = Dir::new();
    let turns = format!("Tell me a story about {}.\nAnd then?\n", "a dog and a cat and ".repeat(20));
    let (text, first) = with_sessions(&dir, &[], &turns);
    let (again, second) = with_sessions(&dir, &[], &turns);
    assert_eq!(text, again, "text is the same with and without what is on disk");
    assert!(second[0] <= 64 && first[0] > 2 * second[0], "{first:?} {second:?}");
    // Damage is found and computed again; files of other models are of no use.
    for file in std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()) {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    }
    let (again, third) = with_sessions(&dir, &[], &turns);
    assert_eq!((&text, &first), (&again, &third));
    let (_, other) = with_sessions(&dir, &["--kv", "f32"], &turns);
    assert_eq!(other, third);
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_a_directory_of_use() {
    let dir = Dir::new();
    let turns = format!("Tell me a story about {}.\nAnd then?\n", "a dog and a cat and ".repeat(20));
    let (text, first) = with_sessions(&Dir::new(), &[], &turns);
    for after_ms in [200, 400, 600, 800] {
        let kept = ["--session-cache", dir.path().to_str().unwrap()];
        common::killed(&[&CHAT[..], &kept].concat(), &turns, std::time::Duration::from_millis(after_ms));
        let copy = Dir::new();
        for file in std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()) {
            std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        let (again, computed) = with_sessions(&copy, &[], &turns);
        assert_eq!(text, again, "killed after {after_ms} ms");
        assert!(computed[0] <= first[0]);
    }
}
